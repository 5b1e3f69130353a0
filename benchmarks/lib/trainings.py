"""Trainings of one table: each is made once and found again by its content.

A training is named by the data's hash, the model, its configuration, the seed and the training
options. It is looked up in the table's Parquet file under results/ and then in the working cache.
If neither has it, it is made in a process of its own, so that its peak memory can be measured. New
trainings go to the cache at once and into the Parquet file when their row is ready, so a run can be
stopped at any time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.lib.machine import machine
from benchmarks.lib.packed import Packed, Training
from benchmarks.lib.paths import METRIC, REPOSITORY, RESULTS

if TYPE_CHECKING:
    from dualgnn_dgl.experiments.ledger import Ledger

KS = (10, 20)


class Trainings:
    """Trainings of one table.

    Args:
        table: Name of the table; its trainings are in `TABLE.parquet` below `results`.
        cache: Working cache.
        threads: Threads of a new training.
        refill: Whether to repeat tests whose users' hits were not kept.
        quick: Whether this run only shows that a script works: its trainings stay separate and are
            not packed.
        results: Folder of the Parquet file.
    """

    def __init__(
        self,
        table: str,
        cache: Path,
        *,
        threads: int = 1,
        refill: bool = False,
        quick: bool = False,
        results: Path = RESULTS,
    ) -> None:
        self.file = results / f"{table}.parquet"
        self.folder = cache / "trainings" / ("quick" if quick else table)
        self.ledger = _ledger(self.folder)
        self.threads, self.refill, self.quick = threads, refill, quick
        self.packed = Packed() if quick else Packed.read(self.file)
        self.changed: dict[str, Training] = {}

    def run(
        self,
        data: str,
        folder: Path,
        model: str,
        config: dict,
        seed: int,
        train: dict,
        *,
        mask: str | None,
    ) -> Training:
        """Returns one training, and makes it if it is not kept.

        Args:
            data: Name of the data set, the first part of the training's name.
            folder: Prepared data.
            model: Name of the model.
            config: Options of the model, and of training where they belong to this configuration.
            seed: Seed of the training.
            train: Training options that all configurations share.
            mask: Pairs left out of the ranking at test, `train` or `all`; None uses validation
                only.

        Returns:
            The training with its `name`.
        """
        from dualgnn_dgl.core.files import read_json

        content = {
            "data": read_json(folder / "dataset.json")["hash"],
            "model": model,
            "config": config,
            "seed": seed,
        }
        content |= {"train": train, "test": mask is not None}
        name = name_of(data, content)
        kept = self.find(name)
        if kept is None or (self.refill and mask is not None and "hits" not in kept):
            kept = self.keep(name, self.make(name, content, folder, mask), kept)
        return kept | {"name": name}

    def find(self, name: str) -> Training | None:
        """Returns a kept training, or None.

        A training that only the Parquet file has is copied to the cache.
        """
        if name in self.changed:
            return self.changed[name]
        if name in self.packed:
            kept = self.packed[name]
            if name not in self.ledger:
                self.ledger.keep(name, as_json(kept))
            return kept
        found = self.ledger.find(name)
        if found is not None:
            self.changed[name] = found
        return found

    def make(self, name: str, content: dict, folder: Path, mask: str | None) -> Training:
        """Trains in a process of its own."""
        spec = content | {"folder": str(folder), "mask": mask, "threads": self.threads}
        command = [sys.executable, "-m", "benchmarks.lib.train_one", json.dumps(spec)]
        environment = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=REPOSITORY
        )
        if done.returncode:
            raise SystemExit(f"{name} failed: {done.stderr.strip().splitlines()[-1:]}")
        made = (
            content | json.loads(done.stdout.splitlines()[-1]) | {"machine": machine(self.threads)}
        )
        figures = made["test"] or {"valid": made["valid"]}
        shown = " ".join(
            f"{key} {value:.4f}"
            for key, value in figures.items()
            if key in ("valid", METRIC, "ndcg@20")
        )
        config, seed = content["config"], content["seed"]
        text = (
            f"{name} seed {seed} {config}: {shown}, epoch {made['best_epoch']}, {made['epoch_s']} "
            f"s/epoch"
        )
        print(text, file=sys.stderr)
        return made

    def keep(self, name: str, made: Training, before: Training | None) -> Training:
        """Writes a new training to the cache.

        Args:
            name: Name of the training.
            made: New training.
            before: The same training, kept without its users' hits. If its results repeat, its
                times stay.
        """
        if before is not None and before["test"] == made["test"]:
            made = before | {key: made[key] for key in ("hits", "held_out")}
        self.ledger.keep(name, as_json(made))
        self.changed[name] = made
        return made

    @contextmanager
    def packed_under_lock(self) -> Iterator[None]:
        """Adds new trainings to the Parquet file, and locks its folder until the block ends.

        Both files of a table are read again under the lock, so that two concurrent runs lose
        nothing.
        """
        from dualgnn_dgl.core.locks import exchanging

        with exchanging(self.file.parent):
            before = Packed.read(self.file)
            self.packed = before.with_trainings(self.changed)
            if self.changed:
                self.packed.write(self.file)
            self.changed = {}
            yield


def _ledger(folder: Path) -> Ledger[str]:
    """Returns the working cache; the library is imported late, so that `--help` answers quickly."""
    from dualgnn_dgl.experiments.ledger import Ledger

    return Ledger(folder, str)


def name_of(data: str, content: dict) -> str:
    """Returns the name of a training: data set, model and a digest of its inputs.

    Args:
        data: Name of the data set.
        content: The fields `data`, `model`, `config`, `seed`, `train` and `test`, of which `test`
            counts as true or false.
    """
    from dualgnn_dgl.core.files import json_digest

    fields = {key: content[key] for key in ("data", "model", "config", "seed", "train")} | {
        "test": bool(content["test"])
    }
    return f"{data}-{content['model']}-{json_digest(fields)[:16]}"


def as_json(training: Training) -> Training:
    """Returns a training whose arrays are lists."""
    return {
        key: value.tolist() if isinstance(value, np.ndarray) else value
        for key, value in training.items()
    }


def metrics_of(training: Training) -> dict[str, np.ndarray]:
    """Computes every metric of every test user (B,) from a training's hits.

    Bit j of a user's `hits` says whether place j + 1 of the list is a hit; `held_out` is the number
    of held-out items.
    """
    from dualgnn_dgl.evaluation import metrics_per_user

    bits = np.asarray(training["hits"], np.int32)
    places = (bits[:, None] >> np.arange(max(KS), dtype=np.int32)) & 1  # (B, K)
    return metrics_per_user(places.astype(bool), np.asarray(training["held_out"], np.int32), KS)
