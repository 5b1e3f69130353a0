"""What a robustness experiment consists of: its cells, and which of them are one and the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from dualgnn_dgl.core.options import build, keys, parse_pair
from dualgnn_dgl.core.vocabulary import PATTERNS, STAGES, strategies
from dualgnn_dgl.data import Dataset
from dualgnn_dgl.errors import ConfigError, unknown
from dualgnn_dgl.modality import IMPUTERS
from dualgnn_dgl.models import model_class

STRATEGIES = strategies(IMPUTERS)
NO_HOLES = "none"  # the pattern of a cell without holes
NO_FEATURES = "no features"  # the strategy of a model that reads none
WITHOUT_HOLES: dict[str, Any] = {
    "pattern": NO_HOLES,
    "rate": 0.0,
    "modality": None,
    "stage": STAGES[0],
}
Panel = tuple[str, str | None, tuple[float, ...]]  # pattern, modality, rates


def own_option(strategy: str) -> tuple[str, str] | None:
    """Key and value of a strategy that sets an option of the model; None for the others.

    >>> own_option("mask:missing=mask"), own_option("mask")
    (('missing', 'mask'), None)
    """
    return parse_pair(strategy[5:]) if strategy.startswith("mask:") else None


@dataclass(frozen=True)
class Cell:
    """One training or one test: a model, how it meets the holes, and the holes.

    Parameters
    ----------
    strategy : 'mask' (the model is told what is missing), an imputer (filled, and taken as
        present), or 'drop-items' (items that lack a modality leave the catalogue: their pairs are
        not learnt from, and they are recommended to nobody); and 'mask:KEY=VALUE', the mask with
        another option of the model, such as mask:missing=mask.
    modality : that the holes are in, for the patterns that need one.
    stage : 'train+test' (holes are there from the start), or 'test-only' (trained on everything,
        holes come afterwards).
    seed : of the holes and of the training.
    """

    model: str
    strategy: str
    pattern: str
    rate: float
    stage: str
    seed: int
    modality: str | None = None

    @property
    def holes(self) -> str:
        """The pattern with its modality, as in tables."""
        return self.pattern if self.modality is None else f"{self.pattern}:{self.modality}"

    def __str__(self) -> str:
        return (
            f"{self.stage} · {self.holes} {self.rate:.0%} · {self.model} {self.strategy} · seed "
            f"{self.seed}"
        )


@dataclass(frozen=True, eq=False)
class Plan:
    """The experiment.

    Parameters
    ----------
    models : names of `models.MODELS`, the one that others are compared with first.
    settings : for each model its `Config` and the `TrainConfig` (whose seed each cell replaces).

    Raises
    ------
    ConfigError
        for an unknown name, a rate outside 0…1, or a plan without cells.
    """

    models: tuple[str, ...]
    settings: Mapping[str, tuple[Any, Any]]
    rates: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 0.95)
    patterns: tuple[str, ...] = ("random",)
    stages: tuple[str, ...] = ("train+test",)
    strategies: tuple[str, ...] = ("mask", "zero", "mean", "drop-items")
    seeds: int = 5
    ks: tuple[int, ...] = (10, 20)

    def __post_init__(self) -> None:
        for kind, given, known in (
            ("pattern", self.patterns, PATTERNS),
            ("stage", self.stages, STAGES),
            (
                "strategy",
                [name.partition(":")[0] if own_option(name) else name for name in self.strategies],
                STRATEGIES,
            ),
        ):
            for name in given:
                if name not in known:
                    raise ConfigError(unknown(kind, name, known))
        for rate in self.rates:
            if not 0 <= rate <= 1:
                raise ConfigError(
                    f"{rate:g} of the features were to go missing: give shares from 0 to 1, such "
                    f"as 0,.2,.4,.6"
                )
        if self.seeds < 1 or not all(
            (self.models, self.rates, self.patterns, self.stages, self.strategies)
        ):
            raise ConfigError(
                "an experiment needs at least one model, rate, pattern, stage, strategy and seed"
            )
        if 0.0 not in self.rates:  # what is kept is measured against it
            object.__setattr__(self, "rates", (0.0, *self.rates))
        object.__setattr__(self, "rates", tuple(sorted(set(self.rates))))
        for row in self.rows():
            # says what is wrong with an option of a strategy
            self.settings_of(Cell(*row, NO_HOLES, 0.0, STAGES[0], 0))
        taken = {strategy for _, strategy in self.rows()}
        for strategy in self.strategies:
            own = own_option(strategy)
            if own is not None and strategy not in taken:
                raise ConfigError(
                    f"strategy {strategy} sets an option '{own[0]}' that no model of "
                    f"{', '.join(self.models)} has"
                )

    def rows(self) -> list[tuple[str, str]]:
        """(model, strategy) of every curve.

        A model that reads no features has one, and options that it has not are left out.
        """
        found = []
        for model in self.models:
            kind = model_class(model)
            for strategy in self.strategies if kind.uses_modalities else (NO_FEATURES,):
                own = own_option(strategy)
                if own is None or own[0] in keys(kind.Config):
                    found.append((model, strategy))
        return found

    def settings_of(self, cell: Cell) -> tuple[Any, Any]:
        """`Config` and `TrainConfig` of a cell, with the option that its strategy sets."""
        config, train = self.settings[cell.model]
        own = own_option(cell.strategy)
        if own is not None:
            config = build(
                model_class(cell.model).Config,
                asdict(config) | {own[0]: own[1]},
                f"strategy {cell.strategy}",
            )
        return config, replace(train, seed=cell.seed)

    def whole(self, cell: Cell) -> Cell:
        """The cell that is trained on everything, for the stage test-only."""
        return replace(
            cell, strategy=cell.strategy if own_option(cell.strategy) else "mask", **WITHOUT_HOLES
        )

    def holes(self, dataset: Dataset) -> list[Panel]:
        """Every panel; a whole modality is there or not."""
        panels: list[Panel] = []
        for pattern in self.patterns:
            if pattern in ("one-modality", "whole-modality"):
                rates = (0.0, 1.0) if pattern == "whole-modality" else self.rates
                panels += [(pattern, name, rates) for name in dataset.modalities]
            else:
                panels.append((pattern, None, self.rates))
        return panels

    def curve(self, dataset: Dataset, row: tuple[str, str], panel: Panel, stage: str) -> list[Cell]:
        """The cells of one curve, for all rates and seeds, as they are to be run.

        Equal ones are one.
        """
        pattern, modality, rates = panel
        return [
            self.same(Cell(*row, pattern, rate, stage, seed, modality), dataset)
            for rate in rates
            for seed in range(self.seeds)
        ]

    def same(self, cell: Cell, dataset: Dataset) -> Cell:
        """The cell that gives this one's result.

        A model without features meets no holes, and without holes all ways are one.
        """
        if not model_class(cell.model).uses_modalities:
            return replace(cell, strategy=NO_FEATURES, **WITHOUT_HOLES)
        if cell.rate == 0:
            cell = replace(cell, pattern=NO_HOLES, modality=None)
            if all(modality.present.all() for modality in dataset.modalities.values()):
                cell = self.whole(cell)
            if cell.strategy.startswith("mask"):
                cell = replace(cell, stage=STAGES[0])
        return cell

    def cells(self, dataset: Dataset) -> list[Cell]:
        """Everything to run, each once: a whole seed before the next, so that one that is stopped
        still has all curves.
        """
        found: dict[Cell, None] = {}
        for row in self.rows():
            for panel in self.holes(dataset):
                for stage in self.stages:
                    found |= dict.fromkeys(self.curve(dataset, row, panel, stage))
        return sorted(found, key=lambda cell: cell.seed)
