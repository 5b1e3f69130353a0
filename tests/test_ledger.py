"""The ledger of experiments: each result is made once, kept at once, found again, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dualgnn_dgl.core.schema import record, whole
from dualgnn_dgl.errors import DataError, RunError
from dualgnn_dgl.experiments.ledger import Ledger, read_sealed, write_sealed

SQUARE = record({"number": whole(), "square": whole()})


def ledger(folder: Path, **options) -> Ledger[int]:
    return Ledger(folder / "squares", lambda number: f"square-{number}", **options)


def square(number: int) -> dict:
    return {"number": number, "square": number**2}


@pytest.mark.parametrize("schema", [None, SQUARE])
def test_each_result_is_made_once_and_found_by_the_next_process(tmp_path, schema) -> None:
    made, said = [], []

    def make(number: int) -> dict:
        made.append(number)
        return square(number)

    assert ledger(tmp_path, schema=schema).run([3, 1], make) == 0
    again = ledger(tmp_path, schema=schema)
    assert 3 in again and 2 not in again and again.find(2) is None
    assert again.run([3, 2, 1, 5], make, report=lambda *words: said.append(words)) == 0
    assert made == [3, 1, 2, 5]
    assert said == [(3, 4, 2, square(2)), (4, 4, 5, square(5))]
    assert [again.find(number) for number in (1, 2, 3, 5)] == [square(n) for n in (1, 2, 3, 5)]


def test_an_interrupted_run_continues(tmp_path) -> None:
    def make(number: int) -> dict:
        if number == 2:
            raise KeyboardInterrupt
        return square(number)

    with pytest.raises(KeyboardInterrupt):
        ledger(tmp_path).run([1, 2, 3], make)
    assert [path.name for path in (tmp_path / "squares").iterdir()] == ["square-1.json"]
    assert ledger(tmp_path).run([1, 2, 3], square, seconds=0) == 2
    made = []
    assert ledger(tmp_path).run([1, 2, 3], lambda n: made.append(n) or square(n)) == 0
    assert made == [2, 3]


@pytest.mark.parametrize("content", [b"", b"{", b'{"number": 2, "square": 5}', b"[]"])
def test_a_damaged_result_is_refused_or_made_again(tmp_path, caplog, content) -> None:
    kept = ledger(tmp_path, schema=SQUARE)
    kept.keep(2, square(2))
    kept.file(2).write_bytes(content)
    with pytest.raises((RunError, DataError), match=r"square-2\.json"):
        kept.find(2)
    caplog.clear()
    lenient = ledger(tmp_path, schema=SQUARE, remake=True)
    assert lenient.find(2) is None
    (warning,) = caplog.messages
    assert "square-2.json" in warning and warning.endswith("this result is computed again")
    assert lenient.run([2], square) == 0 and lenient.find(2) == square(2)


def test_a_result_of_something_else_is_made_again_without_a_warning(tmp_path, caplog) -> None:
    kept = ledger(tmp_path, valid=lambda number, result: result["number"] == number)
    kept.keep(2, square(7))
    assert kept.find(2) is None and not caplog.messages
    assert kept.run([2], square) == 0 and kept.find(2) == square(2)


def test_a_sealed_file_notices_any_change(tmp_path) -> None:
    file = tmp_path / "a.json"
    write_sealed(file, square(3))
    assert read_sealed(file, SQUARE) == square(3)
    value = json.loads(file.read_text())
    file.write_text(json.dumps(value | {"square": 10}))
    with pytest.raises(RunError, match="not what was written there"):
        read_sealed(file, SQUARE)
    write_sealed(file, {"number": 3})
    with pytest.raises(RunError, match="square"):
        read_sealed(file, SQUARE)
