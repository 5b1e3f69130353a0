"""Options of the commands that train: the model, and the training options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from dualgnn_dgl.errors import unknown
from dualgnn_dgl.modality.imputers import IMPUTERS
from dualgnn_dgl.models import MODELS

# Training option with a name of its own → its type.
SHORT = {
    "epochs": int,
    "lr": float,
    "batch_size": int,
    "patience": int,
    "seed": int,
    "impute": click.Choice(["none", *IMPUTERS]),
}


class ModelName(click.Choice):  # type: ignore[type-arg]  # generic since click 8.2
    """A key of `MODELS`; the error for an unknown one names the nearest."""

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> str:
        if value not in MODELS:
            raise click.UsageError(unknown("model", value, MODELS), context)
        return str(value)


model_option = click.option(
    "--model", type=ModelName(list(MODELS)), help="Model to train.  [default: dualgnn]"
)


def shorthand(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the training options that have a name of their own."""
    helps = {
        "epochs": "Maximum number of epochs.",
        "lr": "Learning rate of Adam.",
        "batch_size": "Training pairs per batch.",
        "patience": "Validations without improvement before training stops.",
        "seed": "Seed of all random numbers.",
        "impute": "Imputer of missing features for this model; the data folder stays as it is.",
    }
    for name in reversed(SHORT):
        function = click.option(
            f"--{name.replace('_', '-')}", name, type=SHORT[name], help=helps[name]
        )(function)
    exact = (
        "Repeat runs bit-identically: exact on the CPU; on CUDA it reports operations that are not."
    )
    return click.option("--deterministic", is_flag=True, default=None, help=exact)(function)


def given(pairs: tuple[str, ...], short: Mapping[str, Any]) -> dict[str, Any]:
    """Merges options from `--set` with those given by name, which win."""
    from dualgnn_dgl.core.options import parse_pair

    return dict(map(parse_pair, pairs)) | {
        key: value for key, value in short.items() if value is not None
    }
