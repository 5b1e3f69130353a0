"""The plan of a robustness experiment: its cells, and which of them are the same."""

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
NO_HOLES = "none"  # the pattern of a cell from which no features are removed
NO_FEATURES = "no features"  # the strategy of a model that reads none
WITHOUT_HOLES: dict[str, Any] = {
    "pattern": NO_HOLES,
    "rate": 0.0,
    "modality": None,
    "stage": STAGES[0],
}
Panel = tuple[str, str | None, tuple[float, ...]]  # pattern, modality, rates


def own_option(strategy: str) -> tuple[str, str] | None:
    """Returns key and value of a strategy that sets an option of the model; None for the others.

    >>> own_option("mask:missing=mask"), own_option("mask")
    (('missing', 'mask'), None)
    """
    return parse_pair(strategy[5:]) if strategy.startswith("mask:") else None


@dataclass(frozen=True)
class Cell:
    """One training or one test: a model, a strategy, and the features that are missing.

    Attributes:
        model: name of the model.
        strategy: 'mask' (missing features are masked), an imputer (they are imputed and treated as
            present), 'drop-items' (items that lack a modality leave the catalogue: their pairs are
            not used for training, and they are never recommended), or 'mask:KEY=VALUE' (the mask
            with an option of the model, such as mask:missing=mask).
        pattern: pattern of the missing features.
        rate: share of features that is missing.
        stage: 'train+test' (features are missing from the start), or 'test-only' (the model is
            trained on all features, and they go missing afterwards).
        seed: seed of the pattern and of the training.
        modality: modality that lacks features, for the patterns that need one.
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
        """Returns the pattern with its modality, as in tables."""
        return self.pattern if self.modality is None else f"{self.pattern}:{self.modality}"

    def __str__(self) -> str:
        return (
            f"{self.stage} · {self.holes} {self.rate:.0%} · {self.model} {self.strategy} · seed "
            f"{self.seed}"
        )


@dataclass(frozen=True, eq=False)
class Plan:
    """The experiment.

    Attributes:
        models: names of `models.MODELS`; the others are compared with the first.
        settings: for each model its `Config` and its `TrainConfig`, whose seed each cell replaces.
        rates: shares of features that are removed; 0 is always among them.
        patterns: patterns of the missing features.
        stages: stages at which features are missing.
        strategies: strategies for missing features.
        seeds: number of draws and trainings.
        ks: list lengths.

    Raises:
        ConfigError: for an unknown name, a rate outside 0…1, or a plan without cells.
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
        self._check_names()
        self._check_sizes()
        if 0.0 not in self.rates:  # Retained shares are relative to this rate.
            object.__setattr__(self, "rates", (0.0, *self.rates))
        object.__setattr__(self, "rates", tuple(sorted(set(self.rates))))
        for row in self.rows():
            # This reports an option of a strategy that is not valid.
            self.settings_of(Cell(*row, NO_HOLES, 0.0, STAGES[0], 0))
        used = {strategy for _, strategy in self.rows()}
        for strategy in self.strategies:
            own = own_option(strategy)
            if own is not None and strategy not in used:
                raise ConfigError(
                    f"strategy {strategy} sets an option '{own[0]}' that no model of "
                    f"{', '.join(self.models)} has"
                )

    def _check_names(self) -> None:
        """Raises `ConfigError` for an unknown pattern, stage or strategy."""
        kinds = [name.partition(":")[0] if own_option(name) else name for name in self.strategies]
        for kind, given, known in (
            ("pattern", self.patterns, PATTERNS),
            ("stage", self.stages, STAGES),
            ("strategy", kinds, STRATEGIES),
        ):
            for name in given:
                if name not in known:
                    raise ConfigError(unknown(kind, name, known))

    def _check_sizes(self) -> None:
        """Raises `ConfigError` for a rate outside 0…1, or a plan without cells."""
        for rate in self.rates:
            if not 0 <= rate <= 1:
                raise ConfigError(
                    f"the rate {rate:g} is out of range: give shares from 0 to 1, such as "
                    f"0,.2,.4,.6"
                )
        lists = (self.models, self.rates, self.patterns, self.stages, self.strategies)
        if self.seeds < 1 or not all(lists):
            raise ConfigError(
                "an experiment needs at least one model, rate, pattern, stage, strategy and seed"
            )

    def rows(self) -> list[tuple[str, str]]:
        """Returns (model, strategy) of every curve.

        A model that reads no features has one curve. A strategy that sets an option is left out for
        models without that option.
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
        """Returns `Config` and `TrainConfig` of a cell, with the option that its strategy sets."""
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
        """Returns the cell that is trained on all features, for the stage test-only."""
        return replace(
            cell, strategy=cell.strategy if own_option(cell.strategy) else "mask", **WITHOUT_HOLES
        )

    def holes(self, dataset: Dataset) -> list[Panel]:
        """Returns every panel; a whole modality is present or missing."""
        panels: list[Panel] = []
        for pattern in self.patterns:
            if pattern in ("one-modality", "whole-modality"):
                rates = (0.0, 1.0) if pattern == "whole-modality" else self.rates
                panels += [(pattern, name, rates) for name in dataset.modalities]
            else:
                panels.append((pattern, None, self.rates))
        return panels

    def curve(self, dataset: Dataset, row: tuple[str, str], panel: Panel, stage: str) -> list[Cell]:
        """Returns the cells of one curve, for all rates and seeds.

        Cells with the same result are replaced by one of them.
        """
        pattern, modality, rates = panel
        return [
            self.same(Cell(*row, pattern, rate, stage, seed, modality), dataset)
            for rate in rates
            for seed in range(self.seeds)
        ]

    def same(self, cell: Cell, dataset: Dataset) -> Cell:
        """Returns the cell that gives this one's result.

        For a model without features, all cells are the same; where no features are missing, most
        strategies and stages are.
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
        """Returns all cells to run, each once, sorted by seed.

        A whole seed precedes the next, so that an experiment that is stopped still has all curves.
        """
        found: dict[Cell, None] = {}
        for row in self.rows():
            for panel in self.holes(dataset):
                for stage in self.stages:
                    found |= dict.fromkeys(self.curve(dataset, row, panel, stage))
        return sorted(found, key=lambda cell: cell.seed)
