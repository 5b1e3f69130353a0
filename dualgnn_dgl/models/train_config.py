"""Options of training, the same for every model: `TrainConfig`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dualgnn_dgl.core.options import COUNT, LAYERS, Options, option
from dualgnn_dgl.errors import ConfigError
from dualgnn_dgl.evaluation.accuracy import METRICS
from dualgnn_dgl.modality.imputers import IMPUTERS

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class TrainConfig(Options):
    """Options of training, the same for every model."""

    epochs: int = option(200, "largest number of epochs", low=1, high=1_000_000)
    lr: float = option(1e-3, "Adam's learning rate", low=0)
    batch_size: int = option(2048, "training pairs a batch", low=1, high=COUNT)
    patience: int = option(
        10,
        "validations in a row without a better one, after which training stops",
        low=1,
        high=COUNT,
    )
    metric: str = option("recall@20", "validation metric that chooses the best epoch")
    eval_every: int = option(1, "epochs between two validations", low=1, high=COUNT)
    seed: int = option(
        0, "seed of the parameters, the order of batches and the negatives", low=0, high=2**63 - 1
    )
    impute: str = option(
        "none",
        "imputation of missing features for the model",
        choices=("none", *IMPUTERS),
    )
    precision: str = option(
        "float32",
        "precision of dense products in training; tables and sums stay float32",
        choices=PRECISIONS,
    )
    share_propagation: int = option(
        1, "batches that share one propagation over the graph", low=1, high=COUNT
    )
    fanout: int = option(
        0,
        "neighbours a node and hop of sampled blocks; 0 takes the whole graph",
        low=0,
        high=COUNT,
    )
    hops: int = option(2, "hops of sampled blocks", low=1, high=LAYERS)
    cuda_graph: bool = option(
        True, "record a step once on CUDA and replay it, if all steps are the same"
    )
    deterministic: bool = option(False, "deterministic algorithms only")

    def __post_init__(self) -> None:
        super().__post_init__()
        name, _, k = self.metric.partition("@")
        if name not in METRICS or not re.fullmatch("[1-9][0-9]{0,8}", k):
            raise ConfigError(
                f"metric is '{self.metric:.40}': write one of {', '.join(METRICS)} and a length, "
                f"as in recall@20"
            )

    def metric_within(self, items: int) -> tuple[str, int]:
        """Returns the metric with its list cut to the number of items, and the list's length.

        >>> TrainConfig(metric="ndcg@20").metric_within(7)
        ('ndcg@7', 7)
        """
        name, _, k = self.metric.partition("@")
        length = min(int(k), items)
        return f"{name}@{length}", length
