"""The base class of every model: two tables whose inner product is the score.

The parts that models share are in `models/parts.py` and offered here. To add a model, see
`models/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dualgnn_dgl.core.options import Options, build, keys
from dualgnn_dgl.errors import ConfigError, unknown
from dualgnn_dgl.graphs.arrivals import NewItems, UserHistories
from dualgnn_dgl.models.losses import bpr, pick
from dualgnn_dgl.models.parts import (
    Features,
    masked_softmax,
    node_table,
    shared_item_table,
    smoothed,
    table,
    unit_rows,
    weighted_sum,
)
from dualgnn_dgl.models.train_config import TrainConfig

__all__ = [
    "LOOK_ALIKES",
    "Features",
    "ItemFoldin",
    "Recommender",
    "UserFoldin",
    "axis_of",
    "masked_softmax",
    "node_table",
    "shared_item_table",
    "smoothed",
    "table",
    "unit_rows",
    "weighted_sum",
]

UserFoldin = Callable[[UserHistories], Tensor]
ItemFoldin = Callable[[NewItems], Tensor]
LOOK_ALIKES = 10  # trained items that a new one is compared with, in each modality


class Recommender(nn.Module):
    """A function from (graph, modalities) to two tables, user (U, D) and item (I, D).

    A score is their inner product. The tables are dense, or both sparse (COO, coalesced) if D is
    the size of the catalogue and nothing is trained.

    A subclass has a frozen dataclass `Config(Options)`, a constructor `(graph, modalities, config)`
    and `embed`. Where it needs them it has `penalty`, `loss_of` or `loss`, `new_epoch`,
    `user_foldin` and `item_foldin`. It chooses no device, does no I/O and knows no data set's name.

    Attributes:
        Config: Options of the model.
        TRAIN: Options of training that differ from the defaults of `TrainConfig` for this model.
        SEARCH: Values that `tune` tries for an option of the model or of training.
        uses_modalities: Whether the model reads features.
        needs_modalities: Whether it cannot work without any.
        trainable: Whether it is trained.
        row_axes: 'user' or 'item' for each parameter and buffer that has a row for each of them.

    Raises:
        ConfigError: If a subclass is defined whose `TRAIN` or `SEARCH` has an unknown key or a
            value out of bounds.
    """

    Config: ClassVar[type[Options]]
    TRAIN: ClassVar[Mapping[str, Any]] = {}
    SEARCH: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    uses_modalities: ClassVar[bool] = False
    # Whether a model that uses modalities cannot work without any.
    needs_modalities: ClassVar[bool] = True
    trainable: ClassVar[bool] = True
    # Parameters and buffers with a row for every user or item, by name. Sampled blocks and `update`
    # need it, because a number of rows does not distinguish users from as many items.
    row_axes: ClassVar[Mapping[str, str]] = {"user": "user", "item": "item"}

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if "Config" in vars(cls) or "TRAIN" in vars(cls) or "SEARCH" in vars(cls):
            _check_options(cls)

    def embed(self) -> tuple[Tensor, Tensor]:
        """Returns user (U, D) and item (I, D); pure: it caches and changes nothing."""
        raise NotImplementedError

    @property
    def static_step(self) -> bool:
        """Whether every training step runs the same operations on the same tensors.

        A CUDA graph may then replay it. This is the case unless `new_epoch` is overridden.
        """
        return type(self).new_epoch is Recommender.new_epoch

    def training_tables(self) -> tuple[Tensor, Tensor]:
        """Returns the tables that the loss compares, (U, D) and (I, D).

        These are those of `embed`, unless training hides something.
        """
        return self.embed()

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Returns the training loss of B triples, ().

        Args:
            users: Users, (B,) int64.
            positives: Items that they watched, (B,) int64.
            negatives: Items that they did not watch, (B,) int64.
        """
        return self.loss_of(self.training_tables(), users, positives, negatives)

    def loss_of(
        self, tables: tuple[Tensor, Tensor], users: Tensor, positives: Tensor, negatives: Tensor
    ) -> Tensor:
        """Returns the loss from the tables of `training_tables`, so that batches can share them.

        A model whose loss needs more than its tables overrides `loss` instead; its batches share
        nothing. The other arguments are those of `loss`.
        """
        user, item = tables
        difference = (pick(user, users) * (pick(item, positives) - pick(item, negatives))).sum(-1)
        return bpr(difference) + self.penalty(users, positives, negatives)

    def penalty(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor | float:
        """Returns the regulariser of a batch; none by default."""
        return 0.0

    def user_attention(self) -> Tensor | None:
        """Returns the weight of each modality for each user, (U, M), or None if there is none.

        The modalities are in the order of the data set.
        """
        return None

    def user_foldin(self) -> UserFoldin:
        """Returns a rule that computes the vectors of users unseen in training, (B, D).

        It is called once. The rule is pure, keeps copies of what it needs, and must not depend on
        the order of a history. By default it is one more propagation step over the item table,
        û = Σ_{i∈history} i / √(d_û d_i). A model whose users consist of more overrides it.
        """
        with torch.no_grad():
            item = self.embed()[1].detach().clone()
        return lambda histories: histories.to_user @ item

    def newcomer_rows(self, name: str, histories: UserHistories) -> Tensor | None:
        """Returns the first rows of a user parameter for new users, (B, …); `update` calls it.

        Args:
            name: Name of the parameter.
            histories: Histories of the new users.

        Returns:
            The rows, or None, the default: the mean of the nearest users' rows is then taken.
        """
        return None

    def item_foldin(self) -> ItemFoldin:
        """Returns a rule that computes the vectors of items unseen in training, (N, D).

        It is called once. By default it is the mean of the trained items that resemble the new item
        most, over the modalities it has. A model with another use of features overrides it; a
        missing modality must not enter.
        """
        with torch.no_grad():
            item = self.embed()[1].detach().clone()
        return lambda videos: videos.resembling(item, LOOK_ALIKES)

    def new_epoch(self, generator: torch.Generator) -> None:
        """Prepares an epoch, for models that draw something in each one (a graph, dropout masks).

        The draw depends on the generator alone. A resumed epoch repeats it from the state that the
        generator had when the epoch began.
        """

    def resume_epoch(self, batches: int) -> None:
        """Continues an epoch after `new_epoch`, for models that count batches.

        Args:
            batches: Number of batches of the epoch that are done.
        """


def _check_options(kind: type[Recommender]) -> None:
    """Raises `ConfigError` unless `TRAIN` and `SEARCH` of a model have valid values."""
    own, of_training = keys(kind.Config) if hasattr(kind, "Config") else [], keys(TrainConfig)
    if shared := sorted({*own} & {*of_training}):
        raise ConfigError(f"{kind.__name__}.Config has a key of training, {shared[0]}: rename it")
    build(TrainConfig, kind.TRAIN, f"{kind.__name__}.TRAIN")
    for key, values in kind.SEARCH.items():
        if key not in own and key not in of_training:
            raise ConfigError(unknown(f"key in {kind.__name__}.SEARCH", key, [*own, *of_training]))
        for value in values:
            build(
                kind.Config if key in own else TrainConfig, {key: value}, f"{kind.__name__}.SEARCH"
            )


def axis_of(module: nn.Module, key: str) -> str | None:
    """Returns 'user' or 'item' for a parameter or buffer with a row for each, else None.

    Args:
        module: The model, or a part of it.
        key: The dotted name, as in its state dict. An entry for a list counts for all its members.
    """
    part: Any = module
    for name in key.split("."):
        axis: str | None = getattr(part, "row_axes", {}).get(name)
        if axis is not None:
            return axis
        part = getattr(part, name)
    return None
