"""Pipes, sockets, devices and links that lead nowhere, given as every input and put into every
folder: never waited for.
"""

from __future__ import annotations

import errno
import faulthandler
import gzip
import os
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import trial

from dualgnn_dgl import data as datasets
from dualgnn_dgl.core import inputs
from dualgnn_dgl.core.inputs import open_regular
from dualgnn_dgl.errors import DataError, RunError
from dualgnn_dgl.readers.reader import read
from dualgnn_dgl.runs import checkpoint

LIMIT = 30.0  # seconds for one command


@pytest.fixture(autouse=True)
def _hard_limit() -> Iterator[None]:
    """End the whole process if a test waits where no signal reaches it."""
    faulthandler.dump_traceback_later(300, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def fifo(path: Path) -> None:
    os.mkfifo(path)


def bound(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the address of a socket has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def link_to_fifo(path: Path) -> None:
    os.mkfifo(path.with_name("the-pipe"))
    path.symlink_to("the-pipe")


def block_device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(7, 99))
    except PermissionError:
        pytest.skip("only root makes devices")


SPECIAL: dict[str, Callable[[Path], None]] = {
    "a pipe": fifo,
    "a socket": bound,
    "a character device": lambda path: path.symlink_to("/dev/zero"),
    "a block device": block_device,
    "a loop of links": lambda path: path.symlink_to(path.name),
    "a link that leads nowhere": lambda path: path.symlink_to("nothing-there"),
}
ALL = SPECIAL | {"a pipe (through a link)": link_to_fifo}
# made of every kind where there are many places
LOOK_ALIKES = ["a pipe", "a socket", "a loop of links"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> trial.World:
    return trial.world(tmp_path_factory.mktemp("world"))


# --- every option that takes a file -------------------------------------------------------------

# verb and option -> a name for the file, and the words with "FILE" for its path
OPTIONS = {
    "preprocess --input": ("log.csv", "preprocess --check --input FILE"),
    "preprocess --input, Parquet": ("log.parquet", "preprocess --check --input FILE"),
    "preprocess --input, lists": ("train.txt", "preprocess --check --input FILE"),
    "preprocess --input, compressed": ("log.csv.gz", "preprocess --check --input FILE"),
    "preprocess --features, array": (
        "visual.npy",
        "preprocess --check --input LOG --features FILE",
    ),
    "preprocess --features, Parquet": (
        "visual.parquet",
        "preprocess --check --input LOG --features FILE",
    ),
    "preprocess --features, text": ("visual.csv", "preprocess --check --input LOG --features FILE"),
    "preprocess --items": ("items.csv", "preprocess --check --input LOG --items FILE"),
    "preprocess --items, list": ("items.txt", "preprocess --check --input LOG --items FILE"),
    "preprocess --items, Parquet": ("items.parquet", "preprocess --check --input LOG --items FILE"),
    "train --config": ("run.toml", "train --config FILE --print-config"),
    "recommend --histories": (
        "log.csv",
        "recommend --run RUN --data DATA --gpu -1 --histories FILE",
    ),
    "recommend --new-items": (
        "visual.npy",
        "recommend --run RUN --data DATA --gpu -1 --user user1 --new-items FILE",
    ),
    "update --input": (
        "log.csv",
        "update --run RUN --data DATA --new-run OUT --new-data OUT2 --input FILE",
    ),
    "update --features": (
        "visual.npy",
        "update --run RUN --data DATA --new-run OUT --new-data OUT2 --input LOG --features FILE",
    ),
    "update --items": (
        "items.csv",
        "update --run RUN --data DATA --new-run OUT --new-data OUT2 --input LOG --items FILE",
    ),
}


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_refuses_what_is_no_file(
    world: trial.World, tmp_path: Path, option: str, kind: str
) -> None:
    name, words = OPTIONS[option]
    ALL[kind](tmp_path / name)
    places = {
        "FILE": tmp_path / name,
        "LOG": world.folder / "log.csv",
        "RUN": world.run,
        "DATA": world.data,
    }
    places |= {"OUT": tmp_path / "out", "OUT2": tmp_path / "out2"}
    done = trial.call(*(places.get(word, word) for word in words.split()), limit=LIMIT)
    assert trial.fault(done, tmp_path / "out", tmp_path / "out2") == "" and done.code == 1, done
    assert (
        f"{tmp_path / name} is {kind.split(' (')[0]}, which is not read: write the content to a "
        f"file" in done.err
    )


@pytest.mark.parametrize("kind", ALL)
def test_a_list_of_ids_beside_an_array_is_not_passed_over(
    world: trial.World, tmp_path: Path, kind: str
) -> None:
    """Without it, the array's rows would be taken for items by their number."""
    shutil.copy(world.folder / "visual.npy", tmp_path)
    ALL[kind](tmp_path / "visual.ids.txt")
    with (
        trial.time_limit(LIMIT),
        pytest.raises(DataError, match=r"visual\.ids\.txt is .*, which is not read"),
    ):
        read(world.folder / "log.csv", features=[tmp_path / "visual.npy"])


# --- every file of every folder -----------------------------------------------------------------


@pytest.mark.parametrize("kind", LOOK_ALIKES)
def test_a_folder_is_read_without_what_is_no_file(
    world: trial.World, tmp_path: Path, kind: str
) -> None:
    for name in ("log.csv", "items.csv", "visual.npy"):
        shutil.copy(world.folder / name, tmp_path / name)
    names = ("aa_ratings.csv", "textual.npy", "acoustic.parquet", "zz_items.csv")
    for name in names:
        SPECIAL[kind](tmp_path / name)
    said: list[str] = []
    with trial.time_limit(LIMIT):
        raw = read(tmp_path, progress=said.append)
    assert list(raw.modalities) == ["visual"] and raw.titles and raw.log.rows_read == 99
    assert said[-3].startswith("not read: ") or any(text.startswith("not read: ") for text in said)
    assert all(f"{name} ({kind})" in "\n".join(said) for name in names)


def replaced(folder: Path, kind: str) -> Iterator[Path]:
    """Every file of a folder in turn, exchanged for something that is no file, and put back."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        content, mode = file.read_bytes(), file.stat().st_mode
        file.unlink()
        SPECIAL[kind](file)
        yield file
        if not file.is_file() or file.is_symlink():
            file.unlink(missing_ok=True)
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)
            file.chmod(mode)


@pytest.mark.parametrize("kind", LOOK_ALIKES)
def test_no_file_of_a_data_or_run_folder_is_waited_for(
    world: trial.World, tmp_path: Path, kind: str
) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(world.data, data)
    shutil.copytree(world.run, run)
    new = tmp_path / "new.csv"
    new.write_text("user,item\nnewbie,v1\nu1,v13\n")
    for folder in (data, run):
        for file in replaced(folder, kind):
            for words in (
                ["eval", "--topk", 3, "--bootstrap", 0],
                ["recommend", "--history", "v1,v2", "--k", 3],
                [
                    "update",
                    "--input",
                    new,
                    "--new-data",
                    tmp_path / "d2",
                    "--new-run",
                    tmp_path / "r2",
                    "--force",
                ],
            ):
                device = [] if words[0] == "update" else ["--gpu", -1]
                done = trial.call(*words, "--run", run, "--data", data, *device, limit=LIMIT)
                assert trial.fault(done) == "", (file.name, words, done)
                needed = (
                    file.name in ("dataset.json", "run.json", "tables.safetensors")
                    or file.parent == data
                )
                assert done.code == 1 or not needed or file.name == "report.json", (
                    file.name,
                    words,
                    done,
                )


@pytest.mark.parametrize("kind", LOOK_ALIKES)
def test_no_checkpoint_is_waited_for(world: trial.World, tmp_path: Path, kind: str) -> None:
    run = tmp_path / "run"
    train = [
        "train",
        "--data",
        world.data,
        "--run",
        run,
        "--model",
        "bprmf",
        "--gpu",
        -1,
        "--set",
        "width=3",
    ]
    assert (
        trial.call(*train, "--epochs", 2, "--checkpoint-every", 1, "--keep-checkpoints").code == 0
    )
    kept = tmp_path / "kept"
    shutil.copytree(tmp_path / "run.training", kept)
    for name in sorted(path.name for path in kept.iterdir() if path.name != "lock"):
        shutil.rmtree(tmp_path / "run.training")
        shutil.copytree(kept, tmp_path / "run.training")
        (tmp_path / "run.training" / name).unlink()
        SPECIAL[kind](tmp_path / "run.training" / name)
        done = trial.call(*train, "--epochs", 3, "--resume", "--keep-checkpoints", limit=LIMIT)
        assert trial.fault(done) == "", (name, done)


@pytest.mark.parametrize("kind", LOOK_ALIKES)
def test_no_file_of_a_study_is_waited_for(world: trial.World, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("optuna")
    study = tmp_path / "study"
    words = [
        "tune",
        "--data",
        world.data,
        "--study",
        study,
        "--model",
        "bprmf",
        "--gpu",
        -1,
        "--set",
        "epochs=1",
    ]
    assert trial.call(*words, "--trials", 1, limit=120).code == 0
    for file in replaced(study, kind):
        done = trial.call(*words, "--trials", 2, limit=120)
        assert trial.fault(done) == "", (file.name, done)


@pytest.mark.parametrize("kind", LOOK_ALIKES)
def test_no_file_of_an_experiment_is_waited_for(
    world: trial.World, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "out"
    words = [
        "robustness",
        "--data",
        world.data,
        "--out",
        out,
        "--models",
        "vbpr",
        "--rates",
        "0,.5",
        "--strategies",
        "mask",
    ]
    words += ["--seeds", 1, "--epochs", 1, "--gpu", -1]
    assert trial.call(*words, limit=120).code == 0
    for file in replaced(out, kind):
        done = trial.call(*words, limit=120)
        assert trial.fault(done) == "", (file, done)


# --- the one place ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_a_file_exchanged_in_between_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The check before the opening sees the old file, the one after it the new one."""
    ALL[kind](tmp_path / "x")
    monkeypatch.setattr(inputs, "refuse_special", lambda path, what: None)
    with trial.time_limit(5.0), pytest.raises((RunError, OSError)) as caught:
        open_regular(tmp_path / "x", RunError)
    assert isinstance(caught.value, RunError) or caught.value.errno in (
        errno.ENXIO,
        errno.ELOOP,
        errno.ENOENT,
    )


def test_files_open_and_the_rest_fails_as_it_does_everywhere(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("x")
    with open_regular(tmp_path / "link") as handle:
        assert handle.read() == b"abc" and handle.fileno() > 2
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "y")
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
    for _ in range(5):
        with pytest.raises(IsADirectoryError):
            open_regular(tmp_path)
    assert not before or len(os.listdir("/proc/self/fd")) == before  # no descriptor is left open


def test_a_file_that_has_nothing_to_say_yet_is_an_error(tmp_path: Path) -> None:
    """Such files of the kernel count as regular; an empty answer would be taken for their end."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with inputs._File(reading) as file, pytest.raises(BlockingIOError):
        file.readinto(bytearray(8))
    os.close(writing)


# --- names that are not UTF-8 -------------------------------------------------------------------


def odd(folder: Path, name: str) -> Path:
    """`name` with a byte in it that is not UTF-8, before its suffixes."""
    stem, dot, rest = name.partition(".")
    path = Path(os.fsdecode(os.fsencode(folder / stem) + b"\xff" + os.fsencode(dot + rest)))
    try:
        path.touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    return path


@pytest.mark.parametrize("name", [*trial.logs(), "log.csv.gz"])
def test_logs_with_odd_names_are_read(tmp_path: Path, name: str) -> None:
    content = gzip.compress(trial.logs()["log.csv"]) if name.endswith("gz") else trial.logs()[name]
    (tmp_path / name).write_bytes(content)
    path = odd(tmp_path, name)
    path.write_bytes(content)
    if name == "train.txt":  # the split is in the name
        path = odd(tmp_path, "x.txt").rename(tmp_path / os.fsdecode(b"\xff.train.txt"))
        path.write_bytes(content)
    assert read(path).log.rows_read == read(tmp_path / name).log.rows_read


@pytest.mark.parametrize("feature", trial.feature_files())
@pytest.mark.parametrize("items", trial.item_files())
def test_features_and_items_with_odd_names_are_read(
    tmp_path: Path, feature: str, items: str
) -> None:
    folder = tmp_path / os.fsdecode(b"f\xe9")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    log, table, array = odd(folder, "log.csv"), odd(folder, items), odd(folder, feature)
    log.write_bytes(trial.logs()["log.csv"])
    table.write_bytes(trial.item_files()[items])
    array.write_bytes(trial.feature_files()[feature])
    raw = read(log, features=[array], items=table)
    assert [len(modality.ids) for modality in raw.modalities.values()] == [trial.ITEMS]


def test_data_and_run_folders_with_odd_names_are_read(world: trial.World, tmp_path: Path) -> None:
    data, run = (
        Path(os.fsdecode(os.fsencode(tmp_path / name) + b"\xff")) for name in ("data", "run")
    )
    try:
        shutil.copytree(world.data, data)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    shutil.copytree(world.run, run)
    dataset, loaded = datasets.load(data), checkpoint.load_run(run)
    checkpoint.restore(loaded, dataset)
    table = pq.read_table(world.data / "users.parquet")
    assert dataset.user_ids.tolist() == table["id"].to_pylist()


def test_odd_names_go_the_whole_way(world: trial.World, tmp_path: Path) -> None:
    """From the log's name in dataset.json to a run on a data folder with such a name."""
    log = odd(tmp_path, "log.csv")
    log.write_bytes(trial.logs()["log.csv"])
    data, run = (tmp_path / os.fsdecode(name.encode() + b"\xff") for name in ("data", "run"))
    where = ("--run", run, "--data", data, "--gpu", -1)
    for words in (
        (
            "preprocess",
            "--input",
            log,
            "--features",
            world.folder / "acoustic.csv",
            "--data",
            tmp_path / "plain",
        ),
        ("train", "--model", "bprmf", "--epochs", 1, "--set", "width=3", *where),
        ("eval", "--topk", 3, "--bootstrap", 0, *where),
        ("eval", "--topk", 3, "--bootstrap", 0, "--run", run, "--gpu", -1),
        ("recommend", "--history", "v1,v2", *where),
        ("recommend", "--histories", log, *where),
    ):
        done = trial.call(*words)
        assert trial.fault(done) == "" and done.code == 0, (words, done)
        if words[0] == "preprocess":
            shutil.copytree(tmp_path / "plain", data)
