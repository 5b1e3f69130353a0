"""Peers of our kernels in bench_ops.py: gather and scatter in torch, and DGL's operators."""

from __future__ import annotations

import torch
from torch import Tensor

from dualgnn_dgl.ops.learned import Edges


class GatherScatter:
    """The peer: a message per edge, multiplied by its weight, added to its receiver.

    It has the same weights, and autograd's backward.
    """

    def __init__(self, receiver: Tensor, sender: Tensor, shape: tuple[int, int]) -> None:
        self.receiver, self.sender, self.rows = receiver, sender, shape[0]
        received, sent = torch.bincount(receiver).float(), torch.bincount(sender).float()
        self.weight = (received[receiver] * sent[sender]).rsqrt().unsqueeze(1)  # (E, 1)

    def __matmul__(self, x: Tensor) -> Tensor:
        return x.new_zeros(self.rows, x.shape[1]).index_add_(
            0, self.receiver, self.weight * x[self.sender]
        )


class GatherEdges:
    """The peer of `ops.learned.Edges`.

    Both ends are gathered, `index_add` sums by destination, and autograd does the rest.
    """

    def __init__(self, edges: Edges) -> None:
        self.dst, self.src = edges.ends()
        self.rows = edges.shape[0]

    def score(self, a: Tensor, b: Tensor) -> Tensor:
        return (a[self.dst] * b[self.src]).sum(1)

    def softmax(self, score: Tensor) -> Tensor:
        top = torch.full((self.rows,), -torch.inf, device=score.device).scatter_reduce(
            0, self.dst, score.detach(), "amax"
        )
        value = (score - top[self.dst]).exp()
        return value / torch.zeros_like(top).index_add(0, self.dst, value)[self.dst]

    def sum(self, weight: Tensor, x: Tensor) -> Tensor:
        return x.new_zeros(self.rows, x.shape[1]).index_add(
            0, self.dst, weight.unsqueeze(1) * x[self.src]
        )


class DGLEdges:
    """DGL's g-SDDMM, edge softmax and `u_mul_e` over one bipartite graph; CPU builds only."""

    def __init__(self, edges: Edges) -> None:
        from dualgnn_dgl._dgl import dgl

        dst, src = edges.ends()
        sizes = {"src": edges.shape[1], "dst": edges.shape[0]}
        self.graph = dgl.heterograph(
            {("src", "to", "dst"): (src.int(), dst.int())}, num_nodes_dict=sizes
        )
        self.ops = dgl.ops

    def score(self, a: Tensor, b: Tensor) -> Tensor:
        return self.ops.v_dot_u(self.graph, a, b).squeeze(1)

    def softmax(self, score: Tensor) -> Tensor:
        return self.ops.edge_softmax(self.graph, score.unsqueeze(1)).squeeze(1)

    def sum(self, weight: Tensor, x: Tensor) -> Tensor:
        return self.ops.u_mul_e_sum(self.graph, x, weight.unsqueeze(1))
