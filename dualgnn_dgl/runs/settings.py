"""Resolves the settings of a training from defaults, a file and single options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from dualgnn_dgl.core.options import Options, build, check_saved, keys, read_toml
from dualgnn_dgl.errors import ConfigError, unknown
from dualgnn_dgl.models import model_class
from dualgnn_dgl.training import TrainConfig

DEFAULT_MODEL = "dualgnn"
SECTIONS = ("name", "model", "train")
RAISED = ("epochs", "patience")  # options that may be raised when a training is resumed
_DIFFER = (
    "--resume continues with the options that the training was begun with ({}): leave them out, "
    "or begin again with --force"
)
Settings = tuple[str, Options, TrainConfig]


def resolve(
    model: str | None = None,
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    base: Mapping[str, Any] | None = None,
) -> Settings:
    """Returns the name, model options and training options of a training.

    They are the model's defaults, then `config`, then `options`.

    Args:
        model: a key of `models.MODELS`; None takes the name in `config`, else dualgnn.
        config: path of a run.toml, or its content as a mapping with `name`, `model` and `train`.
            Its model options are left out if `model` is another one.
        options: options of the model or of training by key; text is converted as on the command
            line.
        base: `model`, `config` and `train` of the training to resume. They then replace the
            defaults, and only more `epochs` and more `patience` are allowed.

    Raises:
        ConfigError: for an unknown model, section or key, a value that is not allowed, or one that
            differs from `base`.
    """
    where = "config" if isinstance(config, Mapping) else str(config)
    read = _sections(config, where)
    name = model or read.get("name", base["model"] if base else DEFAULT_MODEL)
    if not isinstance(name, str):
        raise ConfigError(f'{where}: name must be a text, such as name = "dualgnn"')
    sections: dict[str, dict[str, Any]] = {
        part: dict(read.get(part, {})) for part in ("model", "train")
    }
    if model and model != read.get("name", model):
        sections["model"] = {}
    kind = model_class(name)
    if config is not None:
        for part, owner in (("model", kind.Config), ("train", TrainConfig)):
            check_saved(owner, sections[part], where, ConfigError, "fix it", f"[{part}]")
    if base and name != base["model"]:
        raise ConfigError(_DIFFER.format(f"the model was {base['model']}, now {name}"))
    own = {**(base["config"] if base else {}), **sections["model"]}
    train = {**(base["train"] if base else kind.TRAIN), **sections["train"]}
    _add_options(options or {}, (kind.Config, own), (TrainConfig, train))
    chosen, training = build(kind.Config, own, "[model]"), build(TrainConfig, train, "[train]")
    if base:
        _refuse_differences(base, chosen, training)
    return name, chosen, training


def _add_options(options: Mapping[str, Any], *owners: tuple[type[Options], dict[str, Any]]) -> None:
    """Sets each option in the values of the first owner that has it."""
    for key, value in options.items():
        for owner, values in owners:
            if key in keys(owner) or key in getattr(owner, "REMOVED", {}):
                values[key] = value
                break
        else:
            raise ConfigError(
                unknown("key", key, [name for kind, _ in owners for name in keys(kind)])
            )


def _sections(
    config: str | os.PathLike[str] | Mapping[str, Any] | None, where: str
) -> Mapping[str, Any]:
    """Returns the content of a configuration after a check of its sections."""
    if config is None:
        return {}
    read = config if isinstance(config, Mapping) else read_toml(os.fspath(config))
    for section in read:
        if section not in SECTIONS:
            raise ConfigError(f"{where}: {unknown('section', section, SECTIONS)}")
    for section in ("model", "train"):
        if not isinstance(read.get(section, {}), Mapping):
            raise ConfigError(f"{where}: {section} must be a table, written as [{section}]")
    return read


def _refuse_differences(base: Mapping[str, Any], config: Options, train: TrainConfig) -> None:
    """Raises `ConfigError` with the options that differ from those of the training to resume."""
    differ = []
    for before, now in ((base["config"], config), (base["train"], train)):
        for key, value in asdict(now).items():  # type: ignore[call-overload]
            more = key in RAISED and value > before.get(key, value)
            if value != before.get(key, value) and not more:
                differ.append(f"{key} was {before[key]}, now {value}")
    if differ:
        raise ConfigError(_DIFFER.format("; ".join(differ)))
