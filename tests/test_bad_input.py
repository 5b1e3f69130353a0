"""Spoilt input: every case ends in success or in one clear line; never a traceback, a hang, a
partial or a wrong result.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest
import trial
from figures import LONG, record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

HERE = Path(__file__).resolve().parent
CASES, BATCH = (12_000, 400) if LONG else (80, 80)
ARTEFACTS, PART = (3_000, 300) if LONG else (40, 40)
REAL_CASES = 60 if LONG else 2


def batch(first: int, count: int, folder: Path, *more: str) -> dict[str, object]:
    """Run cases in a process of their own: one that dies or hangs takes no other with it."""
    seen = folder / "seen"
    words = [
        sys.executable,
        HERE / "bad_input.py",
        "--first",
        first,
        "--count",
        count,
        "--seen",
        seen,
        *more,
    ]
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=120 + 3 * count
    )
    assert done.returncode == 0, (
        f"the process died in case {seen.read_text() if seen.exists() else '?'}: "
        f"{done.stderr[-2000:]}"
    )
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, CASES, BATCH))
def test_spoilt_files_end_in_success_or_one_line(first: int, tmp_path: Path) -> None:
    found = batch(first, BATCH, tmp_path)
    assert not found["failures"], json.dumps(found["failures"], indent=1)[:6000]
    FOUND.append(found)
    kinds: dict[str, int] = {}
    for part in FOUND:
        for kind, count in part["kinds"].items():
            kinds[kind] = kinds.get(kind, 0) + count
    record(
        "bad_input",
        {"cases": sum(kinds.values()), "failures": 0, "by_kind": dict(sorted(kinds.items()))},
    )


FOUND: list[dict] = []


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, ARTEFACTS, PART))
def test_what_commands_go_on_from_is_never_believed_unchecked(first: int, tmp_path: Path) -> None:
    """Checkpoints, studies and experiments, histories, new videos and days of log.

    See bad_artefacts.py.
    """
    pytest.importorskip("optuna")
    found = batch(first, PART, tmp_path, "--artefacts")
    assert not found["failures"], json.dumps(found["failures"], indent=1)[:6000]
    LATER.append(found)
    kinds: Counter[str] = Counter()
    for part in LATER:
        kinds.update(part["kinds"])
    record(
        "bad_input_artefacts",
        {"cases": kinds.total(), "failures": 0, "by_kind": dict(sorted(kinds.items()))},
    )


LATER: list[dict] = []


def test_the_judge_sees_faults(tmp_path: Path) -> None:
    """The harness itself: what it would let pass would prove nothing."""
    good = trial.Outcome(1, "", "reading x\nError: x.csv is empty: give a file with rows\n", 0.0)
    assert trial.fault(good, tmp_path / "out") == ""
    for bad in (
        trial.Outcome(
            1, "", "Traceback (most recent call last):\nError: x.csv is empty: give one\n", 0.0
        ),
        trial.Outcome(1, "", "", 0.0),
        trial.Outcome(1, "", "Error: one is wrong, mend it\nError: two is wrong, mend it\n", 0.0),
        trial.Outcome(3, "", "Error: some other exit status here\n", 0.0),
        trial.Outcome(0, "", "", 0.0, "Traceback"),
    ):
        assert trial.fault(bad, tmp_path / "out")
    (tmp_path / ".out.abc.tmp").mkdir()
    assert "partial" in trial.fault(good, tmp_path / "out")
    assert trial.call("no-such-verb").code == 2
    hung = trial.call("preprocess", "--input", tmp_path / "x.csv", limit=1e-4)
    assert hung.code in (-1, 1, 130)  # the limit strikes, unless the answer was faster


def test_the_time_limit_strikes() -> None:
    with pytest.raises(trial.Hang), trial.time_limit(0.05):
        while True:
            pass


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> trial.World:
    return trial.world(tmp_path_factory.mktemp("world"))


def test_the_real_command_ends_the_same_way(world: trial.World, tmp_path: Path) -> None:
    """The same cases through the installed entry point.

    Exit status and last line are those of the call in this process.
    """
    import random

    from mutations import spoil

    draw, environment = random.Random(1), os.environ | {"OMP_NUM_THREADS": "1"}
    files = trial.logs()
    for n in range(REAL_CASES):
        name = draw.choice([name for name in files if name not in trial.OPTIONS])
        file = tmp_path / f"{n}_{name}"
        file.write_bytes(spoil(name, files[name], draw) if n else b"user,item\n")
        words = ["preprocess", "--input", file, "--check"]
        here = trial.call(*words)
        done = subprocess.run(
            [sys.executable, "-m", "dualgnn_dgl.cli.main", *map(str, words)],
            capture_output=True,
            text=True,
            timeout=60,
            env=environment,
        )
        assert (
            done.returncode == here.code
            and done.stderr.splitlines()[-1:] == here.err.splitlines()[-1:]
        )
    record("bad_input_real_command", {"cases": REAL_CASES, "failures": 0})


@pytest.mark.parametrize(
    "words",
    [
        ("preprocess", "a\nb"),
        ("preprocess", "--\nb"),
        ("--\nb",),
        ("a\n",),
        ("train", "--model", "a\x1b[31m\nb"),
    ],
)
def test_usage_mistakes_are_one_line_whatever_they_quote(words: tuple[str, ...]) -> None:
    done = trial.call(*words)
    assert done.code == 2 and not trial.fault(done) and "\x1b" not in done.err, done
    assert trial.call().err.count("\n") > 10, "the help of the group stays a page"


def test_what_a_quoted_field_holds_does_not_break_the_line(
    world: trial.World, tmp_path: Path
) -> None:
    """In the library, too: found by `make fuzz`."""
    from dualgnn_dgl.errors import DataError
    from dualgnn_dgl.readers.reader import read

    (tmp_path / "acoustic.csv").write_text('item_id,a,b\nv0,"1\n\x1b[2J2",3\n')
    with pytest.raises(DataError, match="features are numbers") as error:
        read(
            world.folder / "log.csv",
            features=[tmp_path / "acoustic.csv"],
            items=world.folder / "items.csv",
        )
    assert "\n" not in str(error.value) and "\x1b" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b'"Clip, no. 2"', b'"Clip,\nno. 2"', "1 rows span several lines"),
        (b",2013", b',"2013', "opens a quotation mark that never closes"),
    ],
    ids=["several lines", "unclosed"],
)
def test_quoted_lines_beside_a_column_that_is_no_text(
    old: bytes, new: bytes, says: str, world: trial.World, tmp_path: Path
) -> None:
    """Half a letter of UTF-8 at the end of a column that nobody reads: found by `make fuzz`."""
    (tmp_path / "items.csv").write_bytes(
        trial.item_files()["items.csv"].replace(old, new).rstrip() + b"\xd0"
    )
    done = trial.call(
        "preprocess",
        "--input",
        world.folder / "log.csv",
        "--items",
        tmp_path / "items.csv",
        "--check",
    )
    assert not trial.fault(done) and says in done.out + done.err, done


# --- any value, by Hypothesis -------------------------------------------------------------------

EXAMPLES = 500 if LONG else 25
any_examples = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
words = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=30)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
KEYS = (
    "lr",
    "epochs",
    "width",
    "metric",
    "seed",
    "layers",
    "batch_size",
    "patience",
    "eval_every",
    "l2",
    "nosuch",
)


@any_examples
@given(
    key=st.sampled_from(KEYS) | words, value=words | st.floats().map(str) | st.integers().map(str)
)
def test_any_key_and_value_of_set(key: str, value: str) -> None:
    done = trial.call("train", "--set", f"{key}={value}", "--print-config")
    assert not trial.fault(done)
    if done.code == 0:  # what is printed is read back as the same
        read = tomllib.loads(done.out)
        found = (read["model"] | read["train"])[key.strip()]
        assert (
            str(found).strip().lower() == value.strip().lower()
            or float(found) == float(value)
            or isinstance(found, bool)
        )


@any_examples
@given(
    text=words | st.text(st.sampled_from("[]{}=\"\\'\n.#_-+0123456789eaxtrinmodl "), max_size=60)
)
def test_any_text_as_a_configuration(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(text, "utf-8")
    assert not trial.fault(trial.call("train", "--config", tmp_path / "run.toml", "--print-config"))


@any_examples
@given(data=st.data(), name=st.sampled_from(["data/dataset.json", "run/run.json"]), value=values)
def test_any_value_anywhere_in_our_json(
    data: st.DataObject, name: str, value: object, world: trial.World
) -> None:
    """Metrics as before, or one line: no value of a manifest is believed unchecked."""
    place, original = world.folder / name, (world.folder / name).read_bytes()
    content = node = json.loads(original)
    while True:
        key = data.draw(st.sampled_from(sorted(node)))
        if not isinstance(node[key], dict) or not node[key] or data.draw(st.booleans()):
            break
        node = node[key]
    node[key] = value
    try:
        place.write_text(json.dumps(content), "utf-8")
        done = trial.call(
            "eval",
            "--run",
            world.run,
            "--data",
            world.data,
            "--topk",
            3,
            "--bootstrap",
            0,
            "--gpu",
            -1,
            "--json",
        )
    finally:
        place.write_bytes(original)
    assert not trial.fault(done)
    assert done.code == 1 or json.loads(done.out)["metrics"] == world.metrics["metrics"]


@any_examples
@given(
    words=st.lists(
        st.sampled_from(
            [
                "--seed",
                "--k-core",
                "--min-rating",
                "--feature-dim",
                "--cooc-top",
                "--memory",
                "--separator",
            ]
        )
        | words
        | st.integers().map(str),
        max_size=5,
    )
)
def test_any_words_on_the_command_line(words: list[str], world: trial.World) -> None:
    assert not trial.fault(
        trial.call("preprocess", "--input", world.folder / "log.csv", "--check", *words)
    )
