"""Keeps the results of many trainings, so that each is made once and found again.

A ledger is a folder with one JSON file for each result. A file is written whole or not at all. An
experiment may therefore be stopped at any time, and the next process continues with the results
that are missing.

The robustness experiment and the benchmarks use it. A search keeps its trials in Optuna's journal
instead (`experiments.tuning`), because each proposal depends on all trials before it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from dualgnn_dgl.core.files import json_digest, read_json, write_json
from dualgnn_dgl.core.schema import Schema, check
from dualgnn_dgl.errors import DataError, RunError

Key = TypeVar("Key")
Result = dict[str, Any]
Report = Callable[[int, int, Key, Mapping[str, Any]], None]
DAMAGED = (OSError, RunError, DataError)
_log = logging.getLogger("dualgnn_dgl")


class Ledger(Generic[Key]):
    """Results by key, each in a JSON file of its own.

    Args:
        folder: folder of the files; it is made with the first one.
        name: returns the file name of a key, without its extension.
        schema: schema of a result; with it, a file also has the SHA-256 of its content.
        valid: returns whether a result is that of the key, or raises an error of `DAMAGED`; None
            accepts every result.
        remake: makes a damaged result again, with a warning. Otherwise it is an error.
    """

    def __init__(
        self,
        folder: Path,
        name: Callable[[Key], str],
        *,
        schema: Schema | None = None,
        valid: Callable[[Key, Result], bool] | None = None,
        remake: bool = False,
    ) -> None:
        self.folder, self.schema = folder, schema
        self._name, self._valid, self._remake = name, valid, remake

    def file(self, key: Key) -> Path:
        """Returns the file of a key."""
        return self.folder / f"{self._name(key)}.json"

    def __contains__(self, key: Key) -> bool:
        return self.file(key).is_file()

    def find(self, key: Key) -> Result | None:
        """Returns the kept result of a key; None where it has to be made.

        Raises:
            RunError, DataError, OSError: if it is damaged, unless `remake` is set.
        """
        if key not in self:
            return None
        file = self.file(key)
        try:
            found = read_json(file) if self.schema is None else read_sealed(file, self.schema)
            return found if self._valid is None or self._valid(key, found) else None
        except DAMAGED as error:
            if not self._remake:
                raise
            reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
            _log.warning("%s: this result is computed again", reason)
            return None

    def keep(self, key: Key, result: Mapping[str, Any]) -> None:
        """Writes the result of a key, whole or not at all."""
        (write_json if self.schema is None else write_sealed)(self.file(key), result)

    def run(
        self,
        keys: Sequence[Key],
        make: Callable[[Key], Result],
        *,
        seconds: float = float("inf"),
        report: Report[Key] | None = None,
    ) -> int:
        """Makes and keeps the results that are missing, in the order of their keys.

        Args:
            keys: all keys, each once.
            make: returns the result of a key.
            seconds: time after which no result is begun.
            report: called after every result with (done, total, key, result).

        Returns:
            The number of results that are still missing.
        """
        started = time.perf_counter()
        missing = [key for key in keys if self.find(key) is None]
        before = len(keys) - len(missing)
        for done, key in enumerate(missing):
            if time.perf_counter() - started >= seconds:
                return len(missing) - done
            result = make(key)
            self.keep(key, result)
            if report is not None:
                report(before + done + 1, len(keys), key, result)
        return 0


def write_sealed(file: Path, value: Mapping[str, Any]) -> None:
    """Writes JSON with the SHA-256 of its content under `self`."""
    write_json(file, {**value, "self": json_digest(value)})


def read_sealed(file: Path, schema: Schema) -> Result:
    """Reads a file of `write_sealed`.

    Raises:
        RunError: if the file was altered or does not fit the schema.
    """
    value = read_json(file, RunError)
    if value.pop("self", None) != json_digest(value):
        raise RunError(f"{file} is not what was written there (cut short or altered)")
    check(schema, value, file, RunError, "damaged or edited")
    return value
