"""Options of the verbs that train.

The model, and everything that `dualgnn train` and `dualgnn tune` set alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from dualgnn_dgl.errors import unknown
from dualgnn_dgl.modality.imputers import IMPUTERS
from dualgnn_dgl.models import MODELS

# options of training with a name of their own → type
SHORT = {
    "epochs": int,
    "lr": float,
    "batch_size": int,
    "patience": int,
    "seed": int,
    "impute": click.Choice(["none", *IMPUTERS]),
}


class ModelName(click.Choice):  # type: ignore[type-arg]  # generic since click 8.2
    """A key of `MODELS`; an unknown one is answered with the nearest."""

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> str:
        if value not in MODELS:
            raise click.UsageError(unknown("model", value, MODELS), context)
        return str(value)


model_option = click.option(
    "--model", type=ModelName(list(MODELS)), help="Which model.  [default: dualgnn]"
)


def shorthand(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of training that have a name of their own."""
    helps = {
        "epochs": "Epochs at most.",
        "lr": "Adam's learning rate.",
        "batch_size": "Training pairs a batch.",
        "patience": "Stop after this many validations without a better one.",
        "seed": "Seed of everything random.",
        "impute": "Fill missing features for the model; the data folder stays as it is.",
    }
    for name in reversed(SHORT):
        function = click.option(
            f"--{name.replace('_', '-')}", name, type=SHORT[name], help=helps[name]
        )(function)
    exact = "Same seed, same bits: exact on the CPU; on CUDA it says what is not."
    return click.option("--deterministic", is_flag=True, default=None, help=exact)(function)


def given(pairs: tuple[str, ...], short: Mapping[str, Any]) -> dict[str, Any]:
    """Options of model and training as given by `--set`, then by name."""
    from dualgnn_dgl.core.options import parse_pair

    return dict(map(parse_pair, pairs)) | {
        key: value for key, value in short.items() if value is not None
    }
