"""Checks a study's journal.jsonl before Optuna replays it.

It checks types, ranges and references of every line that a search writes. Optuna replays a line
without any check: a wrong type is an error somewhere inside it, or a search that continues from
nonsense. `op_code` is the kind of a line; codes that our searches never write are refused.

Source: optuna.storages.journal, versions 4 and 5.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from dualgnn_dgl.core.files import read_json, write_json
from dualgnn_dgl.core.inputs import open_regular
from dualgnn_dgl.core.schema import (
    HEX64,
    METRIC,
    TEXT,
    Mismatch,
    Schema,
    check,
    fail,
    list_of,
    maybe,
    number,
    one_of,
    plain,
    record,
    whole,
)
from dualgnn_dgl.core.strict import parse_json
from dualgnn_dgl.errors import RunError

STUDY_NOTES = {2: "user_attr", 3: "system_attr"}  # written by optuna-dashboard
CREATE_STUDY, CREATE_TRIAL, SET_PARAM, SET_STATE, SET_STEP, SET_USER, SET_SYSTEM = (
    0,
    4,
    5,
    6,
    7,
    8,
    9,
)
RUNNING, COMPLETE, PRUNED, FAIL, WAITING = range(5)  # optuna.trial.TrialState
MAXIMIZE = 2  # optuna.study.StudyDirection

REMEDY = "begin again with --force, or choose another --study"
_DIGEST = record({"bytes": whole(), "sha256": HEX64})

Space = Mapping[str, Sequence[Any]]


def _time(value: Any, place: str) -> None:
    TEXT(value, place)
    try:
        datetime.fromisoformat(value).astimezone()
    except (ValueError, OverflowError, OSError):
        fail(value, place, "a time such as 2026-11-28T09:52:16+00:00")


_ATTRIBUTES: dict[str, Schema] = {
    "state": one_of("complete", "pruned", "failed"),
    "value": maybe(METRIC),
    "epoch": whole(),
    "epochs": whole(),
    "seconds": number(0),
    "error": TEXT,
}


def _lines(space: Space) -> dict[int, Schema]:
    """Returns op code → schema of its lines.

    Optuna ignores keys that it does not know, so later versions may add some.
    """

    def line(optional: Mapping[str, Schema] | None = None, **required: Schema) -> Schema:
        return record({"op_code": whole(), "worker_id": TEXT, **required}, optional, extra=plain)

    fixed = record({}, {name: one_of(*values) for name, values in space.items()})
    created = {
        "state": one_of(WAITING),
        "datetime_complete": _time,
        **dict.fromkeys(("value", "values"), one_of(None)),
        **dict.fromkeys(
            ("distributions", "params", "user_attrs", "intermediate_values"), record({})
        ),
        "system_attrs": record({}, {"fixed_params": fixed}),
    }
    of_study = {
        code: line(None, study_id=one_of(0), **{key: plain}) for code, key in STUDY_NOTES.items()
    }
    return of_study | {
        CREATE_STUDY: line(study_name=TEXT, directions=list_of(one_of(MAXIMIZE), 1, 1)),
        CREATE_TRIAL: line(created, study_id=one_of(0), datetime_start=maybe(_time)),
        SET_PARAM: line(
            trial_id=whole(),
            param_name=one_of(*space),
            param_value_internal=number(0),
            distribution=TEXT,
        ),
        SET_STATE: line(
            dict.fromkeys(("datetime_start", "datetime_complete"), _time),
            trial_id=whole(),
            state=whole(RUNNING, FAIL),
            values=maybe(list_of(METRIC, 1, 1)),
        ),
        SET_STEP: line(trial_id=whole(), step=whole(1), intermediate_value=METRIC),
        SET_USER: line(trial_id=whole(), user_attr=record({}, _ATTRIBUTES)),
        SET_SYSTEM: line(trial_id=whole(), system_attr=plain),
    }


class _Replay:
    """Follows the journal as Optuna would: the trials, their states, parameters and attributes."""

    def __init__(self, study: str, space: Space) -> None:
        self.study, self.space, self.begun = study, space, False
        self.states: list[int] = []
        self.params: list[set[str]] = []
        self.attributes: list[dict[str, Any]] = []

    def line(self, line: Mapping[str, Any]) -> None:
        code = line["op_code"]
        for key in STUDY_NOTES.values():
            if key in line and not (isinstance(line[key], dict) and len(line[key]) == 1):
                raise Mismatch(f"{key} must be an object of one entry")
        if code == CREATE_STUDY:
            if line["study_name"] != self.study:
                raise Mismatch(f"the study is not that of {self.study}")
            self.begun = True  # Every process that opens the study writes this line.
        elif not self.begun:
            raise Mismatch("the study has not begun yet")
        elif code == CREATE_TRIAL:
            self.states.append(line.get("state", RUNNING))
            self.params.append(set())
            self.attributes.append({})
        elif code not in STUDY_NOTES:
            trial = line["trial_id"]
            if trial >= len(self.states) or self.states[trial] in (COMPLETE, PRUNED, FAIL):
                raise Mismatch(
                    f"trial_id is {trial}, expected a trial that was created and has not ended"
                )
            handler: Callable[[int, Mapping[str, Any]], None] | None = {
                SET_PARAM: self._param,
                SET_STATE: self._state,
                SET_USER: self._user,
            }.get(code)
            if handler is not None:
                handler(trial, line)

    def _param(self, trial: int, line: Mapping[str, Any]) -> None:
        name = line["param_name"]
        try:
            distribution = parse_json(line["distribution"])
        except ValueError:
            distribution = None
        expected = {
            "name": "CategoricalDistribution",
            "attributes": {"choices": list(self.space[name])},
        }
        if json.dumps(distribution, sort_keys=True) != json.dumps(expected, sort_keys=True):
            raise Mismatch(f"the distribution of {name} has other choices than study.json")
        index = line["param_value_internal"]
        if index != int(index) or index >= len(self.space[name]):
            raise Mismatch(
                f"param_value_internal is {index}, expected a number of one of "
                f"{len(self.space[name])} choices"
            )
        self.params[trial].add(name)

    def _user(self, trial: int, line: Mapping[str, Any]) -> None:
        self.attributes[trial] |= line["user_attr"]

    def _state(self, trial: int, line: Mapping[str, Any]) -> None:
        state, found = line["state"], self.attributes[trial]
        needed = "datetime_start" if state == RUNNING else "datetime_complete"
        if needed not in line:
            raise Mismatch(f"the key {needed} is lacking")
        if state in (COMPLETE, PRUNED):
            if lacking := _ATTRIBUTES.keys() - found.keys() - {"error"}:
                raise Mismatch(f"trial {trial} ends without {min(lacking)}")
            if self.params[trial] != set(self.space):
                raise Mismatch(f"trial {trial} ends without a value of every searched option")
            complete = state == COMPLETE
            differs = complete != (found["state"] == "complete") or (
                complete and line["values"] != [found["value"]]
            )
            if differs or found["epoch"] > found["epochs"]:
                raise Mismatch(f"trial {trial} does not end as its attributes say")
        elif line["values"] is not None:
            raise Mismatch("values are given for a trial that has not ended")
        self.states[trial] = state


def cut_tail(path: Path) -> None:
    """Cuts off a last line that a crash left half written.

    Optuna would append the next line to it.
    """
    content = _content(path)
    if content and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


def _content(path: Path) -> bytes:
    """Returns the content of the journal; nothing where there is none."""
    if not path.exists():
        return b""
    with open_regular(path, RunError) as handle:
        return handle.read()


def keep_digest(path: Path, kept: Path) -> None:
    """Writes the SHA-256 of the journal, which ends with a finished trial, to the file `kept`."""
    content = _content(path)
    write_json(kept, {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})


def check_digest(path: Path, kept: Path) -> None:
    """Compares the journal with the digest in the file `kept`.

    Lines after that part belong to an interrupted trial. Studies of earlier versions have no such
    file.

    Raises:
        RunError: if the journal was damaged or edited.
    """
    if not kept.exists():
        return
    digest = read_json(kept, RunError, _DIGEST, REMEDY)
    content = _content(path)
    if (
        digest["bytes"] > len(content)
        or hashlib.sha256(content[: digest["bytes"]]).hexdigest() != digest["sha256"]
    ):
        raise RunError(f"{path} is not what was written there (damaged or edited): {REMEDY}")


def check_journal(path: Path, study: str, space: Space) -> None:
    """Checks the journal of the study `study` over `space`.

    Raises:
        RunError: for a line that is not valid; the message names file, line and fault.
    """
    if not path.exists():
        return
    lines, replay = _lines(space), _Replay(study, space)
    with open_regular(path, RunError) as handle:
        for count, content in enumerate(handle, start=1):
            where = f"{path} is damaged, line {count}"
            try:
                line = parse_json(content.decode())
            except ValueError as error:
                raise RunError(
                    f"{where}: not readable JSON ({str(error).splitlines()[0][:120]}): {REMEDY}"
                ) from None
            code = line.get("op_code") if isinstance(line, dict) else None
            schema = lines.get(code) if type(code) is int else None
            if schema is None:
                raise RunError(f"{where}: it has no op_code of a search: {REMEDY}")
            check(schema, line, where, RunError, REMEDY)
            try:
                replay.line(line)
            except Mismatch as error:
                raise RunError(f"{where}: {error}: {REMEDY}") from None
