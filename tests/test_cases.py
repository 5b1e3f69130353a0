"""Files that look like another format than they are: small inputs with their right values.

They are kept beside the checkout, in shared/cases, so these tests are skipped without them. Each
kind of case is also generated here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualgnn_dgl.data.raw import RawLog
from dualgnn_dgl.errors import ConfigError, DataError
from dualgnn_dgl.preprocess import split as splitting
from dualgnn_dgl.readers.epochs import as_microseconds
from dualgnn_dgl.readers.heads import Head
from dualgnn_dgl.readers.reader import read
from dualgnn_dgl.readers.shapes import bare_shape, tabbed_shape
from dualgnn_dgl.verbs.prepare import Prepared, prepare

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="no shared/cases beside the checkout")


def prepared(case: str, **options: object) -> Prepared:
    return prepare(CASES / case, k_core=0, check=True, **options)


def pairs(log: RawLog) -> set[tuple[str, str]]:
    return set(zip(log.user_ids[log.user].tolist(), log.item_ids[log.item].tolist(), strict=True))


@needs_cases
@pytest.mark.parametrize(
    "case",
    [
        "1_triples_tab",
        "1_triples_space",
        "1_tsv_item_blank/log.tsv",
        "2_comma_pairs",
        "4_dotted_test_items",
        "5_blank_first",
        "5_repeated_header",
        "7_blank_rating",
        "13_testing",
        "13_tsv_test",
    ],
)
def test_thirty_rows_of_six_users_and_six_items(case: str) -> None:
    report = prepared(case).report
    assert (report["rows"]["kept"], report["users"], report["items"]) == (30, 6, 6)
    given = case.startswith(("1_triples", "4_", "13_"))
    assert report["options"]["split"] == ("given" if given else "random")
    assert not given or report["splits"]["test"]["interactions"] == 6
    assert report["input"]["evidence"]


@needs_cases
@pytest.mark.parametrize(
    ("case", "options", "message"),
    [
        ("2_token_seq/log.inter", {}, "item_id:token_seq holds lists"),
        ("3_ms_then_s_one_file", {"split": "leave-one-out"}, "seconds .* and milliseconds"),
        ("8_rating_01", {}, "ratings are 0 and 1.*--min-rating 1.*--rating-col ''"),
        ("11_excel", {}, "1.23E.12 is a number that a spreadsheet rounded"),
    ],
)
def test_unclear_cases_are_refused(case: str, options: dict, message: str) -> None:
    with pytest.raises((DataError, ConfigError), match=message) as found:
        prepared(case, **options)
    assert "\n" not in str(found.value)


@needs_cases
def test_dates_and_seconds_are_compared() -> None:
    made = prepared("3_iso_then_seconds", split="leave-one-out")
    test = made.dataset.test
    found = zip(made.dataset.user_ids[test.user], made.dataset.item_ids[test.item], strict=True)
    right = [("1", "6"), ("2", "1"), ("3", "2"), ("4", "3"), ("5", "4"), ("6", "5")]
    assert sorted((str(user), str(item)) for user, item in found) == right
    assert any("converted to microseconds" in text for text in made.report["warnings"])


@needs_cases
def test_users_written_as_null_are_dropped_with_a_reason() -> None:
    report = prepared("6_null_users").report
    assert report["users"] == 4 and report["rows"]["kept"] == 20
    assert report["rows"]["dropped"] == {"user id is a word for missing (NULL, NaN)": 10}


@needs_cases
@pytest.mark.parametrize(("case", "column"), [("8_rating_01", "rating"), ("8_bool", "is_like")])
def test_the_ones_are_kept(case: str, column: str) -> None:
    lines = (CASES / case / "log.csv").read_text().split()[1:]
    right = {tuple(line.split(",")[:2]) for line in lines if line.split(",")[2] in ("1", "True")}
    made = prepared(case, rating_col=column, min_rating=1)
    assert made.report["rows"]["kept"] == len(right) > 0


@needs_cases
def test_dates_only_are_split_by_chance_whatever_the_ids() -> None:
    """Over the seeds, each item of the renamed log is held out as often as its original."""
    held = np.zeros((2, 10))
    for seed in range(60):
        for row, name in enumerate(("log.csv", "renamed.csv")):
            made = prepared(f"10_dates_only/{name}", split="leave-one-out", seed=seed)
            test = made.dataset.item_ids[made.dataset.test.item].astype(int)
            held[row] += np.bincount((test if row == 0 else 11 - test) - 1, minlength=10)
            assert made.report["ties"]["users"] > 0
    spread = np.sqrt(held.mean(0) + 1)
    assert (np.abs(held[0] - held[1]) < 6 * spread).all()
    assert splitting.BY_TIME[0] == "leave-one-out"


@needs_cases
def test_rows_of_zeros_are_noted_or_missing() -> None:
    plain, missing = (prepared("12_zero_rows", zero_is_missing=chosen) for chosen in (False, True))
    assert plain.report["modalities"]["visual"]["present"] == 6
    (note,) = [text for text in plain.report["warnings"] if "zero throughout" in text]
    assert "2 of 6 rows" in note and "--zero-is-missing" in note
    assert missing.report["modalities"]["visual"]["present"] == 4
    assert not any("zero throughout" in text for text in missing.report["warnings"])


# --- the kinds, generated -----------------------------------------------------------------------

triples = st.lists(
    st.tuples(st.integers(1, 5), st.integers(100, 140), st.integers(1, 5)),
    min_size=6,
    max_size=30,
    unique_by=lambda row: row[:2],
)


@settings(max_examples=40, deadline=None)
@given(rows=triples, mark=st.sampled_from(["\t", " "]), timed=st.booleans())
def test_triples_are_never_lists(
    tmp_path_factory: pytest.TempPathFactory, rows: list, mark: str, timed: bool
) -> None:
    folder = tmp_path_factory.mktemp("triples")
    end = [f"{mark}{1_700_000_000 + n}" if timed else "" for n in range(len(rows))]
    lines = [mark.join(map(str, row)) + tail for row, tail in zip(rows, end, strict=True)]
    (folder / "train.txt").write_text("\n".join(lines))
    (folder / "test.txt").write_text(lines[0])
    log = read(folder).log
    assert len(log.user) == len(rows) + 1
    assert pairs(log) == {(str(user), str(item)) for user, item, _ in rows}
    assert log.rating.tolist() == [row[2] for row in rows] + [rows[0][2]]
    assert (log.time is not None) == timed


def head(text: str) -> Head:
    return Head(Path("train.txt"), text.split("\n"))


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("1 2 3\n2 4\n3 5 6 7", "lists"),
        ("1 2 3\n2 3 4\n3 4 5", "lists"),
        ("1 102 5\n1 103 4\n2 104 3", "rows"),
        ("1 102 1700000001\n2 103 1700000002\n3 104 1700000003", "rows"),
        ("1 102 103 104\n2 103 104 105\n3 104 105 106", "lists"),
        ("1 102 5\n2 103 4\n3 104 3", "--layout rows or --layout lists"),
        ("1 2 3 4 5\n1 6 7 8 9\n2 3 4 5 6", "--layout rows or --layout lists"),
        ("1 102:5 103:4\n2 103:3", "item:rating"),
        ("6 6\n1 102 5\n1 103 4\n2 104 3", "seems to give sizes"),
    ],
)
def test_bare_lines(text: str, shape: str) -> None:
    if shape in ("lists", "rows"):
        found = bare_shape([head(text)])
        assert getattr(found, shape) and found.lists != found.rows and found.why
    else:
        with pytest.raises(DataError, match=shape):
            bare_shape([head(text)])


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("1\t2 3 4\n2\t3", "lists"),
        ("1\t2 3\n2\t3 4\n3\t4 5", "lists"),
        ("u1\tclip 2\nu1\tclip 3\nu2\tclip 2", "rows"),
        ("u1\tclip 2\nu2\tclip 3\nu3\tclip 2", "rows"),
        ("1\t2,3,4\n2\t3", "lists"),
        ("1\t2 3 4\n1\t3\n2\t5 6", "--layout rows or --layout lists"),
    ],
)
def test_lines_with_one_tab(text: str, shape: str) -> None:
    if shape in ("lists", "rows"):
        found = tabbed_shape([head(text)])
        assert getattr(found, shape) and found.lists != found.rows and found.why
    else:
        with pytest.raises(DataError, match=shape):
            tabbed_shape([head(text)])


def test_the_named_layout_decides(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("1 102 5\n2 103 4\n3 104 3\n")
    with pytest.raises(DataError, match="--layout"):
        read(path)
    assert len(read(path, layout="rows").log.user) == 3
    assert len(read(path, layout="lists").log.user) == 6
    with pytest.raises(DataError, match="did you mean 'lists'"):
        read(path, layout="list")
    (tmp_path / "log.csv").write_text("1,102,5\n2,103,4\n")
    with pytest.raises(DataError, match="seems to be data.*--layout rows"):
        read(tmp_path / "log.csv")
    assert read(tmp_path / "log.csv", layout="rows").log.rating.tolist() == [5, 4]


def test_unasked_columns_decide_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,rating,time\n1,2,,x\n1,3,5,\n2,2,4,7\n")
    made = prepare(path, k_core=0, check=True)
    assert made.report["rows"] == {"read": 3, "kept": 3, "dropped": {}}
    asked = prepare(path, k_core=0, min_rating=4, check=True).report["rows"]
    assert asked["dropped"]["rating not a number"] == 1 and asked["kept"] == 2
    named = prepare(path, k_core=0, time_col="time", check=True).report["rows"]
    assert named["dropped"] == {"time not readable": 2}


@pytest.mark.parametrize(("times", "scale"), [(1_700_000_000, 10**6), (1_700_000_000_000, 10**3)])
def test_plain_times_become_microseconds(times: int, scale: int) -> None:
    assert as_microseconds(np.array([times])).tolist() == [times * scale]
    assert as_microseconds(np.array([times, 5])) is None
