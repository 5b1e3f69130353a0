"""The promise that no pickle is read, as far as it depends on other packages.

Setup.cfg bounds them, these tests look at them.

A new major version of one of them needs its bound in setup.cfg raised, and these tests to pass with
it.
"""

from __future__ import annotations

import inspect
import io
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import lock
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import trial

BOUNDED = ("numpy", "pandas", "pyarrow", "safetensors", "optuna")


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.trap),)


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    return tmp_path / "trap"


@pytest.fixture
def bomb(trap: Path) -> bytes:
    """A pickle that makes the folder `trap`; shown to be armed, and armed again."""
    raw = pickle.dumps(Bomb(trap))
    pickle.loads(raw)  # noqa: S301
    trap.rmdir()
    return raw


@pytest.mark.parametrize("name", BOUNDED)
def test_the_next_major_version_is_left_out(name: str) -> None:
    from packaging.requirements import Requirement
    from packaging.version import Version

    requirements = [
        Requirement(line) for key in ("run", "tune", "test") for line in lock.requirements(key)
    ]
    bounds = [requirement.specifier for requirement in requirements if requirement.name == name]
    major = Version(lock.locked("test")[name]).major
    assert bounds and all(
        str(major + 1) not in bound and f"{major + 1}.0" not in bound for bound in bounds
    )
    assert all(bound.contains(metadata.version(name)) for bound in bounds)


# The commands run in a process of their own: an audit hook stays until the process ends. Python
# raises the event whenever an unpickler, in C or in Python, looks up a class or a function; the
# replaced functions catch pickles that need none.
JOB = """
import pickle, sys, traceback

seen = []

def record(what):
    stack = traceback.extract_stack()[:-2]
    seen.append(f"{what}: " + " < ".join(f"{frame.filename}:{frame.lineno}" for frame in reversed(stack[-6:])))

def watch(event, arguments):
    if event == "pickle.find_class":
        record(event)

def refused(*arguments, **named):
    record("unpickled")
    raise RuntimeError("a pickle is read")

class Refused(pickle.Unpickler):
    load = refused

sys.addaudithook(watch)
pickle.load = pickle.loads = refused
pickle.Unpickler = Refused
if sys.argv[1] == "armed":
    import io, _pickle
    try:
        pickle.loads(b"N.")
    except RuntimeError:
        pass
    _pickle.loads(_pickle.dumps(print))
    print(len(seen))
    sys.exit()
import dualgnn_dgl.cli.main as main

commands = [
    "preprocess --input log.csv",
    "train --model bprmf --epochs 2 --run run --gpu -1",
    "tune --model bprmf --epochs 1 --trials 2 --study study --gpu -1",
    "tune --model bprmf --epochs 1 --trials 3 --study study --gpu -1",
    "train --config study/run.toml --run tuned --gpu -1",
    "eval --run run --topk 3 --gpu -1",
    "recommend --run run --user user3 --k 2 --gpu -1",
    "update --run run --input new.csv",
]
for words in commands:
    try:
        main.group.main(words.split(), prog_name="dualgnn")
    except SystemExit as end:
        if end.code:
            sys.exit(f"{words}: exit {end.code}")
print()
print("PICKLES", seen)
"""


def job(kind: str, folder: Path) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", JOB, kind]
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout.strip().splitlines()[-1]


def test_no_command_unpickles_anything(tmp_path: Path) -> None:
    """A study is begun and continued among the commands, so Optuna reads its journal."""
    pytest.importorskip("optuna")
    assert job("armed", tmp_path) == "2"
    log = trial.logs()["log.csv"]
    (tmp_path / "log.csv").write_bytes(log)
    (tmp_path / "new.csv").write_bytes(log.replace(b"user3", b"newbie"))
    assert job("commands", tmp_path) == "PICKLES []"
    assert (tmp_path / "study" / "journal.jsonl").stat().st_size


def test_optunas_journal_file_is_lines_of_json(tmp_path: Path, bomb: bytes, trap: Path) -> None:
    optuna = pytest.importorskip("optuna")
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    # The storage unpickles snapshots, if its backend has any.
    assert not hasattr(JournalFileBackend, "load_snapshot")
    source = Path(inspect.getfile(JournalFileBackend)).read_text("utf-8")
    assert "pickle" not in source and "json.loads" in source
    path = tmp_path / "journal"

    def study() -> Any:
        storage = optuna.storages.JournalStorage(
            JournalFileBackend(str(path), JournalFileOpenLock(str(path)))
        )
        return optuna.create_study(storage=storage, study_name="s", load_if_exists=True)

    study().optimize(lambda one: one.suggest_categorical("x", [1, 2]), n_trials=2)
    good = path.read_bytes()
    assert all(isinstance(json.loads(line), dict) for line in good.splitlines())
    for spoilt in (bomb, bomb + b"\n" + good, good + bomb + b"\n"):
        path.write_bytes(spoilt)
        with pytest.raises((ValueError, KeyError, TypeError)):
            study()
    assert not trap.exists()


def test_numpy_refuses_object_arrays(tmp_path: Path, bomb: bytes, trap: Path) -> None:
    assert inspect.signature(np.load).parameters["allow_pickle"].default is False
    np.save(tmp_path / "objects.npy", np.array([Bomb(trap)], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "objects.npz", x=np.array([Bomb(trap)], dtype=object))
    (tmp_path / "bomb.npy").write_bytes(bomb)
    for name, mode in (
        ("objects.npy", None),
        ("objects.npy", "r"),
        ("bomb.npy", None),
        ("bomb.npy", "r"),
    ):
        with pytest.raises(ValueError):
            np.load(tmp_path / name, mmap_mode=mode, allow_pickle=False)
    with (
        pytest.raises(ValueError),
        np.load(tmp_path / "objects.npz", allow_pickle=False) as archive,
    ):
        archive["x"]
    assert not trap.exists()


def test_a_numpy_header_is_not_evaluated(tmp_path: Path, trap: Path) -> None:
    for code in (
        f"__import__('os').mkdir({str(trap)!r})",
        f"{{'descr': __import__('os').mkdir({str(trap)!r})}}",
    ):
        header = code.encode() + b"\n"
        (tmp_path / "x.npy").write_bytes(
            b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
        )
        with pytest.raises(ValueError):
            np.load(tmp_path / "x.npy", allow_pickle=False)
    assert not trap.exists()


def test_parquet_metadata_is_not_unpickled(bomb: bytes, trap: Path) -> None:
    """Neither that of Arrow's extension types, which old versions unpickled, nor that which pandas
    writes.
    """
    extension = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": bomb,
    }
    fields = [pa.field("item", pa.binary(), metadata=extension), pa.field("user", pa.int64())]
    for extra in (
        {},
        {"pandas": bomb},
        {"PANDAS_ATTRS": bomb},
        {"pandas": b'{"index_columns": ["__import__(\'os\')"]}'},
    ):
        buffer = io.BytesIO()
        pq.write_table(pa.table([[b"a"], [1]], schema=pa.schema(fields, metadata=extra)), buffer)
        for read in (
            pq.read_table,
            pd.read_parquet,
            pq.read_schema,
            lambda file: pq.ParquetFile(file).read(),
        ):
            buffer.seek(0)
            try:
                read(buffer)
            except (ValueError, KeyError, TypeError):  # metadata that are no JSON may be refused
                pass
            assert not trap.exists()
    plain = pq.read_table(io.BytesIO(arrow_file(fields)))
    # old versions have a type for unknown extensions, which does nothing
    found = plain["item"].type
    assert getattr(found, "storage_type", found) == pa.binary(), (
        "an unknown extension type is read as what it is stored as"
    )


def arrow_file(fields: list[pa.Field]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table([[b"a"], [1]], schema=pa.schema(fields)), buffer)
    return buffer.getvalue()


def test_pandas_reads_text_as_text(bomb: bytes, trap: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"user,item\n1," + bomb.hex().encode() + b"\n")
    assert pd.read_csv(tmp_path / "x.csv").shape == (1, 2)
    (tmp_path / "x.parquet").write_bytes(bomb)
    with pytest.raises((ValueError, OSError)):
        pd.read_parquet(tmp_path / "x.parquet")
    assert not trap.exists()


def test_safetensors_reads_no_pickle(bomb: bytes, trap: Path, tmp_path: Path) -> None:
    for module in (safetensors, safetensors.torch, safetensors.numpy):
        source = inspect.getsource(module)
        assert "pickle" not in source and "torch.load" not in source
    buffer = len(bomb).to_bytes(8, "little") + bomb
    for content in (bomb, buffer, buffer + bomb):
        (tmp_path / "x.safetensors").write_bytes(content)
        for read in (safetensors.torch.load_file, safetensors.numpy.load_file):
            with pytest.raises(safetensors.SafetensorError):
                read(tmp_path / "x.safetensors")
        with pytest.raises(safetensors.SafetensorError):
            safetensors.torch.load(content)
    assert not trap.exists()
