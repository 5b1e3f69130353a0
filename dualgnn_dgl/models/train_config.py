"""The options of training, whatever the model: `TrainConfig`."""

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

    epochs: int = option(200, "epochs at most", low=1, high=1_000_000)
    lr: float = option(1e-3, "Adam's learning rate", low=0)
    batch_size: int = option(2048, "training pairs a batch", low=1, high=COUNT)
    patience: int = option(
        10, "stop after this many validations in a row without a better one", low=1, high=COUNT
    )
    metric: str = option("recall@20", "validation metric that picks the epoch")
    eval_every: int = option(1, "epochs between two validations", low=1, high=COUNT)
    seed: int = option(
        0, "seed of the parameters, the order of batches and the negatives", low=0, high=2**63 - 1
    )
    impute: str = option(
        "none",
        "how missing features are filled for the model, see `features`",
        choices=("none", *IMPUTERS),
    )
    precision: str = option(
        "float32",
        "of the dense products in training; tables and sums stay float32",
        choices=PRECISIONS,
    )
    share_propagation: int = option(
        1, "batches that one propagation over the graph serves, see step.py", low=1, high=COUNT
    )
    fanout: int = option(
        0,
        "0 for the whole graph, else neighbours a node and hop of blocks, see blocks.py",
        low=0,
        high=COUNT,
    )
    hops: int = option(2, "steps that sampled blocks reach", low=1, high=LAYERS)
    cuda_graph: bool = option(
        True, "on CUDA, record a step once and replay it, where all steps are the same"
    )
    deterministic: bool = option(False, "use deterministic algorithms only, see deterministic.py")

    def __post_init__(self) -> None:
        super().__post_init__()
        name, _, k = self.metric.partition("@")
        if name not in METRICS or not re.fullmatch("[1-9][0-9]{0,8}", k):
            raise ConfigError(
                f"metric is '{self.metric:.40}': write one of {', '.join(METRICS)} and a length, "
                f"as in recall@20"
            )

    def metric_within(self, items: int) -> tuple[str, int]:
        """The metric with its list cut to so many items, and the list's length.

        >>> TrainConfig(metric="ndcg@20").metric_within(7)
        ('ndcg@7', 7)
        """
        name, _, k = self.metric.partition("@")
        length = min(int(k), items)
        return f"{name}@{length}", length
