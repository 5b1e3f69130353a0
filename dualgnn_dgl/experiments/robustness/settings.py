"""Resolves the settings of the models in a robustness experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dualgnn_dgl.core.options import build, keys
from dualgnn_dgl.errors import ConfigError, unknown
from dualgnn_dgl.models import model_class
from dualgnn_dgl.training import TrainConfig

FIXED = ("seed", "impute")  # options that the experiment itself varies


def settings(
    models: Sequence[str], changes: Mapping[str, Any], **train: Any
) -> dict[str, tuple[Any, Any]]:
    """Returns the `Config` and the `TrainConfig` of each model.

    They are the model's defaults, then `changes`, then `train`.

    Args:
        models: names of `models.MODELS`.
        changes: a key of training for every model, or 'MODEL.KEY' for one of a model's own; values
            may be text.
        train: keys of training for every model; None changes nothing.

    Raises:
        ConfigError: for an unknown model or key, a value outside its range, or a key that the
            experiment itself varies.
    """
    for key, value in changes.items():
        _check(key, f"--set {key}={value}", models)
    return {model: _settings(model, changes, train) for model in models}


def _check(key: str, said: str, models: Sequence[str]) -> None:
    """Raises `ConfigError` unless a key may be changed."""
    owner, dot, rest = key.partition(".")
    if dot and owner not in models:
        raise ConfigError(f"{said}: {unknown('model', owner, models)}")
    if not dot and owner.strip() not in keys(TrainConfig):
        known = unknown("key of training", owner, keys(TrainConfig))
        raise ConfigError(f"{said}: {known}; a model's own: MODEL.{owner}=…")
    if rest.strip() in FIXED or owner.strip() in FIXED:
        raise ConfigError(
            f"{said}: the experiment itself varies seeds and imputation; use --seeds and "
            f"--strategies"
        )


def _settings(model: str, changes: Mapping[str, Any], train: Mapping[str, Any]) -> tuple[Any, Any]:
    """Returns the configuration of one model and of its training."""
    kind = model_class(model)
    config: dict[str, Any] = {}
    training = dict(kind.TRAIN)
    for name, value in changes.items():
        owner, dot, rest = name.partition(".")
        if dot and owner != model:
            continue
        key = (rest if dot else owner).strip()
        if key in keys(kind.Config) or key in kind.Config.REMOVED:
            config[key] = value
        elif key in keys(TrainConfig):
            training[key] = value
        else:
            raise ConfigError(unknown("key", key, [*keys(kind.Config), *keys(TrainConfig)]))
    training |= {key: value for key, value in train.items() if value is not None}
    return build(kind.Config, config, "[model]"), build(TrainConfig, training, "[train]")
