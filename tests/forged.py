"""Forges files consistently: alters one value anywhere in a document, and then all digests.

A command must end in one line and status 1, or give exactly the result of the untouched files. See
`python tests/forged.py --help`.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import random
import re
import resource
import shutil
import sys
import tempfile
import tomllib
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import trial
from safetensors.torch import load_file, save_file

from dualgnn_dgl.core.files import json_digest

MEMORY = 12 * 2**30  # of addresses: no forged size may be allocated

# --- digests: the one place that knows where our files keep them ---------------------------------


def seal(file: Path, value: dict[str, Any], kept: tuple[Any, ...] = ()) -> None:
    """Corrects every digest in the content `value` of `file`, except the one at path `kept`."""

    def put(
        node: dict[str, Any], key: str, place: tuple[Any, ...], digest: Callable[[], str]
    ) -> None:
        if isinstance(node, dict) and key in node and kept[: len(place)] != place:
            node[key] = digest()

    def of(other: Path) -> str:
        return hashlib.sha256(other.read_bytes()).hexdigest() if other.is_file() else "0" * 64

    for name in value["files"] if isinstance(value.get("files"), dict) else ():
        put(value["files"], name, ("files", name), lambda name=name: of(file.parent / name))
    put(value, "sha256", ("sha256",), lambda: of(file.with_suffix(".safetensors")))
    per_user = file.parent.parent / "per_user" / f"{file.stem}.parquet"
    put(value, "per_user", ("per_user",), lambda: of(per_user))
    put(
        value,
        "self",
        ("self",),
        lambda: json_digest({k: v for k, v in value.items() if k != "self"}),
    )


def rewrite(file: Path, value: dict[str, Any]) -> None:
    """Writes an altered manifest with digests that agree."""
    seal(file, value)
    file.write_text(json.dumps(value), "utf-8")


def seal_folder(file: Path) -> None:
    """Corrects the digests of one other file in the manifests of a folder."""
    for name in ("run.json", "dataset.json"):
        manifest = file.with_name(name)
        if manifest.is_file() and manifest != file:
            rewrite(manifest, json.loads(manifest.read_text()))
    if file.name == "journal.jsonl":
        content = file.read_bytes()
        kept = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        file.with_name("journal.sha256.json").write_text(json.dumps(kept), "utf-8")


# --- mutations ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Raw:
    """A text that is written as it is, instead of a value."""

    text: str


NESTED = "[" * 100_000 + "]" * 100_000
DEEP = "[" * 40 + "]" * 40
VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "negative": -1,
    "text of a number": "12",
    "huge": 2**63 - 1,
    "large": 10**7,
    "65 bits": Raw("18446744073709551616"),
    "5000 digits": Raw("9" * 5000),
    "fraction": 1.5,
    "negative zero": -0.0,
    "1e308": 1e308,
    "1e999": Raw("1e999"),
    "NaN": Raw("NaN"),
    "-Infinity": Raw("-Infinity"),
    "empty text": "",
    "text": "nonsense",
    "long text": "x" * 5000,
    "control text": "\x1b[2J\0\n../..",
    "half a surrogate pair": Raw('"\\ud800"'),
    "empty list": [],
    "list": [1, "a", None],
    "empty object": {},
    "object": {"a": {"b": 1}},
    "deep": Raw(DEEP),
    "nested": Raw(NESTED),
}
SHAPES = ("drop", "extra key", "key given twice", "odd key", "one entry more", "one entry less")
# may be another valid number of the same type
NUMBERS = ("negative", "huge", "large", "fraction", "negative zero", "1e308")


def paths(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Returns every place of a document, the document itself first."""
    yield here
    for key, child in (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    ):
        yield from paths(child, (*here, key))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def mutate(document: Any, path: tuple[Any, ...], kind: str) -> Any:
    """Returns the document with one place altered, or None where that mutation does not apply."""
    found = copy.deepcopy(document)
    old = at(found, path)
    if kind in VALUES:
        new = VALUES[kind]
        if not path or (type(new) is type(old) and new == old):
            return None
        at(found, path[:-1])[path[-1]] = new
        return found
    if kind == "drop":
        if not path:
            return None
        del at(found, path[:-1])[path[-1]]
    elif kind in ("extra key", "odd key", "key given twice"):
        if not isinstance(old, dict) or (kind == "key given twice" and not old):
            return None
        name = {"extra key": "extra", "odd key": "../\x1b[2Jü" * 40}.get(
            kind
        ) or f"twice:{next(iter(old))}"
        old[name] = 1 if kind != "key given twice" else next(iter(old.values()))
    elif kind in ("one entry more", "one entry less"):
        if not isinstance(old, list) or not old:
            return None
        old[:] = [*old, old[-1]] if kind == "one entry more" else old[:-1]
    return found


def dumps(value: Any, **layout: Any) -> str:
    """Formats JSON in which `Raw` is written as it is, and a key twice:NAME as NAME."""
    raw: list[str] = []

    def mark(other: Any) -> str:
        raw.append(other.text)
        return f"@raw{len(raw) - 1}@"

    text = json.dumps(value, default=mark, **layout)
    text = re.sub(r'"@raw(\d+)@"', lambda found: raw[int(found[1])], text)
    return text.replace('"twice:', '"')


# --- what is forged, and the commands that read it ----------------------------------------------

SMALL = ("--gpu", -1, "--set", "width=3")
# runs a verb on a folder's copy: how it ended, and what it gave
Run = Callable[[Path], tuple[trial.Outcome, Any]]


def _shown(done: trial.Outcome, *without: str) -> Any:
    """Returns a command's JSON output without the parts that differ from run to run."""
    if done.code:
        return None

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: bare(child) for key, child in value.items() if key not in without}
        return [bare(child) for child in value] if isinstance(value, list) else value

    return bare(json.loads(done.out))


def evaluate(folder: Path) -> tuple[trial.Outcome, Any]:
    words = ("--topk", 3, "--bootstrap", 0, "--gpu", -1, "--json")
    done = trial.call("eval", "--run", folder / "run", "--data", folder / "data", *words)
    return done, _shown(done, "run", "data")


def recommend(folder: Path) -> tuple[trial.Outcome, Any]:
    done = trial.call(
        "recommend",
        "--run",
        folder / "run",
        "--data",
        folder / "data",
        "--user",
        "user3",
        "--gpu",
        -1,
        "--json",
    )
    return done, _shown(done, "run", "data")


def place(folder: Path) -> tuple[trial.Outcome, Any]:
    words = ("--history", "v1,v2", "--gpu", -1, "--json")
    done = trial.call("recommend", "--run", folder / "run", "--data", folder / "data", *words)
    return done, _shown(done, "run", "data")


def stranger(folder: Path) -> tuple[trial.Outcome, Any]:
    """Asks for a user that the data does not have: the message quotes report.json."""
    words = ("--user", "nobody", "--gpu", -1)
    return trial.call("recommend", "--run", folder / "run", "--data", folder / "data", *words), None


def compare(folder: Path) -> tuple[trial.Outcome, Any]:
    words = ("--data", folder / "data", "--topk", 3, "--bootstrap", 20, "--gpu", -1, "--json")
    done = trial.call("compare", folder / "other", folder / "run", *words)
    return done, _shown(replace(done, out=done.out.replace(str(folder), "")), "data")


def update(folder: Path) -> tuple[trial.Outcome, Any]:
    words = (
        "--input",
        folder / "day.csv",
        "--new-data",
        folder / "new-data",
        "--new-run",
        folder / "new-run",
        "--json",
    )
    done = trial.call("update", "--run", folder / "run", "--data", folder / "data", *words)
    return done, _shown(done, "run", "data", "seconds")


def train(folder: Path) -> tuple[trial.Outcome, Any]:
    words = ("--model", "dualgnn", "--epochs", 1, *SMALL)
    done = trial.call("train", "--data", folder / "data", "--run", folder / "new", *words)
    return done, (folder / "new" / "weights.safetensors").read_bytes() if not done.code else None


def resume(folder: Path) -> tuple[trial.Outcome, Any]:
    done = trial.call(
        "train",
        "--data",
        folder / "data",
        "--run",
        folder / "cut",
        "--resume",
        "--keep-checkpoints",
    )
    return done, [
        (folder / "cut" / f"{n}.safetensors").read_bytes() for n in ("weights", "tables")
    ] if not done.code else None


def begun(folder: Path) -> tuple[trial.Outcome, Any]:
    """Kills a training before its first checkpoint."""
    done = trial.call(
        "train",
        "--data",
        folder / "data",
        "--run",
        folder / "begun",
        "--resume",
        "--keep-checkpoints",
    )
    return done, (folder / "begun" / "weights.safetensors").read_bytes() if not done.code else None


def configure(folder: Path) -> tuple[trial.Outcome, Any]:
    done = trial.call("train", "--config", folder / "run" / "run.toml", "--print-config")
    return done, tomllib.loads(done.out) if not done.code else None


def tune(folder: Path) -> tuple[trial.Outcome, Any]:
    words = (
        "--model",
        "bprmf",
        "--epochs",
        1,
        *SMALL,
        "--study",
        folder / "study",
        "--trials",
        2,
        "--json",
    )
    done = trial.call("tune", "--data", folder / "data", *words)
    return done, _shown(done, "study", "data", "config", "seconds", "error")


def robustness(folder: Path) -> tuple[trial.Outcome, Any]:
    chosen = (
        "--models",
        "vbpr",
        "--rates",
        "0,.5",
        "--seeds",
        1,
        "--strategies",
        "mask",
        "--stages",
        "test-only",
    )
    words = (*chosen, "--epochs", 1, "--gpu", -1, "--json")
    done = trial.call("robustness", "--data", folder / "data", "--out", folder / "holes", *words)
    return done, _shown(done)


def rerun(folder: Path) -> tuple[trial.Outcome, Any]:
    """Reads the weights again for a missing cell of the stage test-only."""
    for file in (folder / "holes" / "cells").glob("test-only*"):
        file.unlink()
    return robustness(folder)


def finished(folder: Path) -> tuple[trial.Outcome, Any]:
    """Runs --resume on a finished run without checkpoints."""
    done = trial.call("train", "--data", folder / "data", "--run", folder / "done", "--resume")
    return done, (folder / "done" / "weights.safetensors").read_bytes() if not done.code else None


@dataclass(frozen=True)
class Target:
    """A kind of file, the pattern of its path, and the verbs that read it."""

    pattern: str
    verbs: tuple[Run, ...]


TARGETS = {
    "dataset.json": Target("data/dataset.json", (evaluate, train, update, tune, robustness)),
    "report.json": Target("data/report.json", (stranger,)),
    "run.json": Target("run/run.json", (evaluate, recommend, place, update, compare)),
    "run.json, finished": Target("done/run.json", (finished,)),
    "checkpoint": Target("cut.training/checkpoint-*.json", (resume,)),
    "begun.json": Target("begun.training/begun.json", (begun,)),
    "study.json": Target("study/study.json", (tune,)),
    "journal.sha256.json": Target("study/journal.sha256.json", (tune,)),
    "journal.jsonl": Target("study/journal.jsonl", (tune,)),
    "history.jsonl": Target("run/history.jsonl", (evaluate,)),
    "cell": Target("holes/cells/test-only*.json", (robustness,)),
    "whole cell": Target("holes/cells/train*.json", (robustness,)),
    "weights": Target("holes/weights/*.json", (rerun,)),
    "run.toml": Target("run/run.toml", (configure,)),
    "tensors of a run": Target("run/*.safetensors", (evaluate, place)),
    "tensors of a checkpoint": Target("cut.training/*.safetensors", (resume,)),
    "tensors of an experiment": Target("holes/weights/*.safetensors", (rerun,)),
    "per_user": Target("holes/per_user/test-only*.parquet", (robustness,)),
}


def world(folder: Path) -> Path:
    """Makes the untouched files of every kind, in a folder of the folder."""
    made = trial.world(folder)
    good = folder / "good"
    good.mkdir()
    shutil.copytree(made.data, good / "data")
    shutil.copytree(made.run, good / "done")
    rows = [
        ("user1", "v0"),
        ("user1", "v1"),
        ("user2", "v3"),
        ("user2", "v4"),
        ("user3", "v5"),
        ("anna", "v3"),
        ("anna", "v5"),
    ]
    (good / "day.csv").write_text(
        "user_id,item_id,rating\n" + "".join(f"{u},{i},4\n" for u, i in rows)
    )
    words = ("train", "--data", good / "data", *SMALL)
    steps: list[tuple[Any, ...]] = [
        (*words, "--run", good / "run", "--model", "dualgnn", "--epochs", 2),
        (*words, "--run", good / "other", "--model", "freedom", "--epochs", 1),
        # a checkpoint in the middle of an epoch, of a model that draws in every epoch and has a
        # generator of its own
        (
            *words,
            "--run",
            good / "cut",
            "--model",
            "bm3",
            "--epochs",
            3,
        )
        + ("--batch-size", 30, "--checkpoint-minutes", 0, "--keep-last", 99, "--keep-checkpoints"),
    ]
    for step in steps:
        assert (done := trial.call(*step, limit=600)).code == 0, done
    shutil.rmtree(good / "cut")
    for file in (good / "cut.training").glob("checkpoint-*"):
        if not file.name.startswith("checkpoint-000003-000000001"):
            file.unlink()
    (good / "begun.training").mkdir()
    shutil.copy(good / "cut.training" / "begun.json", good / "begun.training")
    for verb in (tune, robustness):
        assert (done := verb(good)[0]).code == 0, done
    return good


@dataclass(frozen=True)
class Case:
    """One forgery: its target, path and line (0 in JSON), its mutation, and the verb."""

    target: str
    line: int
    path: tuple[Any, ...]
    kind: str
    verb: int

    def __str__(self) -> str:
        place = ".".join(map(str, self.path))
        return f"{self.target} line {self.line} {place}: {self.kind} → verb {self.verb}"


TENSOR_KINDS = (
    *(
        "drop",
        "rename",
        "extra",
        "transposed",
        "a row more",
        "no rows",
        "no dimension",
        "a dimension more",
    ),
    *(
        "float64",
        "float16",
        "int64",
        "uint8",
        "bool",
        "NaN",
        "Infinity",
        "negative",
        "huge",
        "zero",
    ),
)
COLUMN_KINDS = ("drop", "text", "NaN", "null", "a row less", "negative", "huge", "another value")
TOML_EXTRA = ("a date", "inf", "nan", "long dotted key", "much")


def documents(file: Path) -> list[Any]:
    """Returns the JSON documents of a file; of a TOML file its one."""
    if file.suffix == ".toml":
        return [tomllib.loads(file.read_text("utf-8"))]
    text = file.read_text("utf-8")
    return [json.loads(part) for part in (text.splitlines() if file.suffix == ".jsonl" else [text])]


def cases(good: Path) -> list[Case]:
    """Returns every case in a fixed order."""
    found = []
    for name, target in TARGETS.items():
        verbs = range(len(target.verbs))
        file = sorted(good.glob(target.pattern))[0]
        if file.suffix == ".safetensors":
            for part in sorted(good.glob(target.pattern)):
                found += [
                    Case(name, 0, (part.name, t), kind, v)
                    for t in load_file(part)
                    for kind in TENSOR_KINDS
                    for v in verbs
                ]
        elif file.suffix == ".parquet":
            found += [
                Case(name, 0, (column,), kind, 0)
                for column in pq.read_table(file).column_names
                for kind in COLUMN_KINDS
            ]
        else:
            extra = TOML_EXTRA if file.suffix == ".toml" else ()
            kinds = (*VALUES, *SHAPES, *extra)
            for line, document in enumerate(documents(file)):
                for path in paths(document):
                    found += [Case(name, line, path, kind, v) for kind in kinds for v in verbs]
    return found


def forge(case: Case, folder: Path) -> bool:
    """Alters the file in `folder`, and returns False where that changes nothing."""
    file = sorted(folder.glob(TARGETS[case.target].pattern))[0]
    if file.suffix == ".safetensors":
        return forge_tensor(case, file.with_name(case.path[0]))
    if file.suffix == ".parquet":
        return forge_column(case, file)
    found = documents(file)
    if file.suffix == ".toml":
        text = toml(found[0], case)
        if text is not None:
            file.write_text(text, "utf-8")
            seal_folder(file)
        return text is not None
    new = mutate(found[case.line], case.path, case.kind)
    if new is None:
        return False
    if file.suffix == ".json":
        resealed = copy.deepcopy(new)
        try:
            seal(file, resealed, case.path)
        except TypeError:  # it holds what no JSON parser gives back: no digest could be right
            resealed = new
        file.write_text(dumps(resealed), "utf-8")
        seal_folder(file)
        return True
    lines = file.read_text("utf-8").splitlines()
    lines[case.line] = dumps(new)
    file.write_text("\n".join([*lines, ""]), "utf-8")
    seal_folder(file)
    return True


def toml(document: dict[str, Any], case: Case) -> str | None:
    """Returns the TOML text of an altered configuration."""
    special = {
        "a date": "2026-01-01",
        "inf": "inf",
        "nan": "-nan",
        "long dotted key": "a." * 8000 + "a = 1",
        "much": "#" * 10**6,
    }
    if case.kind in special:
        found = copy.deepcopy(document)
        if case.kind in ("long dotted key", "much"):
            return special[case.kind] + "\n" if not case.path else None
        if not case.path:
            return None
        at(found, case.path[:-1])[case.path[-1]] = Raw(special[case.kind])
    else:
        new = mutate(document, case.path, case.kind)
        if new is None or not isinstance(new, dict):
            return None
        found = new

    def value(node: Any) -> str | None:
        if isinstance(node, Raw):
            return node.text.replace("NaN", "nan").replace("Infinity", "inf")
        if isinstance(node, dict):
            return "{" + ", ".join(f"{json.dumps(k)} = {value(v)}" for k, v in node.items()) + "}"
        if isinstance(node, list):
            return "[" + ", ".join(str(value(v)) for v in node if v is not None) + "]"
        return "nope" if node is None else json.dumps(node)

    lines = [
        f"{json.dumps(key.removeprefix('twice:'))} = {value(node)}" for key, node in found.items()
    ]
    return "\n".join([*lines, ""])


def forge_tensor(case: Case, file: Path) -> bool:
    """Alters one tensor of a file, and its digests."""
    tensors, name = load_file(file), case.path[1]
    old = tensors[name]
    if case.kind == "drop":
        del tensors[name]
    elif case.kind in ("rename", "extra"):
        tensors["other/name"] = tensors[name].clone()
        if case.kind == "rename":
            del tensors[name]
    else:
        shapes: dict[str, Callable[[], torch.Tensor]] = {
            "transposed": lambda: old.T.contiguous() if old.ndim == 2 else old.repeat(2),
            "a row more": lambda: torch.cat([old, old[:1]]) if old.ndim else old.reshape(1),
            "no rows": lambda: old[:0].clone() if old.ndim else old.repeat(0),
            "no dimension": lambda: torch.zeros((), dtype=old.dtype),
            "a dimension more": lambda: old.unsqueeze(0).clone(),
            "zero": lambda: torch.zeros_like(old),
            "negative": lambda: (
                -old.abs() - 1 if old.is_floating_point() else torch.full_like(old, 255)
            ),
            "huge": lambda: torch.full_like(old, 3e38 if old.is_floating_point() else 127),
            "NaN": lambda: torch.full_like(old, torch.nan) if old.is_floating_point() else old,
            "Infinity": lambda: torch.full_like(old, torch.inf) if old.is_floating_point() else old,
        }
        new = shapes[case.kind]() if case.kind in shapes else old.to(getattr(torch, case.kind))
        if new.dtype == old.dtype and torch.equal(new, old):
            return False
        tensors[name] = new
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, file)
    for manifest in (file.parent / "run.json", file.with_suffix(".json")):
        if manifest.is_file():
            rewrite(manifest, json.loads(manifest.read_bytes()))
    return True


def forge_column(case: Case, file: Path) -> bool:
    """Alters one column of the users' results, and the digest in the cell."""
    table, (name,) = pq.read_table(file), case.path
    index, column = table.column_names.index(name), table[name].to_pylist()
    new: dict[str, Callable[[], pa.Array]] = {
        "text": lambda: pa.array(["x"] * len(column)),
        "NaN": lambda: pa.array([float("nan")] * len(column), pa.float32()),
        "null": lambda: pa.array([None] * len(column), pa.float32()),
        "negative": lambda: pa.array([-1.0] * len(column), pa.float32()),
        "huge": lambda: pa.array([3e38] * len(column), pa.float32()),
        "another value": lambda: pa.array([0.123] * len(column), pa.float32()),
    }
    if case.kind == "drop":
        table = table.drop_columns([name])
    elif case.kind == "a row less":
        table = table.slice(1)
    else:
        table = table.set_column(index, name, new[case.kind]())
    pq.write_table(table, file)
    cell = file.parent.parent / "cells" / f"{file.stem}.json"
    rewrite(cell, json.loads(cell.read_bytes()))
    return True


def wrong(case: Case, done: trial.Outcome, result: Any, before: Any, document: Any) -> str:
    """Returns the fault in the end of a command, '' without one."""
    if fault := trial.fault(done):
        return fault
    if done.code == 1:
        return ""
    if done.code:
        return f"exit {done.code}: {done.err[-300:]}"
    if case.target == "run.toml":  # a person's own file: what is accepted is what is printed
        return "" if case.kind == "drop" or _follows(result, document) else f"accepted as {result}"
    old = at(document, case.path) if isinstance(document, dict) else None
    number = isinstance(old, int | float) and not isinstance(old, bool)
    if case.kind in NUMBERS and (number or case.target.startswith("tensors")):
        return ""  # another number in its range: nobody can tell
    if case.kind == "zero" and case.target.startswith("tensors"):
        return ""
    return "" if result == before else f"another result: {done.err[-200:]}"


def _follows(printed: dict[str, Any], document: dict[str, Any]) -> bool:
    """Returns whether the printed configuration has every value of the file."""
    for section, values in document.items():
        for key, value in values.items() if isinstance(values, dict) else ():
            shown = printed[section][key]
            if shown != value or any(
                isinstance(shown, kind) != isinstance(value, kind) for kind in (bool, str)
            ):
                return False
    return True


def run_case(case: Case, good: Path, folder: Path, before: dict[str, Any]) -> str | None:
    """Runs one case in an empty folder.

    Returns:
        The fault, '' without one, None where the case alters nothing.
    """
    shutil.copytree(good, folder, dirs_exist_ok=True)
    if not forge(case, folder):
        return None
    run = TARGETS[case.target].verbs[case.verb]
    key = f"{case.target} {case.verb}"
    if key not in before:
        clean = folder.with_name(f"{folder.name}-clean")
        shutil.copytree(good, clean)
        done, before[key] = run(clean)
        shutil.rmtree(clean)
        assert done.code == 0 or case.target == "report.json", done
    file = sorted(folder.glob(TARGETS[case.target].pattern))[0]
    document: Any = None
    if case.target == "run.toml":
        try:
            document = tomllib.loads(file.read_text("utf-8"))
        except (ValueError, RecursionError):
            document = None
    elif file.suffix in (".json", ".jsonl"):
        document = documents(sorted(good.glob(TARGETS[case.target].pattern))[0])[case.line]
    done, result = run(folder)
    if case.target == "run.toml" and document is None:
        return trial.fault(done) or ("" if done.code == 1 else "it was read all the same")
    return wrong(case, done, result, before[key], document)


def run_cases(
    first: int, count: int, step: int, folder: Path, seen: Path | None = None
) -> dict[str, Any]:
    """Runs `count` of the cases from `first`, in one shuffled order.

    `seen` names the current case.
    """
    good = world(Path(tempfile.mkdtemp(dir=folder)))
    every = cases(good)
    random.Random(17).shuffle(every)
    targets: Counter[str] = Counter()
    failures = []
    before: dict[str, Any] = {}
    for number in range(first, min(first + count, len(every)), step):
        case = every[number]
        if seen is not None:
            seen.write_text(str(case))
        here = Path(tempfile.mkdtemp(dir=folder))
        try:
            found = run_case(case, good, here, before)
        except BaseException:
            found = traceback.format_exc()[-3000:]
        shutil.rmtree(here, ignore_errors=True)
        if found is None:
            continue
        targets[case.target] += 1
        if found:
            failures.append({"number": number, "case": str(case)[:300], "wrong": found})
    return {"of": len(every), "by_target": dict(targets), "failures": failures}


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Run consistent forgeries and print what went wrong, as JSON."
    )
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--seen", type=Path, help="file that names the case under way")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with tempfile.TemporaryDirectory() as folder:
        json.dump(
            run_cases(options.first, options.count, options.step, Path(folder), options.seen),
            sys.stdout,
        )


if __name__ == "__main__":
    main()
