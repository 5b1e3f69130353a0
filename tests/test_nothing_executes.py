"""Malicious files in every input place of the command line.

None of them runs, each ends in success or one clear line.

Every payload makes a folder when it is unpickled or evaluated; `test_every_payload_is_armed` shows
that the usual unsafe readers set it off. Commands and options that are added later are found by
themselves (`inputs`).
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import forged
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import trial
from figures import LONG, record

from dualgnn_dgl.cli.main import VERBS, group


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.trap),)


def archived(data: bytes) -> bytes:
    """A tar archive with a member that would leave the folder, and one that is a pickle."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("../../escaped.pkl", "data.pkl"):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def payloads(trap: Path) -> dict[str, bytes]:
    """Every kind of file that runs code in a careless reader."""
    bomb, files = Bomb(trap), {}
    files["pickle"] = raw = pickle.dumps(bomb)
    files["pickle 0"] = pickle.dumps(bomb, protocol=0)
    files["pickle, gzip"] = gzip.compress(raw)
    buffer = io.BytesIO()
    np.save(buffer, np.array([[bomb], [bomb]], dtype=object), allow_pickle=True)
    files["object array"] = buffer.getvalue()
    buffer = io.BytesIO()
    np.save(buffer, np.array([(1, bomb)], dtype=[("a", "i4"), ("b", "O")]), allow_pickle=True)
    files["record array"] = buffer.getvalue()
    buffer = io.BytesIO()
    np.savez(buffer, visual=np.array([bomb], dtype=object))
    files["npz"] = buffer.getvalue()
    for name, zipped in (("torch", True), ("torch before 1.6", False)):
        buffer = io.BytesIO()
        torch.save({"graph": bomb}, buffer, _use_new_zipfile_serialization=zipped)
        files[name] = buffer.getvalue()
    header = f"{{'descr': '<f4', 'shape': (2, 2), 'fortran_order': __import__('os').mkdir({str(trap)!r})}}".encode()
    files["array header"] = (
        b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 16
    )
    files["parquet of pickles"] = trial.parquet(
        {"user_id": [raw] * 3, "item_id": [raw, raw, b"x"], "title": [raw] * 3}
    )
    # Arrow before 14.0.1 unpickled the type of such a column (CVE-2023-47248)
    field = pa.field(
        "item_id",
        pa.binary(),
        metadata={
            "ARROW:extension:name": "arrow.py_extension_type",
            "ARROW:extension:metadata": raw,
        },
    )
    buffer = io.BytesIO()
    pq.write_table(pa.table([pa.array([b"a", b"b"])], schema=pa.schema([field])), buffer)
    files["parquet extension type"] = buffer.getvalue()
    text = files["pickle 0"].decode("latin-1")
    quoted = text.replace('"', '""')
    files["csv of pickles"] = (
        f'user_id,item_id,title\n"{quoted}",a,"{quoted}"\nu,"{quoted}",b\n'.encode()
    )
    files["json"] = json.dumps(
        {"format": 1, "py/reduce": [{"py/function": "os.mkdir"}, [str(trap)]], "x": text}
    ).encode()
    files["yaml in toml"] = (
        f"name = \"!!python/object/apply:os.mkdir ['{trap}']\"\n[model]\nwidth = "
        f"\"__import__('os').mkdir('{trap}')\"\n".encode()
    )
    files["python"] = f"import os\nos.mkdir({str(trap)!r})\n".encode()
    tensors = json.dumps(
        {
            "__metadata__": {"pickle": text},
            "user": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]},
        }
    ).encode()
    files["safetensors"] = struct.pack("<Q", len(tensors)) + tensors + b"\0" * 4
    files["tar"] = archived(raw)
    return files


def test_every_payload_is_armed(tmp_path: Path) -> None:
    """What careless readers do with these files: a test without this could not fail."""
    trap = tmp_path / "trap"
    files = payloads(trap)
    careless: dict[str, Callable[[bytes], Any]] = {
        "pickle": pickle.loads,
        "pickle 0": pickle.loads,
        "pickle, gzip": lambda data: pickle.loads(gzip.decompress(data)),  # noqa: S301
        "object array": lambda data: np.load(io.BytesIO(data), allow_pickle=True),
        "record array": lambda data: np.load(io.BytesIO(data), allow_pickle=True),
        "npz": lambda data: np.load(io.BytesIO(data), allow_pickle=True)["visual"],
        "torch": lambda data: torch.load(io.BytesIO(data), weights_only=False),
        "torch before 1.6": lambda data: torch.load(io.BytesIO(data), weights_only=False),
        "array header": lambda data: eval(data[10:-16].decode()),  # noqa: S307
        "parquet of pickles": lambda data: pickle.loads(  # noqa: S301
            pq.read_table(io.BytesIO(data))["title"][0].as_py()
        ),
        "python": lambda data: exec(data.decode()),
    }
    for name, read in careless.items():
        read(files[name])
        assert trap.is_dir(), f"{name} is a dud"
        trap.rmdir()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> trial.World:
    return trial.world(tmp_path_factory.mktemp("world"))


COUNTS: dict[str, int] = {}


@pytest.fixture(scope="module", autouse=True)
def figures() -> Iterator[None]:
    """What was planted, counted when all tests are through.

    Anything that ran has failed one of them.
    """
    yield
    record(
        "nothing_executes",
        {"planted": sum(COUNTS.values()), "ran": 0, "by_place": dict(sorted(COUNTS.items()))},
    )


def defused(
    place: str, trap: Path, *words: object, untouched: tuple[Path, ...] = ()
) -> trial.Outcome:
    """Run a command; nothing may run, whatever it answers."""
    done = trial.call(*words)
    assert not trap.exists(), f"{place}: CODE RAN: {words}"
    wrong = trial.fault(done, *untouched)
    assert not wrong, f"{place}: {words}: {wrong}"
    COUNTS[place] = COUNTS.get(place, 0) + 1
    return done


NAMES = {
    "--input": (
        "log.csv",
        "log.tsv",
        "log.parquet",
        "x.inter",
        "ratings.dat",
        "u.data",
        "my_pairs.tsv",
        "train.txt",
        "log.csv.gz",
        "log.pkl",
        "log.npy",
        "log",
    ),
    "--features": (
        "v.npy",
        "v.npz",
        "v.pkl",
        "v.pt",
        "v.parquet",
        "v.csv",
        "v.tsv",
        "v.bin",
        "v.safetensors",
    ),
    "--items": ("i.csv", "i.txt", "i.dat", "i.item", "i.parquet", "i.pkl", "i.npy"),
    "--config": ("run.toml", "run.pkl", "run.json"),
}


@pytest.mark.parametrize("option", NAMES)
def test_files_that_an_option_names(option: str, world: trial.World, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    files = payloads(trap)
    for number, (kind, content) in enumerate(files.items()):
        for name in NAMES[option] if LONG else NAMES[option][number % 3 :: 3]:
            file = tmp_path / name
            file.write_bytes(content)
            if option == "--config":
                words: list[object] = ["train", "--print-config", option, file]
            else:
                words = [
                    "preprocess",
                    "--input",
                    world.folder / "log.csv",
                    option,
                    file,
                    "--data",
                    tmp_path / "out",
                ]
            done = defused(option, trap, *words, untouched=(tmp_path / "out",))
            if kind != "csv of pickles":
                assert done.code == 1, f"{kind} as {name} was taken for something"
            shutil.rmtree(tmp_path / "out", ignore_errors=True)
            file.unlink()


@pytest.mark.parametrize(
    "kind", ["pickle", "object array", "npz", "torch", "csv of pickles", "python", "tar"]
)
def test_files_that_lie_in_the_input_folder(kind: str, world: trial.World, tmp_path: Path) -> None:
    """DGL's and GraphBolt's folders, MMRec's pickles, item lists beside arrays, Python files.

    All beside a good log.
    """
    trap, folder = tmp_path / "trap", tmp_path / "raw"
    content = payloads(trap)[kind]
    names = [
        *(
            "visual.npy",
            "visual.npz",
            "visual.pkl",
            "user_graph_dict.npy",
            "image_feat.npy",
            "text.pt",
            "features.parquet",
            "items.csv",
        ),
        *(
            "items.pkl",
            "visual_ids.txt",
            "visual.ids.txt",
            "graph.bin",
            "graph.dgl",
            "dgl_info.pkl",
            "metadata.yaml",
            "preprocess_metadata.yaml",
        ),
        *(
            "preprocessed/metadata.yaml",
            "preprocessed/fused_csc_sampling_graph.pt",
            ".hidden.pkl",
            "dataset.json",
            "sitecustomize.py",
        ),
        *("__init__.py", "numpy.py", "test.csv", "x.safetensors"),
    ]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "log.csv").write_bytes(trial.logs()["log.csv"])
        if name in ("visual_ids.txt", "visual.ids.txt"):
            (folder / "visual.npy").write_bytes(trial.feature_files()["visual.npy"])
        (folder / name).write_bytes(content)
        defused("input folder", trap, "preprocess", "--input", folder, "--check")
        shutil.rmtree(folder)


def verbs_reading(world: trial.World, data: Path, run: Path, out: Path) -> tuple[list[object], ...]:
    """Commands that read a data and a run folder."""
    return (
        ["eval", "--data", data, "--run", run, "--bootstrap", 0, "--gpu", -1],
        ["recommend", "--data", data, "--run", run, "--user", "user3", "--k", 2, "--gpu", -1],
        ["train", "--data", data, "--run", out, "--model", "mostpop", "--gpu", -1],
    )


@pytest.mark.parametrize("place", ["data", "run"])
def test_files_of_the_data_and_the_run_folder(
    place: str, world: trial.World, tmp_path: Path
) -> None:
    trap = tmp_path / "trap"
    kinds = list(payloads(trap).items())
    files = sorted(file.name for file in getattr(world, place).iterdir())
    extra = [
        "weights.pt",
        "model.pkl",
        "optimizer.pt",
        "checkpoint.pkl",
        "modality.x.values.npy",
        "graph.bin",
        "__init__.py",
    ]
    for number, name in enumerate([*files, *extra]):
        for kind, content in (
            kinds if LONG else [kinds[(number + step) % len(kinds)] for step in (0, 3, 6)]
        ):
            folder = tmp_path / place
            shutil.copytree(getattr(world, place), folder)
            (folder / name).write_bytes(content)
            data, run = (folder, world.run) if place == "data" else (world.data, folder)
            verbs = verbs_reading(world, data, run, tmp_path / "new")
            for words in verbs if LONG else verbs[number % 3 : number % 3 + 1]:
                done = defused(f"{place} folder", trap, *words)
                used = name in files and not (place == "data" and name == "report.json")
                if used and (
                    place == "data"
                    or (words[0] != "train" and name.endswith(("safetensors", "run.json")))
                ):
                    assert done.code == 1, f"{kind} as {name} was taken for something by {words[0]}"
                shutil.rmtree(tmp_path / "new", ignore_errors=True)
            shutil.rmtree(folder)


def test_files_of_an_interrupted_training(world: trial.World, tmp_path: Path) -> None:
    """What `train --resume` looks into.

    Checkpoints, their tensors, the lock; and what others would have put there.
    """
    trap, run = tmp_path / "trap", tmp_path / "run"
    folder = tmp_path / "run.training"
    stem = "checkpoint-000001-000000001"
    for number, (kind, content) in enumerate(payloads(trap).items()):
        folder.mkdir()
        for name in (
            f"{stem}.json",
            f"{stem}.safetensors",
            f"{stem}.pt",
            "checkpoint.pkl",
            "training.json",
            "lock",
        ):
            (folder / name).write_bytes(content if name != f"{stem}.json" or number % 2 else b"{}")
        words = [
            "train",
            "--data",
            world.data,
            "--run",
            run,
            "--model",
            "bprmf",
            "--epochs",
            1,
            "--set",
            "width=3",
            "--gpu",
            -1,
        ]
        done = defused("training folder", trap, *words, "--resume")
        assert done.code in (0, 1), kind  # refused, or begun anew: never believed
        for left in (folder, run):
            shutil.rmtree(left, ignore_errors=True)


def test_files_of_a_study(world: trial.World, tmp_path: Path) -> None:
    """What `tune` goes on from: its plan, Optuna's journal, the best options."""
    pytest.importorskip("optuna")
    trap, study = tmp_path / "trap", tmp_path / "study"
    words = [
        "tune",
        "--data",
        world.data,
        "--model",
        "bprmf",
        "--epochs",
        1,
        "--set",
        "width=3",
        "--gpu",
        -1,
        "--study",
        study,
    ]
    done = trial.call(*words, "--trials", 1)
    assert done.code == 0, done
    good = {file.name: file.read_bytes() for file in study.iterdir() if file.is_file()}
    for number, content in enumerate(payloads(trap).values()):
        for name in (
            sorted({*good, "journal.jsonl", "study.pkl"})
            if LONG
            else [sorted(good)[number % len(good)]]
        ):
            (study / name).write_bytes(content)
            defused("study folder", trap, *words, "--trials", 1)
            defused("study folder", trap, "train", "--config", study / name, "--print-config")
            shutil.rmtree(study)
            study.mkdir()
            for file, data in good.items():
                (study / file).write_bytes(data)


def inputs() -> list[tuple[str, click.Option]]:
    """Every option of every command that takes a text.

    A path, or something that a careless program would evaluate.
    """
    context = click.Context(group)
    found = []
    for verb in VERBS:
        command = group.get_command(context, verb)
        assert command is not None
        found += [
            (verb, option)
            for option in command.params
            if isinstance(option, click.Option)
            and isinstance(option.type, click.types.StringParamType)
        ]
    return found


@pytest.mark.parametrize(
    ("verb", "option"), inputs(), ids=lambda part: part if isinstance(part, str) else part.opts[0]
)
def test_every_option_that_takes_a_text(
    verb: str,
    option: click.Option,
    world: trial.World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file, a folder full of payloads under the names of our own files, and an expression.

    For options of today and later.
    """
    monkeypatch.chdir(tmp_path)
    trap = tmp_path / "trap"
    files = payloads(trap)
    folder = tmp_path / "folder"
    folder.mkdir()
    names = [
        *(file.name for file in world.data.iterdir()),
        *(file.name for file in world.run.iterdir()),
        "study.json",
        "trials.jsonl",
        "study.db",
    ]
    values: list[object] = [
        f"__import__('os').mkdir({str(trap)!r})",
        f"x=__import__('os').mkdir({str(trap)!r})",
        "{{7*7}}",
        folder,
    ]
    for number, name in enumerate(names):
        (folder / name).write_bytes(list(files.values())[number % len(files)])
    for kind in ("pickle", "object array", "torch"):
        (tmp_path / f"{kind.replace(' ', '_')}.pkl").write_bytes(files[kind])
        values.append(tmp_path / f"{kind.replace(' ', '_')}.pkl")
    base = {
        "preprocess": {"--input": world.folder / "log.csv", "--data": tmp_path / "out"},
        "train": {
            "--data": world.data,
            "--run": tmp_path / "out",
            "--model": "mostpop",
            "--gpu": -1,
        },
        "eval": {"--data": world.data, "--run": world.run, "--gpu": -1, "--bootstrap": 0},
        "recommend": {"--data": world.data, "--run": world.run, "--gpu": -1, "--user": "user3"},
    }.get(verb, {})
    for value in values:
        given = {name: content for name, content in base.items() if name not in option.opts} | {
            option.opts[0]: value
        }
        defused(
            f"{verb} {option.opts[0]}",
            trap,
            verb,
            *(word for pair in given.items() for word in pair),
        )
        shutil.rmtree(tmp_path / "out", ignore_errors=True)


@pytest.mark.parametrize("name", ["v.pkl", "v.pt", "v.npz", "v.npy"])
def test_refusals_name_the_safe_way(name: str, world: trial.World, tmp_path: Path) -> None:
    kind = {"v.pkl": "pickle", "v.pt": "torch", "v.npz": "npz", "v.npy": "object array"}[name]
    (tmp_path / name).write_bytes(payloads(tmp_path / "trap")[kind])
    for option in ("--features", "--input"):
        done = trial.call(
            "preprocess", "--input", world.folder / "log.csv", option, tmp_path / name, "--check"
        )
        assert done.code == 1 and name in done.err
        if not (option == "--input" and name == "v.npy"):  # an array is no log at all
            assert "numpy.save" in done.err or "array.astype" in done.err, done.err


@pytest.mark.parametrize(
    "name",
    ["../stolen", "a/b", "..\\stolen", "/etc/stolen", "..", "", "\0", ".hidden", "~root", 3, None],
)
def test_names_in_a_manifest_do_not_leave_the_folder(
    name: object, world: trial.World, tmp_path: Path
) -> None:
    """The files that the name would lead to are there: a reader that followed it would find
    them.
    """
    folder = tmp_path / "deep" / "data"
    shutil.copytree(world.data, folder)
    for part in ("values", "present"):
        array = folder / f"modality.visual.{part}.npy"
        for target in (folder / "modality...", folder / "modality.a", tmp_path / "deep"):
            target.mkdir(exist_ok=True)
        for place in (
            f"modality.../stolen.{part}.npy",
            f"modality.a/b.{part}.npy",
            f"../stolen.{part}.npy",
        ):
            shutil.copy(array, folder / place)
    manifest = json.loads((folder / "dataset.json").read_text())
    manifest["modalities"] = (
        {} if name is None else manifest["modalities"] | {str(name) if name != 3 else "3": {}}
    )
    forged.rewrite(folder / "dataset.json", manifest)
    done = trial.call("eval", "--data", folder, "--run", world.run, "--gpu", -1)
    assert done.code == 1 and not trial.fault(done)
    if name not in (3, None, "~root"):
        assert "a name that can be part of a file name" in done.err


def test_the_installed_command_runs_no_file_of_the_folder_it_stands_in(tmp_path: Path) -> None:
    """Python files and modules of ours and of others, planted in the working folder and in the
    input folder.
    """
    trap = tmp_path / "trap"
    for name in (
        "sitecustomize.py",
        "usercustomize.py",
        "numpy.py",
        "pickle.py",
        "torch.py",
        "dgl.py",
        "click.py",
        "conftest.py",
    ):
        (tmp_path / name).write_bytes(payloads(trap)["python"])
    (tmp_path / "matplotlibrc").write_text("backend: module://numpy\n")
    (tmp_path / "log.csv").write_bytes(trial.logs()["log.csv"])
    command = Path(sys.executable).parent / "dualgnn"
    if not command.exists():
        pytest.skip("the command is not installed beside this Python")
    done = subprocess.run(
        [command, "preprocess", "--input", ".", "--check"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert not trap.exists(), "CODE RAN"


@pytest.mark.parametrize("size", [1, 40])
def test_a_compressed_file_expands_within_limits(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bomb of one stream is stopped while it expands.

    Several members are an archive, which is not opened at all.
    """
    from dualgnn_dgl.readers import streams

    monkeypatch.setattr(streams, "MOST_BYTES", 50_000)
    monkeypatch.setattr(streams, "MOST_TIMES", 20)
    for name, line in (
        ("log.csv.gz", b"user,item\n"),
        ("train.txt.gz", b""),
        ("r.dat.gz", b"1::2::3::4\n"),
    ):
        row = {"log.csv.gz": b"1,2\n", "train.txt.gz": b"1 2 3\n", "r.dat.gz": b"1::2::3::4\n"}[
            name
        ]
        (tmp_path / name).write_bytes(gzip.compress(line + row * 1000 * size))
        done = trial.call(
            "preprocess", "--input", tmp_path / name, "--check", "--k-core", 0, "--split", "random"
        )
        assert ("expands to more than 20 times" in done.err) == (size == 40), done.err
        assert not trial.fault(done)
    with zipfile.ZipFile(tmp_path / "logs.zip", "w") as archive:
        archive.writestr("../log.csv", "user,item\n1,2\n")
    done = trial.call("preprocess", "--input", tmp_path / "logs.zip", "--check")
    assert done.code == 1 and "is an archive: unpack it" in done.err
