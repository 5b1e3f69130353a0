"""Rows of exposures become positives by conditions, named or known by their columns."""

from __future__ import annotations

import json
import operator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trial

from dualgnn_dgl.data.manifest import read_options
from dualgnn_dgl.errors import DataError
from dualgnn_dgl.readers.positives import COMPARE, KNOWN
from dualgnn_dgl.readers.reader import read

REAL = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "kuairand-pure"
SHOWN = {  # ten exposures
    "user_id": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3],
    "video_id": [7, 8, 9, 7, 8, 9, 7, 8, 9, 5],
    "is_click": [1, 0, 1, 1, 0, None, 0, 1, 1, 1],
    "is_hate": [0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
    "play_time_ms": [9000, 10, 4000, 800, 0, 7000, 5, 100, 99, 6001],
    "duration_ms": [8000, 900, 4000, 900, 0, 6000, 600, 400, 98, 6000],
    "tab": ["a", "b", "a", "c", "a", "b", "c", "a", "b", ""],
}


def log(folder: Path, columns: list[str], suffix: str = "parquet") -> Path:
    table = pa.table({name: SHOWN[name] for name in ("user_id", "video_id", *columns)})
    path = folder / f"log.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, path)
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    else:
        rows = [
            ["" if value is None else str(value) for value in row.values()]
            for row in table.to_pylist()
        ]
        path.write_text("\n".join(",".join(row) for row in [table.column_names, *rows]) + "\n")
    return path


def kept(raw) -> list[tuple[str, str]]:
    log = raw.log
    return [(log.user_ids[u], log.item_ids[i]) for u, i in zip(log.user, log.item, strict=True)]


def where(mask: list[bool]) -> list[tuple[str, str]]:
    return [
        (str(u), str(i))
        for u, i, keep in zip(SHOWN["user_id"], SHOWN["video_id"], mask, strict=True)
        if keep
    ]


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("sign", COMPARE)
def test_each_sign_keeps_the_rows_that_python_would(sign, suffix, tmp_path) -> None:
    raw = read(log(tmp_path, ["play_time_ms"], suffix), positive=[f"play_time_ms {sign} 800"])
    compare = {
        "==": operator.eq,
        "!=": operator.ne,
        ">=": operator.ge,
        "<=": operator.le,
        ">": operator.gt,
        "<": operator.lt,
    }[sign]
    expected = [compare(value, 800) for value in SHOWN["play_time_ms"]]
    assert kept(raw) == where(expected)
    reason = f"no positive (play_time_ms {sign} 800)"
    assert raw.log.dropped == {reason: expected.count(False)} and raw.log.rows_read == 10


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_texts_columns_and_several_conditions(suffix, tmp_path) -> None:
    path = log(tmp_path, ["is_click", "play_time_ms", "duration_ms", "tab"], suffix)
    played = [p >= d for p, d in zip(SHOWN["play_time_ms"], SHOWN["duration_ms"], strict=True)]
    on_a = [tab == "a" for tab in SHOWN["tab"]]
    assert kept(read(path, positive=["play_time_ms >= duration_ms"])) == where(played)
    assert kept(read(path, positive=["tab == a"])) == where(on_a)
    both = [one or other for one, other in zip(played, on_a, strict=True)]
    assert kept(read(path, positive=["play_time_ms>=duration_ms", "tab == 'a'"])) == where(both)
    clicked = [click == 1 for click in SHOWN["is_click"]]
    assert kept(read(path, positive=["is_click==1"])) == where(clicked), "an empty value is none"


def test_known_columns_decide_and_the_report_says_so(tmp_path) -> None:
    path = log(tmp_path, ["is_click", "is_hate", "play_time_ms", "duration_ms"])
    raw = read(path)
    clicked = [
        click == 1 and hate == 0
        for click, hate in zip(SHOWN["is_click"], SHOWN["is_hate"], strict=True)
    ]
    assert kept(raw) == where(clicked)
    (note,) = raw.log.notes
    assert "is_click == 1, and is_hate == 0 are taken as positives" in note and "--positive" in note
    everything = read(path, positive=[])
    assert kept(everything) == where([True] * 10) and not everything.log.notes
    timed = read(log(tmp_path, ["play_time_ms", "duration_ms"]))
    assert kept(timed) == where(
        [p >= d for p, d in zip(SHOWN["play_time_ms"], SHOWN["duration_ms"], strict=True)]
    )
    plain = read(log(tmp_path, ["play_time_ms"]))
    assert kept(plain) == where([True] * 10) and not plain.log.notes


@pytest.mark.parametrize(
    ("wanted", "line"),
    [
        ("is_click", "is no condition: write it as COLUMN OP VALUE"),
        ("clicked == 1", "unknown column of --positive 'clicked'"),
        ("tab > a", "compares by size with a text"),
        ("== 1", "is no condition"),
        ("is_click = 1", "is no condition"),
        ("is_click == 5", "name another condition with --positive"),
    ],
)
def test_a_condition_that_cannot_be_used_is_one_line(wanted, line, tmp_path) -> None:
    with pytest.raises(DataError, match=line) as error:
        read(log(tmp_path, ["is_click", "tab"]), positive=[wanted])
    assert "\n" not in str(error.value)


def test_the_command_line_remembers_and_updates_alike(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    user, item = np.repeat(np.arange(12), 14), draw.integers(0, 20, 12 * 14)
    pq.write_table(
        pa.table({"user": user, "item": item, "finish": draw.integers(0, 3, len(user))}),
        "l.parquet",
    )
    words = ("--input", "l.parquet", "--positive", "finish > 0", "--k-core", 2, "--json")
    done = trial.call("preprocess", *words)
    assert done.code == 0, done.err
    assert "no positive (finish > 0)" in json.loads(done.out)["rows"]["dropped"]
    assert read_options("data")["positive"] == ["finish > 0"]
    short = ("--model", "bprmf", "--epochs", 1, "--set", "width=3", "--gpu", -1)
    assert trial.call("train", *short, "--run", "run").code == 0
    Path("new.csv").write_text("user,item,finish\nnew,3,1\nnew,4,0\nnew,5,2\n")
    done = trial.call("update", "--input", "new.csv", "--run", "run", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["added"]["dropped"] == {"no positive (finish > 0)": 1}


def test_every_known_condition_can_be_read() -> None:
    for text in KNOWN:
        left, sign, _ = text.split(" ")
        assert sign in COMPARE and left.isidentifier()


@pytest.mark.skipif(not REAL.is_dir(), reason="kuairand-pure is not here: real data are no part")
def test_real_exposures_are_clicks_by_default() -> None:
    path = REAL / "exposures_standard_20220425_20220508.parquet"
    raw, table = read(path), pq.read_table(path, columns=["is_click", "is_hate"])
    clicked = table["is_click"].to_numpy() == 1
    expected = int((clicked & (table["is_hate"].to_numpy() == 0)).sum())
    assert len(raw.log.user) == expected and raw.log.rows_read == 228_329
    assert len(read(path, positive=[]).log.user) == 228_329
