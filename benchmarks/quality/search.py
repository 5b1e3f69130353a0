"""Configurations that the comparison tries.

They are the defaults, draws from a model's search space, and settings of other tables.
"""

from __future__ import annotations

import random

from benchmarks.lib.tables import file_of, read_rows

# Validations in a row without a better one before training ends, for models that need more than
# --patience. BM3 starts at popularity, falls, and exceeds it only after 15 to 100 epochs (LOG.md).
PATIENCE = {"bm3": 60}

# Further trials with --large, the same for every trained model: the defaults in larger batches, at
# three rates. If --set gives the first trial such batches, two are left. They are not in the SEARCH
# spaces, because a new key there would change every draw, and so the name of every kept trial.
LARGE = tuple({"batch_size": 16384, "lr": rate} for rate in (1e-3, 3e-3, 1e-2))
# One more with --small, if --set gives all others larger batches.
SMALL = ({"batch_size": 2048},)


def draw_configs(
    model: str, trials: int, more: tuple[dict, ...] = (), train: dict | None = None
) -> list[dict]:
    """Draws the configurations of a model, the same on every machine.

    Args:
        model: Name of the model.
        trials: Number of configurations: the defaults, then distinct draws from the model's SEARCH
            space.
        more: Further configurations of a trained model, unless they are equal to one of the others
            in full.
        train: Training options that all trials share.
    """
    from dualgnn_dgl.models import model_class

    space = model_class(model).SEARCH
    configs: list[dict] = [{}]
    draw = random.Random(f"{model} 2026")
    for _ in range(200 * trials):
        config = {key: draw.choice(values) for key, values in space.items()}
        if space and config not in configs and len(configs) < trials:
            configs.append(config)
    known = [in_full(config, train or {}) for config in configs]
    if model_class(model).trainable:
        configs += [config for config in more if in_full(config, train or {}) not in known]
    return configs


def in_full(config: dict, train: dict) -> dict:
    """Returns a configuration with batch size and rate, from `train` or training's defaults."""
    from dualgnn_dgl.training import TrainConfig

    defaults = TrainConfig()
    values = {"batch_size": defaults.batch_size, "lr": defaults.lr} | train | config
    return values | {key: float(values[key]) for key in ("batch_size", "lr")}  # --set gives text


def settled(name: str, model: str) -> tuple[dict, int]:
    """Returns the configuration chosen for another table, and the number of its trials.

    Args:
        name: Data set of the table, or `defaults` for the model's own defaults.
        model: Name of the model.
    """
    from dualgnn_dgl.models import model_class

    if name == "defaults":
        return dict(model_class(model).TRAIN), 1
    table = f"compare-{name}"
    rows = {row["model"]: row for row in read_rows(table)}
    if model not in rows:
        raise SystemExit(
            f"{file_of(table)} has no row of {model}: make it first, compare.py --data {name} "
            f"--models {model}"
        )
    return rows[model]["config"], rows[model]["trials"]
