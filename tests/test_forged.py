"""Consistent forgeries of every file that is read, see forged.py.

One line and status 1, or the untouched result.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import forged
import pytest
from figures import LONG, record

from dualgnn_dgl.core import schema
from dualgnn_dgl.core.files import read_json
from dualgnn_dgl.core.options import read_toml
from dualgnn_dgl.core.schema import check
from dualgnn_dgl.core.strict import DEEPEST, parse_json, parse_toml
from dualgnn_dgl.data import manifest
from dualgnn_dgl.errors import ConfigError, DataError
from dualgnn_dgl.experiments import tuning
from dualgnn_dgl.experiments.journal import check_journal
from dualgnn_dgl.experiments.robustness.results import schema_of
from dualgnn_dgl.runs import working
from dualgnn_dgl.runs.checkpoint import RUN_SCHEMA
from dualgnn_dgl.runs.resume import ABOUT_SCHEMA
from dualgnn_dgl.training import state

FIRST = range(0, 48_000, 12_000) if LONG else [0]  # numbers beyond the last case are none
COUNT, STEP = (12_000, 14) if LONG else (60, 1)
FOUND: list[dict[str, Any]] = []


@pytest.mark.slow
@pytest.mark.parametrize("first", FIRST)
def test_a_consistent_forgery_is_one_line_or_changes_nothing(first: int, tmp_path: Path) -> None:
    """In a process of its own, with bounded memory.

    A crash or a blow-up takes no other test with it.
    """
    pytest.importorskip("optuna")
    seen = tmp_path / "seen"
    words = [
        sys.executable,
        forged.__file__,
        "--first",
        first,
        "--count",
        COUNT,
        "--step",
        STEP,
        "--seen",
        seen,
    ]
    done = subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        timeout=300 + 3 * COUNT // STEP,
    )
    assert done.returncode == 0, (
        f"the process died in {seen.read_text() if seen.exists() else '?'}: {done.stderr[-2000:]}"
    )
    found = json.loads(done.stdout)
    assert not found["failures"], json.dumps(found["failures"], indent=1)[:6000]
    FOUND.append(found)
    targets: Counter[str] = Counter()
    for part in FOUND:
        targets.update(part["by_target"])
    figures = {
        "cases": targets.total(),
        "of": found["of"],
        "failures": 0,
        "by_target": dict(sorted(targets.items())),
    }
    record("forged", figures)
    assert found["of"] < FIRST[-1] + COUNT or not LONG, "raise FIRST: some cases are never run"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("optuna")
    return forged.world(tmp_path_factory.mktemp("forged"))


def test_what_the_writers_write_fits_the_schemas(good: Path) -> None:
    """So reader and writer cannot drift apart."""
    check(manifest.MANIFEST_SCHEMA, read_json(good / "data" / "dataset.json"), "dataset.json")
    check(RUN_SCHEMA, read_json(good / "run" / "run.json"), "run.json")
    check(tuning.STUDY_SCHEMA, read_json(good / "study" / "study.json"), "study.json")
    plan = tuning.read_plan(good / "study")
    assert plan is not None
    check_journal(good / "study" / "journal.jsonl", plan.model, plan.space)
    for line in (good / "run" / "history.jsonl").read_text().splitlines():
        check(state.history_row, parse_json(line), "history.jsonl")
    for file in (good / "holes" / "cells").glob("*.json"):
        content = read_json(file)
        del content["self"]
        check(
            schema_of([int(name[7:]) for name in content["metrics"] if name.startswith("recall@")]),
            content,
            file,
        )
    begun = read_json(good / "cut.training" / "begun.json")
    del begun["self"]
    check(working.BEGUN_SCHEMA, begun, "begun.json")
    check(ABOUT_SCHEMA, begun["about"], "begun.json")
    (file,) = (good / "cut.training").glob("checkpoint-*.json")
    content = read_json(file, schema=working.CHECKPOINT_SCHEMA)
    check(ABOUT_SCHEMA, content["about"], file)
    check(state.snapshot_info, content["training"], file)
    assert content["training"]["step"] == 1 and content["training"]["history"], (
        "it lies within an epoch"
    )


def test_every_digest_is_made_to_agree(good: Path, tmp_path: Path) -> None:
    """The harness itself: a forgery that a digest gives away would prove nothing about the
    schemas.
    """
    for pattern in (
        "run/run.json",
        "cut.training/*.json",
        "holes/cells/*.json",
        "holes/weights/*.json",
    ):
        for file in good.glob(pattern):
            content = read_json(file)
            again = json.loads(json.dumps(content))
            forged.seal(file, again)
            assert again == content, file
            again["extra"] = 1
            forged.seal(file, again)
            assert again != content | {"extra": 1}, f"{file} holds no digest of itself"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "Infinity"),
        ('{"a": 1e999}', "1e999"),
        ('{"a": 1, "b": 2, "a": 1}', "'a' is given twice"),
        ('{"a": 9223372036854775808}', "64-bit"),
        ('{"a": -9223372036854775808}', "64-bit"),
        ('{"a": ' + "9" * 5000 + "}", "64-bit"),
        ('{"a": "\\ud800"}', "surrogate"),
        ('{"\\uDFFF": 1}', "surrogate"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "nested"),
        ('{"a":' * 100_000, "nested"),
        ("", "Expecting value"),
    ],
)
def test_json_is_parsed_strictly(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        parse_json(text)
    (tmp_path / "a.json").write_text(text, "utf-8")
    with pytest.raises(
        DataError, match=f"a.json is not readable JSON .*{says}.*: damaged or edited; train again"
    ):
        read_json(tmp_path / "a.json", remedy="train again")


def test_json_that_is_valid_comes_through() -> None:
    text = (
        '{"a": [9223372036854775807, -9223372036854775807, -0.0, 1e308, "\\ud83d\\ude00", "ü", '
        "null, true]}"
    )
    assert parse_json(text) == json.loads(text)
    assert parse_json("[" * DEEPEST + "]" * DEEPEST)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a = " + "9" * 5000, "64 bits"),
        ("a = 0x" + "f" * 5000, "64-bit"),
        ("a = [1, 9223372036854775808]", "64-bit"),
        ("a = inf", "inf is not a finite"),
        ("a = 1e999", "not a finite"),
        ("[b]\na = 2026-01-01", "date"),
        ("a = 10:00:00", "date or time"),
        ("a = " + "[" * 5000, "nested"),
        ("a = 1\na = 2", "overwrite"),
        ("a." * 9000 + "a = 1", "bytes"),
    ],
)
def test_toml_is_parsed_strictly(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        parse_toml(text.encode())
    (tmp_path / "a.toml").write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=f"a.toml is not readable TOML .*{says}.*: fix it"):
        read_toml(tmp_path / "a.toml")


SAMPLE = schema.record(
    {
        "n": schema.whole(1, 9),
        "x": schema.number(0, 1),
        "t": schema.text("[a-z]+", "a word", 5),
        "f": schema.FLAG,
    },
    {
        "c": schema.one_of("a", 1),
        "l": schema.list_of(schema.maybe(schema.whole()), 1, 2),
        "d": schema.dict_of(schema.NAME, schema.scalar),
        "p": schema.plain,
    },
)
VALID = {
    "n": 3,
    "x": 0.5,
    "t": "abc",
    "f": True,
    "c": 1,
    "l": [None, 2],
    "d": {"k": None},
    "p": [{"a": [1.5]}],
}


def test_a_valid_value_fits() -> None:
    check(SAMPLE, VALID, "file")
    check(SAMPLE, {key: VALID[key] for key in ("n", "x", "t", "f")}, "file")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"n": True}, "n is true, expected an integer from 1 to 9"),
        ({"n": 1.0}, "n is 1.0, expected an integer"),
        ({"n": 10}, "n is 10"),
        ({"n": "3"}, 'n is "3"'),
        ({"x": False}, "x is false, expected a finite number from 0 to 1"),
        ({"x": float("nan")}, "x is NaN"),
        ({"x": None}, "x is null"),
        ({"t": "abcdef"}, "expected a word of at most 5 characters"),
        ({"t": "abc\n"}, "t is"),
        ({"f": 1}, "f is 1, expected true or false"),
        ({"c": True}, 'c is true, expected "a" or 1'),
        ({"c": 1.0}, "c is 1.0"),
        ({"l": []}, "l is a list or object, expected a list of 1 to 2"),
        ({"l": {}}, "l is a list or object"),
        ({"l": [1, "a"]}, r"l\[1\] is"),
        ({"d": {"k": []}}, r"d.k is a list"),
        ({"d": {"\x1b": 1}}, "a key of d is"),
        ({"p": [{"a": [float("inf")]}]}, r"p\[0\].a\[0\] is Infinity"),
        ({"unknown": 1}, "has the unknown key 'unknown'"),
    ],
)
def test_what_does_not_fit_is_one_line_with_its_place(change: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=f"^file.json: .*{says}.*: make it again$") as error:
        check(SAMPLE, VALID | change, "file.json")
    assert "\n" not in str(error.value) and "\x1b" not in str(error.value)


def test_a_missing_key_and_another_type_are_named() -> None:
    with pytest.raises(DataError, match="lacks the key f"):
        check(SAMPLE, {key: VALID[key] for key in ("n", "x", "t")}, "file.json")
    with pytest.raises(DataError, match="the content is"):
        check(SAMPLE, [], "file.json")


def test_manifests_may_hold_digests_and_nothing_else_that_is_unknown(good: Path) -> None:
    """`files` and `self` are the extension point of the digests of a folder's files."""
    digest = "0" * 64
    for place, rule in (
        ("data/dataset.json", manifest.MANIFEST_SCHEMA),
        ("run/run.json", RUN_SCHEMA),
    ):
        content = read_json(good / place)
        check(rule, content | {"files": {"train.parquet": digest}, "self": digest}, place)
        for extra in ({"files": {"a": "b"}}, {"files": []}, {"self": 3}, {"more": 1}):
            with pytest.raises(DataError):
                check(rule, content | extra, place)


def test_a_schema_costs_less_than_a_millisecond(good: Path) -> None:
    import time

    content = read_json(good / "run" / "run.json")
    started = time.perf_counter()
    for _ in range(20):
        check(RUN_SCHEMA, content, "run.json")
    assert (time.perf_counter() - started) / 20 < 0.005  # measured: 0.1 ms; machines can be busy
