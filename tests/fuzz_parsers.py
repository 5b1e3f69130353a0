"""Fuzzes the parsers with Atheris, guided by coverage.

See `make fuzz`, or `python tests/fuzz_parsers.py --help`.

Atheris watches which lines of this package an input reaches and derives inputs that reach more. An
input may be read or refused with one of the library's own errors. Anything else ends the run and
leaves the input in the folder `crashes`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from figures import record


def parsers(world: Any, folder: Path) -> list[tuple[str, bytes, Callable[[Path], Any]]]:
    """Returns (file name, a valid file, its reader) of every parser.

    The imports are here, where `main` has them instrumented.
    """
    import trial

    from dualgnn_dgl import data
    from dualgnn_dgl.core import arrays, options
    from dualgnn_dgl.readers.reader import read
    from dualgnn_dgl.runs import checkpoint
    from dualgnn_dgl.training import TrainConfig

    def features(path: Path) -> Any:
        return read(world.folder / "log.csv", features=[path], items=world.folder / "items.csv")

    def items(path: Path) -> Any:
        return read(world.folder / "log.csv", items=path)

    def manifest(path: Path) -> Any:
        for file in world.data.iterdir():
            if file.name != path.name and not (folder / file.name).exists():
                (folder / file.name).symlink_to(file)
        return data.load(folder)

    def run(path: Path) -> Any:
        for file in world.run.iterdir():
            if file.name != path.name and not (folder / file.name).exists():
                (folder / file.name).symlink_to(file)
        return checkpoint.load_run(folder)

    def config(path: Path) -> Any:
        return options.build(TrainConfig, options.read_toml(path).get("train", {}))

    logs = [(name, content, read) for name, content in trial.logs().items()]
    return [
        *logs,
        *((name, content, features) for name, content in trial.feature_files().items()),
        *((name, content, items) for name, content in trial.item_files().items()),
        ("array.npy", trial.feature_files()["visual.npy"], arrays.load_array),
        ("dataset.json", (world.data / "dataset.json").read_bytes(), manifest),
        (
            "modality.visual.components.npy",
            (world.data / "modality.visual.components.npy").read_bytes(),
            manifest,
        ),
        ("train.parquet", (world.data / "train.parquet").read_bytes(), manifest),
        ("run.json", (world.run / "run.json").read_bytes(), run),
        (
            "tables.safetensors",
            (world.run / "tables.safetensors").read_bytes(),
            lambda path: checkpoint.read_tensors(path),
        ),
        ("run.toml", world.config.read_bytes(), config),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Fuzz every parser for a while; the last line of the output is JSON."
    )
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument(
        "--corpus", type=Path, help="folder of inputs, read and added to; the valid files otherwise"
    )
    parser.add_argument("--crashes", type=Path, default=Path("build/crashes"))
    choice = parser.parse_args()
    logging.disable(logging.CRITICAL)
    import atheris

    with atheris.instrument_imports(include=["dualgnn_dgl"], enable_loader_override=False):
        import trial

        from dualgnn_dgl.errors import DualGNNError
    root = Path(tempfile.mkdtemp())
    world, folder = trial.world(root), root / "case"
    folder.mkdir()
    table = parsers(world, folder)
    corpus = choice.corpus or root / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    choice.crashes.mkdir(parents=True, exist_ok=True)
    for number, (name, content, _) in enumerate(table):
        (corpus / f"valid_{number}_{name}").write_bytes(bytes([number]) + content)
    counts: Counter[str] = Counter()
    started = time.monotonic()

    def report() -> None:
        found = {
            "inputs": counts.total() - counts["read"],
            "accepted": counts["read"],
            "seconds": round(time.monotonic() - started),
            "corpus": len(list(corpus.iterdir())),
            "faults": 0,
        }
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
        record("fuzz", found)

    def one_input(raw: bytes) -> None:
        """Chooses the parser by the first byte; the rest is the file."""
        if not raw:
            return
        name, _, parse = table[raw[0] % len(table)]
        counts[name] += 1
        for file in folder.iterdir():
            file.unlink()
        (folder / name).write_bytes(raw[1:])
        try:
            parse(folder / name)
            counts["read"] += 1
        except DualGNNError as error:
            assert "\n" not in str(error).strip() and len(str(error)) > 15, (
                f"no clear line: {error!r}"
            )
        if time.monotonic() - started > choice.seconds:
            report()
            os._exit(0)  # libFuzzer would go on

    words = [
        sys.argv[0],
        f"-max_total_time={choice.seconds + 60}",
        f"-artifact_prefix={choice.crashes}/",
        "-max_len=6000",
        "-timeout=20",
    ]
    atheris.Setup([*words, "-rss_limit_mb=6000", str(corpus)], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
