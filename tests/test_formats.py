"""Every format of the tables in `readers.formats`: its example is read, also compressed, from a
folder and through every use of a table. A new format is tested without a line here.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dualgnn_dgl.errors import DataError
from dualgnn_dgl.readers import streams
from dualgnn_dgl.readers.dialects import ITEMS, LOGS
from dualgnn_dgl.readers.formats import CONTAINERS
from dualgnn_dgl.readers.items import read_items
from dualgnn_dgl.readers.new_items import read_new_items
from dualgnn_dgl.readers.reader import read

PAIRS = [("1", "11"), ("1", "12"), ("2", "11")]
TEXTS = [(one.name, *one.example) for one in LOGS] + [
    (one.name, f"log{suffix}", one.example)
    for one in CONTAINERS
    for suffix in one.suffixes
    if one.example
]
every_log = pytest.mark.parametrize(("kind", "name", "text"), TEXTS)
feature_suffixes = [suffix for one in CONTAINERS if one.features for suffix in one.suffixes]


def pairs(path: Path) -> list[tuple[str, str]]:
    log = read(path).log
    assert log.rows_read == len(log.user) + sum(log.dropped.values())
    return list(zip(log.user_ids[log.user].tolist(), log.item_ids[log.item].tolist(), strict=True))


def written(folder: Path, suffix: str, columns: dict[str, list]) -> Path:
    """Writes a table in the format of a suffix."""
    path = folder / f"visual{suffix}"
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif suffix in (".jsonl", ".ndjson"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        mark = "\t" if suffix == ".tsv" else ","
        lines = [columns, *zip(*columns.values(), strict=True)]
        path.write_text(
            "".join(mark.join("" if v is None else str(v) for v in line) + "\n" for line in lines)
        )
    return path


@every_log
def test_the_example_is_read(tmp_path: Path, kind: str, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert pairs(tmp_path / name) == PAIRS and read(tmp_path / name).log.kind == kind
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert pairs(tmp_path / name) == PAIRS, "with a byte order mark and Windows line ends"


@every_log
def test_the_example_is_read_compressed_and_in_a_folder(
    tmp_path: Path, kind: str, name: str, text: str
) -> None:
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    assert pairs(tmp_path / f"{name}.gz") == pairs(tmp_path) == PAIRS


@every_log
def test_small_blocks_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str, text: str
) -> None:
    monkeypatch.setattr(streams, "BLOCK", 64)
    (tmp_path / name).write_text(text)
    assert pairs(tmp_path / name) == PAIRS


@every_log
def test_damaged_examples_are_refused_in_one_line(
    tmp_path: Path, kind: str, name: str, text: str
) -> None:
    for content in (b"", b"\n\n", b"\x00\x01\x02", text.encode("utf-16"), b"\xff\xfe\xff" * 9):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError) as found:
            read(tmp_path / name)
        assert "\n" not in str(found.value) and name in str(found.value)


@pytest.mark.parametrize(("kind", "name", "text"), [(one.name, *one.example) for one in ITEMS])
def test_item_dialects_are_read(tmp_path: Path, kind: str, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_items(tmp_path / name).ids.tolist() == ["11", "12"]


@pytest.mark.parametrize("suffix", feature_suffixes)
def test_columns_of_features_are_read(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "log.csv").write_text("user,item\n1,11\n1,12\n2,11\n2,13\n")
    written(tmp_path, suffix, {"item": [11, 12, 13], "f": [1.5, None, -2.0], "g": [3, None, 4]})
    visual = read(tmp_path).modalities["visual"]
    assert visual.ids.tolist() == ["11", "12", "13"] and visual.present.tolist() == [
        True,
        False,
        True,
    ]
    np.testing.assert_array_equal(visual.values[[0, 2]], [[1.5, 3], [-2, 4]])


@pytest.mark.parametrize("suffix", [one for one in feature_suffixes if one not in (".csv", ".tsv")])
def test_lists_of_features_are_read(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "log.csv").write_text("user,item\n1,11\n1,12\n2,11\n2,13\n")
    written(tmp_path, suffix, {"item": [11, 12, 13], "v": [[1.5, 2.0], None, [0.25, 1e-3]]})
    visual = read(tmp_path).modalities["visual"]
    assert visual.present.tolist() == [True, False, True]
    np.testing.assert_allclose(visual.values[[0, 2]], [[1.5, 2], [0.25, 1e-3]])


@pytest.mark.parametrize(
    "suffix", [suffix for one in CONTAINERS if one.opener for suffix in one.suffixes]
)
def test_typed_containers_hold_logs_and_items(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path, suffix, {"user": ["a", "b"], "item": [7, 8], "time": [2**60 + 1, 3]})
    log = read(path).log
    assert log.time.tolist() == [2**60 + 1, 3] and log.item_ids.tolist() == ["7", "8"]
    path = written(tmp_path, suffix, {"item": [7, 8], "title": ["x", "ÿ"]})
    assert read_items(path).titles == ["x", "ÿ"]


# --- JSON Lines ---------------------------------------------------------------------------------


def test_json_numbers_are_exact(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"user": 9007199254740993, "item": "007", "rating": 4.5, "time": 1700000000.123456789}\n'
        "\n"
        '{"user": 9007199254740992, "item": 7, "rating": null, "time": 1700000000.123456788}\n'
        '{"item": 7, "user": "x", "rating": 1e1, "time": 1700000000}\n'
    )
    log = read(tmp_path / "a.jsonl").log
    assert log.user_ids.tolist() == ["9007199254740993", "x"] and log.item_ids.tolist() == [
        "007",
        "7",
    ]
    assert log.rating.tolist() == [4.5, 10] and log.dropped == {"rating not a number": 1}
    assert log.time[0] > log.time[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"user":1,"item":2}\n[1,2]\n', "line 2, is not a JSON object"),
        ('{"user":1,"item":2}\n{"user":1,\n', "line 2, is not a JSON object"),
        ('{"user":1,"item":2,"user":3}\n', "line 1, .*a key is given twice"),
        ('{"user":1,"item":NaN}\n', "NaN is not JSON, write null"),
        ('{"user":1,"item":[2,3]}\n', "row 1: the column item holds a list.*one row for each"),
        ('{"user":1,"item":"\\ud800"}\n', "half of a surrogate pair"),
        ('{"user":1,"item":2}\n' + "[" * 100_000 + "\n", "line 2, is not a JSON object"),
        ('{"name":1,"thing":2}\n', "none is known to be the user"),
    ],
)
def test_bad_json_lines_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.jsonl")


def test_a_late_key_is_noted(tmp_path: Path) -> None:
    rows = ['{"user":1,"item":2}'] * 300 + ['{"user":1,"item":2,"time":5}']
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    log = read(tmp_path / "a.jsonl").log
    assert log.time is None and "the key time does not occur in the first 256" in log.notes[0]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"item":11,"f":1}', '{"item":12,"f":"blue"}'], 'row 2: the column f holds "blue"'),
        (['{"item":11,"f":[1,2]}', '{"item":12,"f":[1,"x"]}'], 'row 2: the column f holds "x"'),
        (['{"item":11,"f":[1,2]}', '{"item":12,"f":[1]}'], "features, others have"),
        (['{"item":11,"f":[1,null]}'], "holds NaN in 1 of 2"),
        (['{"item":11,"f":[1,1e400]}'], "holds infinity"),
        (['{"item":11,"f":true}'], "the column f holds bool"),
    ],
)
def test_bad_json_features_are_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    (tmp_path / "log.csv").write_text("user,item\n1,11\n1,12\n")
    (tmp_path / "visual.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=message):
        read(tmp_path / "log.csv", features=[tmp_path / "visual.jsonl"])


def test_new_items_come_as_json_lines(tmp_path: Path) -> None:
    from dualgnn_dgl.data import Modality

    (tmp_path / "visual.jsonl").write_text('{"item_id":"new","v":[1,2]}\n')
    catalogue = {"visual": Modality(np.ones((3, 2), np.float32), np.ones(3, bool))}
    ids, found = read_new_items([tmp_path / "visual.jsonl"], catalogue, np.array(["a", "b", "c"]))
    assert ids.tolist() == ["new"] and found["visual"].values.tolist() == [[1, 2]]
