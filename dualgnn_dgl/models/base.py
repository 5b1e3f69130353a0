"""What every model is: two tables whose inner product is the score; and what models share, missing
modalities above all.

To add a model, see `models/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dualgnn_dgl.core.options import Options, build, keys
from dualgnn_dgl.data import Modality
from dualgnn_dgl.errors import ConfigError, unknown
from dualgnn_dgl.graphs.arrivals import NewItems, UserHistories
from dualgnn_dgl.models.losses import bpr, pick
from dualgnn_dgl.models.train_config import TrainConfig
from dualgnn_dgl.ops import Adjacency

UserFoldin = Callable[[UserHistories], Tensor]
ItemFoldin = Callable[[NewItems], Tensor]
LOOK_ALIKES = 10  # trained videos that lend to a new one, in each modality


class Recommender(nn.Module):
    """A function from (graph, modalities) to two tables, user (U, D) and item (I, D).

    A score is their inner product.

    The tables are dense, or both sparse (COO, coalesced) where D is the size of the catalogue and
    nothing is trained. A subclass has a frozen dataclass `Config(Options)`, a constructor `(graph,
    modalities, config)`, `embed`, and where it needs them `penalty`, `loss_of` or `loss`, and
    `new_epoch`. It chooses no device, does no I/O and knows no data set's name.

    Attributes:
        Config: options of the model.
        TRAIN: options of training that differ from the defaults of `TrainConfig` for this model.
        SEARCH: values that `tune` tries for an option of the model or of training.

    Raises:
        ConfigError: when a subclass is defined whose `TRAIN` or `SEARCH` has an unknown key or a
            value out of bounds.
    """

    Config: ClassVar[type[Options]]
    TRAIN: ClassVar[Mapping[str, Any]] = {}
    SEARCH: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    uses_modalities: ClassVar[bool] = False
    # of those that use them: nothing is left of it where the data have none
    needs_modalities: ClassVar[bool] = True
    trainable: ClassVar[bool] = True
    # Parameters and buffers with a row for every user or item, by name. Sampled blocks and `update`
    # go by it: a number of rows cannot tell users from items where there are as many of both.
    row_axes: ClassVar[Mapping[str, str]] = {"user": "user", "item": "item"}

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if "Config" in vars(cls) or "TRAIN" in vars(cls) or "SEARCH" in vars(cls):
            _check_options(cls)

    def embed(self) -> tuple[Tensor, Tensor]:
        """User (U, D) and item (I, D). Pure: caches nothing, changes nothing; twice equal."""
        raise NotImplementedError

    @property
    def static_step(self) -> bool:
        """Whether every training step runs the same operations on the same tensors, so that a CUDA
        graph may replay it.

        Not where an epoch draws something anew; a model that can do so and does not says otherwise.
        """
        return type(self).new_epoch is Recommender.new_epoch

    def training_tables(self) -> tuple[Tensor, Tensor]:
        """The tables that the loss compares, (U, D) and (I, D).

        Those of `embed`, unless training hides something.
        """
        return self.embed()

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Training loss of B triples (user, watched item, unwatched item), each (B,) int64.

        A scalar.
        """
        return self.loss_of(self.training_tables(), users, positives, negatives)

    def loss_of(
        self, tables: tuple[Tensor, Tensor], users: Tensor, positives: Tensor, negatives: Tensor
    ) -> Tensor:
        """The loss from the tables of `training_tables`, so that several batches can share them
        (step.py).

        A model whose loss is more than its tables overrides `loss` instead, and its batches share
        nothing.
        """
        user, item = tables
        difference = (pick(user, users) * (pick(item, positives) - pick(item, negatives))).sum(-1)
        return bpr(difference) + self.penalty(users, positives, negatives)

    def penalty(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor | float:
        """Regulariser of the same batch; none by default."""
        return 0.0

    def user_attention(self) -> Tensor | None:
        """Weight of each modality for each user, (U, M) in the order of the data set's modalities.

        None where there is none.
        """
        return None

    def user_foldin(self) -> UserFoldin:
        """How users who come after training get their vectors.

        Called once, gives a function of `UserHistories` → (B, D).

        Like `embed` it is pure; what it keeps is its own. By default one more propagation step over
        the item table, û = Σ_{i∈history} i / √(d_û d_i): every watched video speaks for what is
        like it. A model whose users are made of more than that says so with a rule of its own; the
        rule must not depend on the order of a history.
        """
        with torch.no_grad():
            item = self.embed()[1].detach().clone()
        return lambda histories: histories.to_user @ item

    def newcomer_rows(self, name: str, histories: UserHistories) -> Tensor | None:
        """Rows (B, …) of the user parameter `name` for users who come after training, to start
        from; `update` asks for them.

        None, the default: the mean of the nearest users' rows.
        """
        return None

    def item_foldin(self) -> ItemFoldin:
        """How videos that come after training get their vectors.

        Called once, gives a function of `NewItems` → (N, D).

        By default the mean of the trained videos that resemble it most, over the modalities it has.
        A model with an encoder of features, or another use of them, says so with a rule of its own;
        an absent modality must not enter.
        """
        with torch.no_grad():
            item = self.embed()[1].detach().clone()
        return lambda videos: videos.resembling(item, LOOK_ALIKES)

    def new_epoch(self, generator: torch.Generator) -> None:
        """Called before each epoch, for models that draw something anew (a graph, a padding).

        What is drawn depends on the generator alone: an epoch that was cut off is drawn again from
        the generator's old state.
        """

    def resume_epoch(self, batches: int) -> None:
        """Called after `new_epoch` where the epoch goes on after so many batches, for models that
        count them.
        """


def _check_options(kind: type[Recommender]) -> None:
    """Raises `ConfigError` unless `TRAIN` and `SEARCH` of a model hold valid values of known
    options.
    """
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
    """What the rows of a parameter or buffer stand for.

    'user', 'item', or None where it is no table.

    Args:
        module: The model, or a part of it.
        key: The dotted name, as in its state dict. A mark on a list holds for every member.
    """
    part: Any = module
    for name in key.split("."):
        axis: str | None = getattr(part, "row_axes", {}).get(name)
        if axis is not None:
            return axis
        part = getattr(part, name)
    return None


def table(rows: int, columns: int) -> nn.Parameter:
    """A free (rows, columns) table, Xavier-normal."""
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(rows, columns)))


def node_table(users: int, items: int, columns: int) -> tuple[nn.Parameter, nn.Parameter]:
    """One Xavier-normal table of all nodes, in two parts.

    Users' (U, columns) and items' (I, columns).
    """
    user, item = table(users + items, columns).detach().split([users, items])
    return nn.Parameter(user.clone()), nn.Parameter(item.clone())


def smoothed(
    to_user: Adjacency, to_item: Adjacency, user: Tensor, item: Tensor, layers: int
) -> tuple[Tensor, Tensor]:
    """Mean of layers 0…L of user (U, D) and item (I, D) over the user–item graph.

    LightGCN (He et al., SIGIR 2020, eq. 3, 4).
    """
    user_sum, item_sum = user, item
    for _ in range(layers):
        user, item = to_user @ item, to_item @ user
        user_sum, item_sum = user_sum + user, item_sum + item
    return user_sum / (layers + 1), item_sum / (layers + 1)


def shared_item_table(
    to_user: Adjacency, to_item: Adjacency, user: Tensor, item: Tensor, layers: int
) -> Tensor:
    """What videos lend to a new user in such a model, (I, D).

    `histories.to_user @` this is layers 1…L of `smoothed`, with its 1/(L+1). Of layer 0, never
    trained, nothing is known. Without a layer, the videos' own rows.
    """
    if layers == 0:
        return item
    return smoothed(to_user, to_item, user, item, layers - 1)[1] * (layers / (layers + 1))


class _UnitRows(torch.autograd.Function):
    """x / ‖x‖ a row; four passes over memory backward, where autograd makes seven of
    `functional.normalize`.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        # of shape (N, 1)
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_(min=1e-12).reciprocal_()
        unit = x * scale
        ctx.save_for_backward(unit, scale)
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        unit, scale = ctx.saved_tensors
        along = (gradient * unit).sum(-1, keepdim=True)  # what would only lengthen the row, (N, 1)
        return torch.addcmul(gradient, unit, along, value=-1).mul_(scale)


def unit_rows(x: Tensor, present: Tensor | None = None) -> Tensor:
    """Rows of x (N, D) at length one; zero rows stay zero, and so become those where `present` (N,)
    is False.

    The mask comes *after* the normalisation: a zero feature row passes an encoder's biases and
    would otherwise become one and the same unit vector for all items that lack the modality. Half
    precision comes out as float32. Differentiable once.
    """
    unit = _UnitRows.apply(x.float() if x.dtype in (torch.bfloat16, torch.float16) else x)
    return unit if present is None else unit.where(present.unsqueeze(-1), unit.new_zeros(()))


class _WeightedSum(torch.autograd.Function):
    """Σ_m w[:, m] · x_m without the (N, M, D) tensors that a stack would make, forward and
    backward.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, *tables: Tensor) -> Tensor:
        ctx.save_for_backward(weight, *tables)
        total = tables[0] * weight[:, :1]
        for m, x in enumerate(tables[1:], start=1):
            total.addcmul_(x, weight[:, m : m + 1])
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, *tables = ctx.saved_tensors
        of_weight = (
            torch.stack([(gradient * x).sum(-1) for x in tables], dim=1)
            if ctx.needs_input_grad[0]
            else None
        )
        return of_weight, *(gradient * weight[:, m : m + 1] for m in range(len(tables)))


def weighted_sum(weight: Tensor, tables: Sequence[Tensor]) -> Tensor:
    """Σ_m w[:, m] · x_m: weights (N, M), M tables (N, D) → (N, D). Differentiable once."""
    return _WeightedSum.apply(weight, *tables)


def masked_softmax(logits: Tensor, observed: Tensor) -> Tensor:
    """Softmax over the last axis among observed entries only; where nothing is observed, among all.

    logits (N, M) float, observed (N, M) bool → (N, M), rows sum to one, zero where unobserved.
    """
    observed = observed | ~observed.any(-1, keepdim=True)
    return logits.masked_fill(~observed, -torch.inf).softmax(-1)


class Features(nn.Module):
    """The modalities of a data set as buffers, in a fixed order.

    `values[m]` (I, F_m), `present` (I, M).

    They move with `.to()` and stay out of the state dict: the run records which data they come
    from.
    """

    def __init__(self, modalities: Mapping[str, Modality]) -> None:
        super().__init__()
        self.names = tuple(modalities)
        self.row_axes = {"present": "item"} | {
            f"values_{m}": "item" for m in range(len(self.names))
        }
        for m, modality in enumerate(modalities.values()):
            self.register_buffer(
                f"values_{m}",
                torch.from_numpy(np.require(modality.values, requirements="W")),
                persistent=False,
            )
        present = [torch.tensor(modality.present) for modality in modalities.values()]
        self.register_buffer("present", torch.stack(present, dim=1), persistent=False)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, m: int) -> Tensor:
        return getattr(self, f"values_{m}")

    def widths(self) -> list[int]:
        """F of each modality."""
        return [self[m].shape[1] for m in range(len(self))]

    def extra_repr(self) -> str:
        return ", ".join(
            f"{name}={width}" for name, width in zip(self.names, self.widths(), strict=True)
        )
