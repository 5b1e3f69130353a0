"""The plan of a search, and study.json, which keeps it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dualgnn_dgl import models
from dualgnn_dgl.core.exchange import recover
from dualgnn_dgl.core.files import json_digest, read_json
from dualgnn_dgl.core.options import Options, build, check_saved, keys
from dualgnn_dgl.core.schema import (
    EXTENSION,
    HEX64,
    NAME,
    SETTINGS,
    VERSIONS,
    check,
    dict_of,
    list_of,
    one_of,
    record,
    scalar,
)
from dualgnn_dgl.errors import RunError
from dualgnn_dgl.training import TrainConfig

MARKER = "study.json"
FORMAT = 1
_FIELDS = {
    "format": one_of(FORMAT),
    "model": one_of(*models.MODELS),
    "config": SETTINGS,
    "train": SETTINGS,
    "data": HEX64,
}
STUDY_SCHEMA = record(
    _FIELDS | {"space": dict_of(NAME, list_of(scalar, 1)), "versions": VERSIONS}, EXTENSION
)


@dataclass(frozen=True)
class Plan:
    """The model, data and values of a search.

    Attributes:
        model: name of the model.
        config: options of the model that the search starts from.
        train: options of training that the search starts from.
        data_hash: hash of the data.
        space: a key of the model's `Config` or of `TrainConfig` → the values to try.
    """

    model: str
    config: Options
    train: TrainConfig
    data_hash: str
    space: dict[str, tuple[Any, ...]]

    def record(self) -> dict[str, Any]:
        """Returns the plan as study.json keeps it."""
        return {
            "format": FORMAT,
            "model": self.model,
            "config": asdict(self.config),  # type: ignore[call-overload]
            "train": asdict(self.train),
            "data": self.data_hash,
            "space": {key: list(values) for key, values in self.space.items()},
        }

    def start(self) -> dict[str, Any]:
        """Returns the values of the searched keys that the search starts from."""
        base = asdict(self.config) | asdict(self.train)  # type: ignore[call-overload]
        return {key: base[key] for key in self.space}

    def resolved(self, params: Mapping[str, Any]) -> tuple[Options, TrainConfig]:
        """Returns model and training configuration with the values `params`."""
        kind = type(self.config)
        values = asdict(self.config)  # type: ignore[call-overload]
        values |= {key: value for key, value in params.items() if key in keys(kind)}
        train = asdict(self.train) | {
            key: value for key, value in params.items() if key in keys(TrainConfig)
        }
        return build(kind, values), build(TrainConfig, train)


def make_plan(
    model: str, config: Options, train: TrainConfig, data_hash: str, fixed: Collection[str] = ()
) -> Plan:
    """Returns a search over the model's `SEARCH` values, without the `fixed` keys.

    The values it starts from are tried as well.
    """
    base = asdict(config) | asdict(train)  # type: ignore[call-overload]
    space = {}
    for key, values in models.model_class(model).SEARCH.items():
        if key not in fixed:
            space[key] = values if base[key] in values else (*values, base[key])
    return Plan(model, config, train, data_hash, space)


def read_plan(folder: str | Path) -> Plan | None:
    """Reads the plan of the study in `folder`; None where there is none.

    Raises:
        RunError: if study.json is damaged or of another format.
    """
    path = Path(folder) / MARKER
    recover(folder)
    if not path.is_file():
        return None
    info, remedy = read_json(path, RunError), "choose another --study"
    if info.pop("self", None) not in (None, json_digest(info)):
        raise RunError(
            f"{path} is not what was written there (damaged or edited): begin again with --force, "
            f"or {remedy}"
        )
    check(STUDY_SCHEMA, info, path, RunError, f"damaged, or written by another version; {remedy}")
    kind = models.model_class(info["model"]).Config
    for owner, values in ((kind, info["config"]), (TrainConfig, info["train"])):
        check_saved(owner, values, path, RunError, remedy)
    config, train = build(kind, info["config"]), build(TrainConfig, info["train"])
    plan = Plan(
        info["model"],
        config,
        train,
        info["data"],
        {key: tuple(values) for key, values in info["space"].items()},
    )
    known = asdict(config) | asdict(train)  # type: ignore[call-overload]
    for key, values in plan.space.items():
        if (
            key not in known
            or len(set(map(repr, values))) != len(values)
            or repr(known[key]) not in map(repr, values)
        ):
            raise RunError(
                f"{path}: space.{key[:80]} does not list values of an option, the present one "
                f"among them: {remedy}"
            )
        for value in values:
            check_saved(
                kind if key in keys(kind) else TrainConfig, {key: value}, path, RunError, remedy
            )
    return plan


def check_same(folder: Path, plan: Plan) -> None:
    """Raises `RunError` unless the study in the folder has the same plan."""
    found, wanted = read_plan(folder), plan.record()
    assert found is not None
    names = {
        "model": "another model",
        "data": "other data",
        "config": "another configuration",
        "train": "other training options",
    }
    names["space"] = "other values to try"
    for key, what in names.items():
        was, now = found.record()[key], wanted[key]
        if was != now:
            shown = f" ({was}, now {now})" if key == "model" else ""
            if isinstance(was, dict):
                shown = "".join(
                    f" ({n}: {was.get(n)}, now {now.get(n)})"
                    for n in {**was, **now}
                    if was.get(n) != now.get(n)
                )
            raise RunError(
                f"{folder} is a study of {what}{shown}: choose another --study, or begin again "
                f"with --force"
            )
