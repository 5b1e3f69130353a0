"""Logs that come through a pipe: standard input, a shell's process substitution, redirected
files.
"""

from __future__ import annotations

import bz2
import gzip
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import trial

from dualgnn_dgl.errors import DataError
from dualgnn_dgl.readers import pipe
from dualgnn_dgl.readers.reader import read

LIMIT = 30.0  # seconds for one reading

TEXT = trial.lines(",", "user_id item_id rating timestamp")
ZSTD = pa.compress(TEXT, codec="zstd", asbytes=True)
CONTENTS = {
    "text": TEXT,
    "gzip": gzip.compress(TEXT),
    "bzip2": bz2.compress(TEXT),
    "Zstandard": ZSTD,
    "Parquet": trial.logs()["log.parquet"],
    "RecBole": trial.logs()["ml.inter"],
}


def piped(content: bytes, size: int = 1 << 16) -> int:
    """The reading end of a pipe into which a thread writes."""
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb", buffering=0) as file:
            for start in range(0, len(content), size):
                file.write(content[start : start + size])

    threading.Thread(target=write, daemon=True).start()
    return reading


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("size", [3, 1 << 16])
def test_a_log_through_a_pipe_equals_its_file(tmp_path: Path, kind: str, size: int) -> None:
    suffix = {
        "gzip": ".csv.gz",
        "bzip2": ".csv.bz2",
        "Zstandard": ".csv.zst",
        "Parquet": ".parquet",
        "RecBole": ".inter",
    }
    path = tmp_path / f"log{suffix.get(kind, '.csv')}"
    path.write_bytes(CONTENTS[kind])
    expected, reading = read(path).log, piped(CONTENTS[kind], size)
    with trial.time_limit(LIMIT):
        found = read(f"/dev/fd/{reading}").log
    os.close(reading)
    for name in ("user", "item", "rating", "time", "user_ids", "item_ids"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.files == (f"/dev/fd/{reading}",)


def test_a_log_larger_than_the_pipe_and_an_endless_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"user,item\n" + b"".join(b"%d,%d\n" % (n % 97, n % 89) for n in range(50_000))
    reading = piped(content)
    assert read(f"/dev/fd/{reading}").log.rows_read == 50_000
    monkeypatch.setattr(pipe, "MOST", 100_000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    reading = piped(content)
    with pytest.raises(
        DataError, match=r"/dev/fd/\d+ gives more than 100,000 bytes: write it to a file"
    ):
        read(f"/dev/fd/{reading}")
    assert not list(tmp_path.iterdir())


def test_messages_name_the_pipe_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    contents = {
        b"": "is empty",
        b"user,item\n": "holds no rows",
        b"\x80\x04.": "is a pickle",
        b"PK\x03\x04": "is an archive",
    }
    for content, said in contents.items():
        reading = piped(content)
        with pytest.raises(DataError, match=rf"^/dev/fd/{reading} {said}"):
            read(f"/dev/fd/{reading}")
        os.close(reading)
    assert not list(tmp_path.iterdir())


def test_a_pipe_that_does_not_wait_and_a_socket() -> None:
    reading = piped(TEXT, 5)
    os.set_blocking(reading, False)
    assert read(f"/dev/fd/{reading}").log.rows_read == 99
    ours, theirs = socket.socketpair()
    theirs.sendall(TEXT)
    theirs.close()
    assert read(f"/dev/fd/{ours.fileno()}").log.rows_read == 99


def test_a_file_behind_a_descriptor_is_read_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "ratings.dat"  # a format that only its suffix tells
    path.write_bytes(trial.logs()["ratings.dat"])
    with path.open("rb") as file:
        log = read(f"/dev/fd/{file.fileno()}").log
        assert log.kind == "MovieLens without a header" and log.files == (str(path.resolve()),)
    folder = os.open(tmp_path, os.O_RDONLY)
    assert read(f"/dev/fd/{folder}").log.rows_read == 99
    os.close(folder)
    # without a name, as a here-document is; a line has been read already
    with tempfile.TemporaryFile() as file:
        file.write(b"a line that somebody has read\n" + TEXT)
        file.flush()
        os.lseek(file.fileno(), 30, os.SEEK_SET)
        assert read(f"/dev/fd/{file.fileno()}").log.rows_read == 99


def test_a_descriptor_that_is_not_open_and_a_device() -> None:
    with pytest.raises(DataError, match="/dev/fd/987 does not exist"):
        read("/dev/fd/987")
    with (
        open("/dev/zero", "rb") as zero,
        pytest.raises(DataError, match=r"/dev/fd/\d+ is a character device"),
    ):
        read(f"/dev/fd/{zero.fileno()}")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> trial.World:
    return trial.world(tmp_path_factory.mktemp("world"))


def shell(line: str, folder: Path, **more: object) -> subprocess.CompletedProcess[str]:
    line = f"exec 2>&1; dualgnn() {{ '{sys.executable}' -m dualgnn_dgl.cli.main \"$@\"; }}; {line}"
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, capture_output=True, text=True, timeout=120, **more
    )


@pytest.mark.slow
def test_standard_input_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(TEXT)
    command = "dualgnn preprocess --check --k-core 0 --input"
    for line in (
        f"cat log.csv | {command} /dev/stdin",
        f"gzip -c log.csv | {command} -",
        f"{command} /dev/stdin < log.csv",
        f"{command} <(cat log.csv)",
    ):
        assert "99 rows read" in shell(line, tmp_path).stdout, line
    for line, said in (
        (f"{command} /dev/stdin <&-", "standard input is closed"),
        (f"cat log.csv | {command} log.csv --items /dev/stdin", "/dev/stdin is a pipe"),
        ("cat log.csv | dualgnn train --config /dev/stdin --print-config", "/dev/stdin is a pipe"),
    ):
        done = shell(line, tmp_path)
        assert done.returncode == 1 and said in done.stdout.strip().split("\n")[-1], done


@pytest.mark.slow
def test_other_verbs_read_a_log_from_a_pipe(world: trial.World, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item\nnewbie,v1\nnewbie,v2\nu1,v13\nu1,v0\n")
    where = f"--run '{world.run}' --data '{world.data}'"
    done = shell(
        f"cat log.csv | dualgnn recommend {where} --gpu -1 --histories /dev/stdin --json", tmp_path
    )
    assert done.returncode == 0 and '"newbie"' in done.stdout, done
    done = shell(
        f"cat log.csv | dualgnn update {where} --input /dev/stdin --new-run r --new-data d",
        tmp_path,
    )
    assert done.returncode == 0 and (tmp_path / "r" / "run.json").is_file(), done


def test_a_terminal_is_not_waited_for(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    words = [
        sys.executable,
        "-m",
        "dualgnn_dgl.cli.main",
        "preprocess",
        "--check",
        "--input",
        "/dev/stdin",
    ]
    done = subprocess.run(words, stdin=theirs, capture_output=True, text=True, timeout=60)
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 1 and "is a terminal: pipe a log in" in done.stderr


def test_a_killed_command_leaves_nothing_of_a_pipe_behind(tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "dualgnn_dgl.cli.main",
        "preprocess",
        "--check",
        "--input",
        "/dev/stdin",
    ]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        assert process.stdin is not None
        process.stdin.write(TEXT * 50)
        process.stdin.flush()
        for _ in range(600):
            if list(tmp_path.iterdir()):
                break
            signal.sigtimedwait([], 0.1)
        process.send_signal(signal.SIGKILL)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]
