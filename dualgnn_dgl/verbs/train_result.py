"""The result of `train`, from a training or from a finished run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from dualgnn_dgl.data import Dataset
from dualgnn_dgl.models.base import Recommender
from dualgnn_dgl.runs import checkpoint
from dualgnn_dgl.runs.checkpoint import Run
from dualgnn_dgl.training import Trained
from dualgnn_dgl.verbs.attention import AttentionSummary, summarise_attention
from dualgnn_dgl.verbs.common import Source


@dataclass(frozen=True, eq=False)
class TrainResult:
    """A training that has ended; the tables are those of the best epoch.

    Attributes:
        info: content of run.json: model, configuration, data, best epoch, versions.
        user: user table (U, D).
        item: item table (I, D).
        attention: weight of each modality for each user (U, M); None for models without.
        history: one dictionary an epoch: epoch, loss, seconds, and the validation metric where it
            was measured.
        dataset: data set that the model was trained on.
        model: the trained model; None where a finished run was found and nothing was trained.
        folder: run folder; None in memory.
        interrupted: whether the user ended training early.
        seconds: seconds of this call's training; None where nothing was trained.
        attention_summary: None where nothing was trained, or the model has no attention.
    """

    info: dict[str, Any]
    user: Tensor
    item: Tensor
    attention: Tensor | None
    history: list[dict[str, Any]]
    dataset: Dataset = field(repr=False)
    model: Recommender | None = None
    folder: Path | None = None
    interrupted: bool = False
    seconds: float | None = None
    attention_summary: AttentionSummary | None = None

    @property
    def best(self) -> dict[str, Any]:
        """Returns epoch, metric and value of the best epoch."""
        return dict(self.info["best"])

    @property
    def rising(self) -> bool:
        """Whether the last epoch came before the patience was used up: more epochs may be better.

        False without a validation metric, and for a training that the user ended.
        """
        train, best = self.info["train"], self.info["best"]
        if self.interrupted or best["value"] is None or self.info["epochs"] < train["epochs"]:
            return False
        waited = (train["epochs"] - best["epoch"]) / train["eval_every"]
        return 0 < train["epochs"] and waited < train["patience"]


def result_of(info: dict[str, Any], trained: Trained, source: Source, **more: Any) -> TrainResult:
    """Builds the result of a training, with a summary of its attention."""
    fit = trained.fit
    return TrainResult(
        info,
        fit.user,
        fit.item,
        fit.attention,
        fit.history,
        source.dataset,
        trained.model,
        interrupted=fit.interrupted,
        attention_summary=summarise_attention(source.options, source.dataset, fit.attention),
        **more,
    )


def finished(run: Run, dataset: Dataset, folder: Path) -> TrainResult:
    """Returns the result of a run that was finished before this call."""
    history = checkpoint.read_history(folder)
    tables = run.user, run.item, run.attention
    return TrainResult(run.info, *tables, history, dataset, folder=folder)
