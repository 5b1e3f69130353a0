"""No value is changed by being read.

It arrives exactly, or is counted out with its reason, or is refused in one line.
"""

from __future__ import annotations

import datetime
import decimal
import math
import tempfile
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualgnn_dgl.errors import DataError
from dualgnn_dgl.preprocess import Options, prepare
from dualgnn_dgl.preprocess.split import only_positions
from dualgnn_dgl.readers import streams
from dualgnn_dgl.readers.reader import read

LEAST, LARGEST = -(2**63), 2**63 - 1
decimal.getcontext().prec = 80


def times_read(
    column: pa.Array | Sequence[str], *, rows: int = 1 << 19
) -> tuple[list[int], list[int], dict[str, int]]:
    """Rows (numbered from 0) that were read, their times, and what was dropped.

    A Parquet column, or fields of a CSV.
    """
    with tempfile.TemporaryDirectory() as folder:
        numbers = [str(n) for n in range(len(column))]
        if isinstance(column, pa.Array):
            path = Path(folder) / "log.parquet"
            table = pa.table({"user": ["u"] * len(column), "item": numbers, "time": column})
            pq.write_table(table, path, row_group_size=rows)
        else:
            path = Path(folder) / "log.csv"
            text = "".join(f"u,{n},{field}\n" for n, field in zip(numbers, column, strict=True))
            path.write_text(f"user,item,time\n{text}")
        log = read(path).log
    assert log.time is not None and log.time.dtype == np.int64
    assert log.rows_read == len(column) == len(log.time) + sum(log.dropped.values())
    return [int(name) for name in log.item_ids[log.item]], log.time.tolist(), log.dropped


def check_order(column: pa.Array | Sequence[str], exact: Sequence[Any], **more: int) -> None:
    """The times are in the order of `exact`, equal where they are equal.

    Every row that is left out is out of range or None.
    """
    try:
        rows, found, dropped = times_read(column, **more)
    except DataError as error:
        assert "\n" not in str(error)
        assert all(value is None or not LEAST <= value <= LARGEST for value in exact), error
        return
    out = [n for n in range(len(column)) if n not in set(rows)]
    assert all(exact[n] is None or not LEAST <= exact[n] <= LARGEST for n in out)
    assert dropped.get("time beyond 64 bits", 0) == sum(exact[n] is not None for n in out)
    kept = [exact[n] for n in rows]
    place = {value: rank for rank, value in enumerate(sorted(set(kept)))}
    rank = {value: rank for rank, value in enumerate(sorted(set(found)))}
    assert [place[value] for value in kept] == [rank[value] for value in found]
    if all(value == int(value) for value in kept):
        assert found == kept  # whole numbers arrive as they are


BITS = (8, 16, 32, 64)
WIDTHS = {f"int{n}": (-(2 ** (n - 1)), 2 ** (n - 1) - 1) for n in BITS} | {
    f"uint{n}": (0, 2**n - 1) for n in BITS
}


def whole(low: int, high: int) -> st.SearchStrategy[int]:
    """Whole numbers, the extremes and what lies beside the limits of floats and signed integers
    often.
    """
    edges = [
        n + d
        for n in (low, high, 0, 2**31, 2**53, 2**62, 2**63, -(2**53), -(2**63))
        for d in (-1, 0, 1)
    ]
    return st.integers(low, high) | st.sampled_from([n for n in edges if low <= n <= high])


@pytest.mark.parametrize("width", WIDTHS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_integers_of_every_width_keep_their_order(width: str, data: st.DataObject) -> None:
    low, high = WIDTHS[width]
    values = data.draw(st.lists(st.none() | whole(low, high), min_size=1, max_size=12))
    check_order(pa.array(values, getattr(pa, width)()), values)
    check_order(["" if value is None else str(value) for value in values], values)
    check_order(pa.array(values, getattr(pa, width)()).dictionary_encode(), values)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(whole(-(2**70), 2**70), min_size=1, max_size=12),
    dot=st.sampled_from(["", ".0", ".", ".000"]),
)
def test_whole_numbers_as_text_keep_their_order(values: list[int], dot: str) -> None:
    check_order([f"{value}{dot}" for value in values], values)
    check_order([f"{value}{dot if n % 2 else ''}" for n, value in enumerate(values)], values)


floats = st.floats(width=64, allow_nan=False, allow_infinity=False)
close = [1593898068.1234567, 1593898068.1234570, 0.1, 0.1 + 2**-56, 9e12 + 0.25, 9e12 + 0.5]
moments = st.floats(1.5e9, 1.7e9) | st.sampled_from(close)


@pytest.mark.parametrize("kind", ["float64", "float32", "float16"])
@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(
        st.none() | floats | moments | whole(0, 2**60).map(float), min_size=1, max_size=12
    )
)
def test_floats_keep_their_order(kind: str, values: list[float | None]) -> None:
    with np.errstate(over="ignore"):
        rounded = [None if value is None else np.dtype(kind).type(value) for value in values]
    exact = [
        None if value is None or not math.isfinite(value) else Fraction(float(value))
        for value in rounded
    ]
    fractional = any(value is not None and value.denominator > 1 for value in exact)
    known = [value for value in exact if value is not None]
    if fractional and any(not LEAST <= value <= LARGEST for value in known):
        ranks = {value: n for n, value in enumerate(sorted(set(known)))}
        # ranked, none is left out
        exact = [None if value is None else Fraction(ranks[value] * 2 + 1, 2) for value in exact]
    check_order(pa.array(rounded, getattr(pa, kind)()), exact)


def fields(value: Decimal) -> str:
    return format(value, "f")


numbers = (
    st.decimals(-(10**19), 10**19, places=18)
    | st.decimals(0, 10**10, places=9)
    | st.decimals(0, 10**10, places=2)
)


@settings(max_examples=60, deadline=None)
@given(values=st.lists(numbers, min_size=1, max_size=12), rows=st.sampled_from([2, 1 << 19]))
def test_decimals_and_their_text_keep_their_order(values: list[Decimal], rows: int) -> None:
    check_order(pa.array(values, pa.decimal128(38, 18)), values, rows=rows)
    check_order([fields(value) for value in values], values)
    check_order(
        [fields(value).rstrip("0") if n % 2 else f"{value:E}" for n, value in enumerate(values)],
        values,
    )


def test_nanoseconds_written_as_seconds_are_told_apart() -> None:
    """`date +%s.%N` writes so: a float holds such a number to some 240 ns only."""
    fields = ["1593898068.123456789", "1593898068.123456788", "1593898068.1234567885", "1593898068"]
    check_order(fields, [Decimal(field) for field in fields])
    assert times_read(["15.5", "7", "2.25e1"])[1] == [15_500_000, 7_000_000, 22_500_000]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Kolkata"])
@settings(max_examples=30, deadline=None)
@given(values=st.lists(st.none() | whole(LEAST, LARGEST), min_size=1, max_size=12))
def test_timestamps_keep_their_order(unit: str, zone: str | None, values: list[int | None]) -> None:
    column = pa.array(values, pa.int64()).cast(pa.timestamp(unit, zone))
    if unit == "s":  # Parquet has no seconds: what milliseconds cannot hold is not written
        values = [value if value is None or abs(value) < 9e15 else 0 for value in values]
        column = pa.array(values, pa.int64()).cast(pa.timestamp(unit, zone))
    rows, found, _ = (
        times_read(column) if any(value is not None for value in values) else ([], [], {})
    )
    kept = [values[n] for n in rows]
    assert rows == [n for n, value in enumerate(values) if value is not None]
    assert (
        np.argsort(found, kind="stable").tolist()
        == np.argsort(np.array(kept, np.int64), kind="stable").tolist()
    )
    assert len(set(found)) == len(set(kept))


@settings(max_examples=30, deadline=None)
@given(values=st.lists(whole(-(2**31), 2**31 - 1), min_size=1, max_size=12))
def test_days_keep_their_order(values: list[int]) -> None:
    check_order(pa.array(values, pa.int32()).cast(pa.date32()), values)
    milliseconds = [day * 86_400_000 for day in values if abs(day) < 2**20]
    column = pa.array(milliseconds, pa.int64()).cast(pa.date64())
    if milliseconds:  # Parquet keeps them as days
        rows, found, _ = times_read(column)
        assert rows == list(range(len(found)))
        assert (
            np.argsort(found, kind="stable").tolist()
            == np.argsort(milliseconds, kind="stable").tolist()
        )


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(
        st.datetimes(datetime.datetime(1678, 1, 1), datetime.datetime(2262, 1, 1)),
        min_size=1,
        max_size=9,
    ),
    nano=st.lists(st.integers(0, 999), min_size=9, max_size=9),
    zone=st.sampled_from(["", "Z", "+00:00"]),
)
def test_iso_dates_keep_their_order_to_the_nanosecond(
    values: list[datetime.datetime], nano: list[int], zone: str
) -> None:
    fine = [
        f"{moment:%Y-%m-%dT%H:%M:%S.%f}{n:03}{zone}"
        for moment, n in zip(values, nano, strict=False)
    ]
    start = datetime.datetime(1970, 1, 1)
    exact = [
        (moment - start) // datetime.timedelta(microseconds=1) * 1000 + n
        for moment, n in zip(values, nano, strict=False)
    ]
    rows, found, dropped = times_read(fine)
    assert rows == list(range(len(fine))) and not dropped
    assert np.argsort(found, kind="stable").tolist() == np.argsort(exact, kind="stable").tolist()
    assert len(set(found)) == len(set(exact))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, 2], pa.duration("us")),
        pa.array([1, 2], pa.duration("ns")),
        pa.array([1, 2], pa.time64("ns")),
        pa.array([1, 2], pa.time32("s")),
        pa.array([True, False]),
        pa.array([b"1", b"2"]),
        pa.array([[1], [2]]),
        pa.array([2**63, 2**64 - 1], pa.uint64()),
        pa.array([1e19, -1e300]),
        pa.array([None, None], pa.timestamp("ns")),
        pa.nulls(2),
        pa.array(["0x10", "0x11"]),
        pa.array([Decimal(2**63), Decimal(-(2**63) - 1)], pa.decimal128(20, 0)),
        pa.array([Decimal(10**60), Decimal(10**61)], pa.decimal256(76, 2)),
    ],
    ids=lambda column: str(column.type),
)
def test_a_column_without_any_usable_time_is_one_line(column: pa.Array) -> None:
    with pytest.raises(
        DataError,
        match=r"none of the 2 rows of log.parquet is usable \(time .*: 2; time holds .*--time-col "
        r"''",
    ):
        times_read(column)


def test_one_time_out_of_range_is_counted_and_the_rest_is_kept() -> None:
    for column in (
        pa.array([5, 2**63, 2**64 - 1, 2**63 - 1, None], pa.uint64()),
        [str(n) for n in (5, 2**63, 2**64 - 1, 2**63 - 1, "soon")],
        pa.array(
            [Decimal(n) for n in (5, 2**63, 2**64 - 1, 2**63 - 1)] + [None], pa.decimal128(38, 0)
        ),
    ):
        rows, found, dropped = times_read(column)
        assert (rows, found) == ([0, 3], [5, 2**63 - 1])
        assert dropped == {"time not readable": 1, "time beyond 64 bits": 2}


@pytest.mark.parametrize("split", ["leave-one-out", "time-user"])
def test_unsigned_times_hold_out_the_latest_video(tmp_path: Path, split: str) -> None:
    """Cast to signed ones, the latest became the earliest, for every user."""
    early = 2**62
    users, items = [f"u{n // 5}" for n in range(45)], [f"v{n % 5}" for n in range(45)]
    times = pa.array([early + n % 5 for n in range(45)], pa.uint64())
    pq.write_table(
        pa.table({"user": users, "item": items, "time": times}), tmp_path / "log.parquet"
    )
    made = prepare(read(tmp_path / "log.parquet"), Options(k_core=0, split=split)).dataset
    assert set(made.item_ids[made.test.item]) == {"v4"}


def test_all_files_of_a_log_have_one_unit(tmp_path: Path) -> None:
    def write(name: str, column: pa.Array) -> None:
        size = len(column)
        items = [f"{name}{n}" for n in range(size)]
        pq.write_table(
            pa.table({"user": ["u"] * size, "item": items, "time": column}), tmp_path / name
        )

    moments = pa.array([1, 2], pa.int64())
    write("train.parquet", moments.cast(pa.timestamp("ms")))
    for column, unit in (
        (moments.cast(pa.timestamp("us")), "microseconds"),
        (pa.array([1, 2], pa.int32()).cast(pa.date32()), "days"),
        (moments, "plain numbers"),
        (pa.array(["2020-01-01", "2020-01-02"]), "microseconds"),
    ):
        write("test.parquet", column)
        with pytest.raises(
            DataError,
            match=f"test.parquet gives times in {unit}, but train.parquet in milliseconds",
        ):
            read(tmp_path)
    write("test.parquet", pa.array([3, 4], pa.int64()).cast(pa.timestamp("ms", "UTC")))
    assert read(tmp_path).log.time.tolist() == [1, 2, 3, 4]
    write("train.parquet", pa.array([2**53 + 1, 4], pa.int64()))
    write("test.parquet", pa.array([0.5, 4.0]))
    with pytest.raises(
        DataError,
        match="train.parquet, column time, gives times with fractions, and whole ones such as 900",
    ):
        read(tmp_path)
    write("test.parquet", pa.array([Decimal("0.5"), None], pa.decimal128(9, 3)))
    assert read(tmp_path).log.time.tolist() == [2, 1, 0]  # ranks: microseconds do not fit
    # pandas makes floats of whole numbers where one is missing
    write("test.parquet", pa.array([5.0, None]))
    assert read(tmp_path).log.time.tolist() == [2**53 + 1, 4, 5]


def test_times_in_batches_equal_times_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = [*(str(n) for n in range(40)), "7.123456789", *(f"{n}.5" for n in range(40)), "12"]
    expected = times_read(fields)
    monkeypatch.setattr(streams, "BLOCK", 128)
    assert times_read(fields) == expected


def test_positions_are_told_from_extreme_times() -> None:
    user = np.array([0, 0, 1, 1])
    assert not only_positions(user, np.array([LEAST, LARGEST, LEAST, LARGEST]))
    assert only_positions(user, np.array([LEAST, LEAST + 1, LEAST, LEAST + 1]))


# --- ids, ratings, features ---------------------------------------------------------------------


@pytest.mark.parametrize("width", WIDTHS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_ids_of_every_width_are_exact(width: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(whole(*WIDTHS[width]), min_size=1, max_size=9))
    with tempfile.TemporaryDirectory() as folder:
        column = pa.array(values, getattr(pa, width)())
        pq.write_table(
            pa.table({"user": column, "item": column.dictionary_encode()}),
            Path(folder) / "log.parquet",
        )
        log = read(Path(folder) / "log.parquet").log
    assert (
        log.user_ids[log.user].tolist()
        == log.item_ids[log.item].tolist()
        == [str(value) for value in values]
    )


def test_float_ids_that_may_have_been_rounded_are_refused_with_their_row(tmp_path: Path) -> None:
    for value in (2.0**53, -(2.0**60), math.inf, 0.5):
        pq.write_table(
            pa.table({"user": [1.0, None, value], "item": ["a", "b", "c"]}),
            tmp_path / "log.parquet",
        )
        with pytest.raises(
            DataError, match=r"column user, row 3, holds the number .*: write them as such"
        ):
            read(tmp_path / "log.parquet")


def test_ratings_that_a_float_would_round_are_counted(tmp_path: Path) -> None:
    edge, beyond = 2**53, "rating beyond a float's whole numbers"
    whole_ones = [edge - 1, edge + 1, -edge - 1, 3]
    for name, column in (
        ("a.parquet", pa.array(whole_ones, pa.int64())),
        ("b.parquet", pa.array([Decimal(n) for n in whole_ones], pa.decimal128(38, 2))),
        ("c.csv", [str(n) for n in whole_ones]),
    ):
        if isinstance(column, list):
            (tmp_path / name).write_text(
                "user,item,rating\n" + "".join(f"u,{n},{v}\n" for n, v in enumerate(column))
            )
        else:
            pq.write_table(
                pa.table({"user": ["u"] * 4, "item": list("abcd"), "rating": column}),
                tmp_path / name,
            )
        log = read(tmp_path / name).log
        assert log.rating.tolist() == [edge - 1, 3] and log.dropped == {beyond: 2}


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, 2**63 - 1], pa.int64()),
        pa.array([1, 2**64 - 1], pa.uint64()),
        pa.array([Decimal("1.5"), Decimal("-2.25")], pa.decimal128(9, 2)),
        pa.array(np.array([1.5, -2.25], np.float16)),
        pa.array([1.5, None], pa.float32()),
        pa.array([3.4e38, 1e-30], pa.float64()),
    ],
    ids=lambda column: str(column.type),
)
def test_features_are_the_nearest_floats(tmp_path: Path, column: pa.Array) -> None:
    (tmp_path / "log.csv").write_text("user,item\nu,a\nu,b\n")
    ids = pa.array(["a", "b"])
    for name, table in (
        ("columns.parquet", {"item_id": ids, "f0": column}),
        ("lists.parquet", {"item_id": ids, "f": pa.ListArray.from_arrays([0, 1, 2], column)}),
    ):
        pq.write_table(pa.table(table), tmp_path / name)
        values = next(
            iter(read(tmp_path / "log.csv", features=[tmp_path / name]).modalities.values())
        ).values
        expected = np.array(
            [
                [np.nan if value is None else np.float32(float(value))]
                for value in column.to_pylist()
            ]
        )
        np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("value", [1e39, -1e300, 1.8e308, "1e39", Decimal(10**60)])
def test_features_that_float32_cannot_hold_are_refused(tmp_path: Path, value: Any) -> None:
    (tmp_path / "log.csv").write_text("user,item\nu,a\nu,b\n")
    if isinstance(value, str):
        (tmp_path / "v.csv").write_text(f"item_id,f0\na,{value}\nb,1\n")
    else:
        column = pa.array([Decimal(1) if isinstance(value, Decimal) else 1.0, value])
        pq.write_table(pa.table({"item_id": ["b", "a"], "f0": column}), tmp_path / "v.parquet")
    path = next(tmp_path.glob("v.*"))
    with pytest.raises(
        DataError, match="row of item 'a', holds infinity or a number beyond float32"
    ):
        read(tmp_path / "log.csv", features=[path])
