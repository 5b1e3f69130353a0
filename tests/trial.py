"""Runs the command line in this process under a time limit, and makes valid files to damage."""

from __future__ import annotations

import contextlib
import io
import json
import re
import signal
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dualgnn_dgl.cli.main import group

LIMIT = 60.0  # seconds; a case takes a tenth of one, but machines can be busy
USERS, ITEMS = 9, 14


@dataclass(frozen=True)
class Outcome:
    """The end of a command; `trace` is the traceback that a user would have seen, or ''."""

    code: int
    out: str
    err: str
    seconds: float
    trace: str = ""


class Hang(BaseException):
    """Says that the time limit was reached.

    It is no Exception, so that nothing catches it on the way.
    """


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises `Hang` in the main thread after a number of seconds."""

    def strike(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def call(*words: object, limit: float = LIMIT) -> Outcome:
    """Runs `dualgnn WORDS`, as the console script would, in this process."""
    out, err, code, trace = io.StringIO(), io.StringIO(), 0, ""
    started = time.perf_counter()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            with time_limit(limit):
                group.main([str(word) for word in words], prog_name="dualgnn")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except Hang:
            code, trace = -1, f"no end within {limit:g} s: {traceback.format_exc()[-1500:]}"
        except BaseException:
            code, trace = -1, traceback.format_exc()[-3000:]
    return Outcome(code, out.getvalue(), err.getvalue(), time.perf_counter() - started, trace)


def fault(outcome: Outcome, *untouched: Path) -> str:
    """Returns the fault in the end of a command, '' without one.

    Valid ends are success, one line that begins with "Error: " and exit 1, or 2 for a usage
    mistake. `untouched` are outputs that must not exist after an error, nor under their temporary
    names.
    """
    if outcome.trace:
        return outcome.trace
    if outcome.code == 0:
        return ""
    lines = outcome.err.rstrip("\n").split("\n")
    errors = [line for line in lines if line.startswith("Error: ")]
    if outcome.code not in (1, 2):
        return f"exit {outcome.code}: {outcome.err[-400:]}"
    if len(errors) != 1 or lines[-1] != errors[0] or len(errors[0]) < 20:
        return f"exit {outcome.code} without one clear last line: {outcome.err[-600:]!r}"
    if len(errors[0]) > 1500:
        return f"a message of {len(errors[0])} characters: {errors[0][:300]}"
    if "Traceback" in outcome.err or re.search(r"\bobject at 0x", outcome.err):
        return f"internals shown: {outcome.err[-600:]}"
    for path in untouched:
        left = [path] if path.exists() else []
        left += (
            [file for file in path.parent.glob(f".{path.name}.*")] if path.parent.is_dir() else []
        )
        if left:
            return f"a partial output is left: {left} after {errors[0]}"
    return ""


# --- a small world ------------------------------------------------------------------------------


def pairs() -> list[tuple[int, int, float, int]]:
    """Returns (user, item, rating, time) of a small log, every user and item five times."""
    rows = [
        (u, (u * 2 + step) % ITEMS, 1 + (u + step) % 5, 1_600_000_000 + 100 * u + step)
        for u in range(USERS)
        for step in range(11)
    ]
    return [(u, i, float(r), t) for u, i, r, t in rows]


def features(width: int = 4) -> np.ndarray:
    """Returns (ITEMS, width) float32 with one missing row."""
    values = np.random.default_rng(3).normal(size=(ITEMS, width)).astype(np.float32)
    values[5] = np.nan
    return values


def lines(separator: str, header: str, named: bool = True) -> bytes:
    """Returns the log as text, users and items by name or by number."""
    user, item = ("user{}", "v{}") if named else ("{}", "{}")
    rows = [
        separator.join((user.format(u), item.format(i), f"{r:g}", str(t))) for u, i, r, t in pairs()
    ]
    return "\n".join([*([separator.join(header.split())] if header else []), *rows, ""]).encode()


def parquet(table: dict[str, Any]) -> bytes:
    """Returns a Parquet file's bytes."""
    buffer = io.BytesIO()
    pq.write_table(pa.table(table), buffer)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    """Returns a .npy file's bytes."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def adjacency(part: int) -> bytes:
    """Returns LightGCN lists: all but the last item of each user to train, the last to test."""
    found: dict[int, list[int]] = {}
    for u, i, _, _ in pairs():
        found.setdefault(u, []).append(i)
    return "".join(
        f"{u} {' '.join(map(str, items[:-1] if part == 0 else items[-1:]))}\n"
        for u, items in found.items()
    ).encode()


def logs() -> dict[str, bytes]:
    """Returns every format of logs, by a file name from which it is recognised."""
    log = pairs()
    columns = [list(column) for column in zip(*log, strict=True)]
    mixed = lines(",", "user_id item_id rating timestamp").decode().split("\n")
    noted = [
        mixed[0] + ",comment",
        *(
            f'{line},"said ""no"", then left"' if n % 3 else f"{line},fine"
            for n, line in enumerate(mixed[1:-1])
        ),
        "",
    ]
    split = [
        f"{u}\t{i}\t{r:g}\t{t}\t{(n % 11) // 9 + (n % 11) // 10}"
        for n, (u, i, r, t) in enumerate(log)
    ]
    return {
        "log.csv": lines(",", "user_id item_id rating timestamp"),
        "noted.csv": "\n".join(noted).encode(),
        "log.tsv": lines("\t", "user item rating date", named=False),
        "semi.csv": lines(";", "userId movieId score ts"),
        "log.parquet": parquet(
            {
                "user_id": [f"u{u}" for u in columns[0]],
                "video_id": columns[1],
                "rating": columns[2],
                "timestamp": columns[3],
            }
        ),
        "ml.inter": lines(
            "\t", "user_id:token item_id:token rating:float timestamp:float", named=False
        ),
        "mm.inter": (
            "userID\titemID\trating\ttimestamp\tx_label\n" + "\n".join(split) + "\n"
        ).encode(),
        "ratings.dat": lines("::", "", named=False),
        "u.data": lines("\t", "", named=False),
        "my_pairs.tsv": "".join(
            f"u{u}\t{' '.join(f'v{i}' for v, i, _, _ in log if v == u)}\n" for u in range(USERS)
        ).encode(),
        "train.txt": adjacency(0),
    }


def feature_files() -> dict[str, bytes]:
    """Returns every kind of feature file, keyed by the ids of `log.csv` (v0 … v13)."""
    values, ids = features(), [f"v{i}" for i in range(ITEMS)]
    rows = [
        ",".join([name, *("" if np.isnan(x) else f"{x:.5f}" for x in row)])
        for name, row in zip(ids, values.tolist(), strict=True)
    ]
    return {
        "visual.npy": npy(values),
        "wide.parquet": parquet(
            {"item_id": ids} | {f"f{c}": values[:, c] for c in range(values.shape[1])}
        ),
        "listed.parquet": parquet(
            {
                "item_id": ids,
                "embedding": [row if n != 5 else None for n, row in enumerate(values.tolist())],
            }
        ),
        "acoustic.csv": "\n".join(["item_id,a,b,c,d", *rows, ""]).encode(),
    }


def item_files() -> dict[str, bytes]:
    """Returns every kind of item table for `log.csv`, in the order of the arrays' rows."""
    ids = [f"v{i}" for i in range(ITEMS)]
    return {
        "items.csv": "\n".join(
            [
                "item_id,title,year",
                *(f'{name},"Clip, no. {n}",20{n:02}' for n, name in enumerate(ids)),
                "",
            ]
        ).encode(),
        "items.txt": "\n".join([*ids, ""]).encode(),
        "movies.dat": "".join(
            f"{name}::Clip {n} (20{n:02})::Comedy|Drama\n" for n, name in enumerate(ids)
        ).encode(),
        "ml.item": (
            "item_id:token\ttitle:token_seq\n"
            + "".join(f"{name}\tClip {n}\n" for n, name in enumerate(ids))
        ).encode(),
        "items.parquet": parquet({"item_id": ids, "title": [f"Clip {n}" for n in range(ITEMS)]}),
    }


OPTIONS = {  # what else a log needs to be read whole
    "train.txt": {"test.txt": adjacency(1)},
}


@dataclass(frozen=True)
class World:
    """Valid files in a folder: a log with features and items, data, a run, a configuration."""

    folder: Path
    data: Path
    run: Path
    config: Path
    metrics: dict[str, Any]  # of the untouched run


def measured(data: Path, run: Path) -> dict[str, Any]:
    """Returns the result of `eval --json` for a run, without the paths of its folders."""
    done = call(
        "eval", "--run", run, "--data", data, "--topk", 3, "--bootstrap", 0, "--gpu", -1, "--json"
    )
    assert done.code == 0, done
    return {key: value for key, value in json.loads(done.out).items() if key not in ("run", "data")}


def world(folder: Path) -> World:
    """Builds the files with the command line."""
    for name, content in (logs() | feature_files() | item_files()).items():
        (folder / name).write_bytes(content)
    data, run, config = folder / "data", folder / "run", folder / "run.toml"
    words = [
        "--features",
        folder / "visual.npy",
        "--features",
        folder / "acoustic.csv",
        "--items",
        folder / "items.csv",
    ]
    for step in (
        ("preprocess", "--input", folder / "log.csv", *words, "--feature-dim", 3, "--data", data),
        (
            "train",
            "--data",
            data,
            "--run",
            run,
            "--model",
            "bprmf",
            "--epochs",
            1,
            "--gpu",
            -1,
            "--set",
            "width=3",
        ),
    ):
        done = call(*step, limit=600)  # imports torch for the first time
        assert done.code == 0, done
    config.write_text(call("train", "--model", "bprmf", "--print-config").out, "utf-8")
    return World(folder, data, run, config, measured(data, run))
