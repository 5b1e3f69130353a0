"""Writes and reads RUN.training, which a training needs to continue after a crash.

begun.json                      model, options, data and device of the training, and its options
                                for checkpoints
checkpoint-EEEEEE-SSSSSSSSS.safetensors   a training in epoch E after S batches: see
                                          `state.State`
checkpoint-EEEEEE-SSSSSSSSS.json          options, data hash, versions, history; the SHA-256 of
                                          the file above, and its own

The folder is beside RUN, which therefore is always complete or absent, and is removed when the run
is saved. The JSON is written last: a checkpoint without it does not exist. Every file is written
whole: temporary file, fsync, rename.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualgnn_dgl.core import locks
from dualgnn_dgl.core.files import atomic_file, json_digest, read_json, sweep_inside, write_json
from dualgnn_dgl.core.schema import EXTENSION, HEX64, Schema, check, one_of, plain, record, whole
from dualgnn_dgl.errors import RunError
from dualgnn_dgl.runs.tensors import read_tensors, write_tensors
from dualgnn_dgl.training.state import Snapshot

FORMAT = 1
NAME = re.compile(r"checkpoint-\d{6,}-\d{9,}")
BEGUN = "begun.json"
# `about` is checked by resume.py and `training` by state.py, which write them; `self` is removed
# before.
CHECKPOINT_SCHEMA = record(
    {
        "format": one_of(FORMAT),
        "about": record({}, extra=plain),
        "training": record({"epoch": whole(1), "step": whole()}, extra=plain),
        "sha256": HEX64,
    },
    EXTENSION,
)

BEGUN_SCHEMA = record({"format": one_of(FORMAT), "about": record({}, extra=plain)})


def name_of(training: Mapping[str, Any]) -> str:
    """Returns the file name of a checkpoint, without its extension."""
    return f"checkpoint-{training['epoch']:06d}-{training['step']:09d}"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint as read from its files.

    Attributes:
        name: file name without its extension.
        about: options and data that the training was started with.
        snapshot: state of the training.
    """

    name: str
    about: dict[str, Any]
    snapshot: Snapshot


class Checkpoints:
    """The working folder of one run, which is locked inside the `with` block.

    It is a `state.CheckpointHook` for `training.fit`.

    Args:
        run: run folder that the training will write.
        every: number of epochs between two checkpoints.
        minutes: maximum age of the last checkpoint before another is written.
        last: number of checkpoints that are kept.
        leave: also writes a checkpoint at the end, and leaves all of them.
        say: called with one line for the user, about a damaged checkpoint or a full disk.

    Raises:
        RunError: on entering, if another process trains into the same run.
    """

    def __init__(
        self,
        run: str | Path,
        *,
        every: int = 10,
        minutes: float = 5.0,
        last: int = 2,
        leave: bool = False,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.run = Path(run).resolve()
        self.folder = self.run.with_name(f"{self.run.name}.training")
        self.every, self.minutes, self.last, self.leave, self.say = every, minutes, last, leave, say
        # Options and data of the training, which every checkpoint repeats.
        self.about: dict[str, Any] = {}
        self.start: Snapshot | None = None
        self.stop = False
        self._kept = time.monotonic()
        self._held = ExitStack()
        self._begun = False

    def __enter__(self) -> Checkpoints:
        self._held.enter_context(locks.writing(self.run, "choose another --run"))
        whole = set(self.names())
        sweep_inside(self.folder)
        for left in self.folder.glob("checkpoint-*.safetensors"):
            if NAME.fullmatch(left.stem) and left.stem not in whole:
                left.unlink()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            interrupted = kind is not None and not issubclass(kind, Exception)
            if not any(self.names()) and not (self._begun and interrupted):
                (self.folder / BEGUN).unlink(missing_ok=True)
                with suppress(OSError):  # The folder has other files, or was never made.
                    self.folder.rmdir()
        finally:
            self._held.close()

    def begin(self, about: dict[str, Any]) -> None:
        """Writes the options and data of the training.

        It can then continue with the same ones even before its first checkpoint.
        """
        self.about, self._begun = about, True
        info = {"format": FORMAT, "about": about}
        try:
            write_json(self.folder / BEGUN, {**info, "self": json_digest(info)})
        except OSError as error:
            self.say(
                f"{self.folder} cannot be written ({error.strerror}): training continues without "
                f"checkpoints"
            )

    def begun(self) -> dict[str, Any] | None:
        """Returns the options and data of the training; None where they were not written.

        Raises:
            RunError: if the file was damaged or altered.
        """
        path = self.folder / BEGUN
        if not os.path.lexists(path):
            return None
        try:
            return dict(self._checked(path, BEGUN_SCHEMA)["about"])
        except RunError as error:
            raise RunError(f"{error}: begin again with --force") from None

    def due(self, epochs: int | None = None, *, last: bool = False) -> bool:
        """Returns whether a checkpoint is due after a batch, or after `epochs` whole epochs.

        With `last`, before the run is saved, one is due only if `leave` is set.
        """
        if last:
            return self.leave
        often = epochs is not None and epochs % self.every == 0
        return self.stop or often or time.monotonic() - self._kept >= 60 * self.minutes

    def ask(self) -> str:
        """Asks training to end after the current batch, and returns a message about it."""
        self.stop = True
        return "stopping after this batch, then saving the best epoch"

    def keep(self, snapshot: Snapshot) -> None:
        """Writes a checkpoint and removes those that are too old.

        Where it cannot be written, a message says so and training continues.
        """
        name = name_of(snapshot.info)
        try:
            with atomic_file(self.folder / f"{name}.safetensors") as temporary:
                sha256 = write_tensors(temporary, snapshot.tensors)
            info = {
                "format": FORMAT,
                "about": self.about,
                "training": snapshot.info,
                "sha256": sha256,
            }
            write_json(self.folder / f"{name}.json", {**info, "self": json_digest(info)})
            for old in list(self.names())[self.last :]:
                self._remove(old)
        except OSError as error:
            self.say(
                f"no checkpoint could be written to {self.folder} ({error.strerror}): training "
                f"continues without"
            )
            if name not in self.names():  # Tensors without their JSON are useless.
                self._remove(name)
        self._kept = time.monotonic()

    def newest(self) -> Checkpoint | None:
        """Returns the newest valid checkpoint and reports damaged ones to `say`.

        None where there is no checkpoint at all.

        Raises:
            RunError: if there are checkpoints, and none of them is valid.
        """
        names = list(self.names())
        for name in names:
            try:
                return self._read(name)
            except RunError as error:
                self.say(f"{error}: an older checkpoint is tried")
        if names:
            raise RunError(f"no checkpoint in {self.folder} is valid: begin again with --force")
        return None

    def _read(self, name: str) -> Checkpoint:
        path = self.folder / f"{name}.json"
        info = self._checked(path, CHECKPOINT_SCHEMA)
        if name_of(info["training"]) != name:
            raise RunError(
                f"{path}: training.epoch and training.step are those of another checkpoint: "
                f"damaged or edited"
            )
        tensors = read_tensors(self.folder / f"{name}.safetensors", info["sha256"])
        return Checkpoint(name, info["about"], Snapshot(tensors, info["training"], str(path)))

    def _checked(self, path: Path, schema: Schema) -> dict[str, Any]:
        """Reads a JSON file of this folder after a check of its digest."""
        info = read_json(path, RunError)
        if info.pop("self", None) != json_digest(info):
            raise RunError(f"{path} is not what was written there (cut short or altered)")
        if info.get("format") != FORMAT:
            raise RunError(
                f"{path} has format {info.get('format')!s:.40}, this version reads {FORMAT}"
            )
        check(schema, info, path, RunError, "damaged or edited")
        return info

    def clear(self) -> None:
        """Removes all checkpoints."""
        for name in self.names():
            self._remove(name)

    def names(self) -> Iterator[str]:
        """Yields the names of the checkpoints, newest first."""
        found = {
            path.stem for path in self.folder.glob("checkpoint-*.json") if NAME.fullmatch(path.stem)
        }
        yield from sorted(
            found, key=lambda name: [int(part) for part in name.split("-")[1:]], reverse=True
        )

    def _remove(self, name: str) -> None:
        """Deletes the JSON first; an orphaned tensor file is cleaned up later."""
        for ending in ("json", "safetensors"):
            with suppress(FileNotFoundError):
                (self.folder / f"{name}.{ending}").unlink()
