"""Measures the kernels of bench_ops.py: propagation, learned edge weights, and the loss."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.speed.ops_graphs import Graph
from benchmarks.speed.ops_peers import DGLEdges, GatherEdges, GatherScatter
from dualgnn_dgl import ops
from dualgnn_dgl.models.losses import sampled_softmax
from dualgnn_dgl.ops import Adjacency, normalise
from dualgnn_dgl.ops.learned import Edges

Row = dict[str, object]


def timed(work: Callable[[], object], seconds: float, device: str) -> tuple[float, float, float]:
    """Returns median, least and most seconds of a call.

    There are at least 3 samples after one that does not count, and at most `seconds` in all. On a
    GPU a sample is 20 calls between two synchronisations.
    """
    calls = 20 if device == "cuda" else 1

    def sample() -> float:
        began = time.perf_counter()
        for _ in range(calls):
            work()
        if device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / calls

    sample()
    found: list[float] = []
    while len(found) < 3 or (sum(found) * calls < seconds and len(found) < 100):
        found.append(sample())
    return statistics.median(found), min(found), max(found)


def copy_bandwidth(device: str) -> float:
    """Returns the bytes per second of a copy of 256 MB, read and write counted."""
    source = torch.ones(64 * 2**20, device=device)
    target = torch.empty_like(source)
    return 2 * 4 * source.numel() / timed(lambda: target.copy_(source), 1.0, device)[0]


def propagation(
    to_user: Adjacency | GatherScatter,
    to_item: Adjacency | GatherScatter,
    graph: Graph,
    width: int,
    device: str,
):
    """Returns (forward, forward with backward) as functions without arguments."""
    user, item = (
        torch.randn(size, width, device=device, requires_grad=True)
        for size in (graph.users, graph.items)
    )
    grads = [torch.randn_like(user), torch.randn_like(item)]

    def forward() -> None:
        with torch.no_grad():
            to_user @ item, to_item @ user

    def both() -> None:
        torch.autograd.grad((to_user @ item, to_item @ user), (item, user), grads)

    return forward, both


def measure(
    graph: Graph, width: int, kernels: list[str], bandwidth: float, seconds: float, device: str
) -> list[Row]:
    """Measures one row per kernel, and the peer; `chosen` marks the default."""
    to_user = normalise(graph.user, graph.item, (graph.users, graph.items)).to(device)
    to_item = to_user.T
    peer = [ends.to(device) for ends in (graph.user, graph.item)]
    forward_bytes = graph.bytes(width)
    free = [
        ops.choose(side._matrices[0], torch.empty(1, width, device=device))
        for side in (to_user, to_item)
    ]
    rows = []
    for kernel in [*kernels, "peer"]:
        pair = (to_user, to_item)
        if kernel == "peer":
            sides = ((*peer, (graph.users, graph.items)), (*peer[::-1], (graph.items, graph.users)))
            pair = tuple(GatherScatter(*side) for side in sides)
        row: Row = {"shape": graph.name, "graph": graph.source, "D": width, "kernel": kernel}
        row["chosen"] = kernel in free
        with ops.use(kernel if kernel != "peer" else None):
            for name, work, passes in zip(
                ("forward", "both"), propagation(*pair, graph, width, device), (1, 2), strict=True
            ):
                median, least, most = timed(work, seconds, device)
                row |= {
                    f"{name}_ms": 1e3 * median,
                    f"{name}_min_ms": 1e3 * least,
                    f"{name}_max_ms": 1e3 * most,
                }
                for bound, count in zip(("no_reuse", "reuse"), forward_bytes, strict=True):
                    row[f"{name}_{bound}_gbs"] = passes * count / median / 1e9
                    row[f"{name}_{bound}_share"] = passes * count / median / bandwidth
        rows.append(row)
    return rows


def in_width(graph: Graph, modalities: int, seconds: float, device: str) -> Row:
    """Compares M products of 64 columns with one of M·64, forward with backward.

    The kernels are those of the free choice.
    """
    to_user = normalise(graph.user, graph.item, (graph.users, graph.items)).to(device)
    to_item, found = to_user.T, []
    for count, width in ((modalities, 64), (1, 64 * modalities)):
        works = [propagation(to_user, to_item, graph, width, device)[1] for _ in range(count)]
        found.append(timed(lambda works=works: [work() for work in works], seconds, device)[0])
    return {
        "shape": graph.name,
        "M": modalities,
        "separate_ms": 1e3 * found[0],
        "one_wide_ms": 1e3 * found[1],
    }


def learned(graph: Graph, width: int, seconds: float, device: str) -> list[Row]:
    """Measures forward, and forward with backward, of each operation with learned weights.

    Returns:
        One row per operation and way.
    """
    edges = Edges(Adjacency(graph.user, graph.item, (graph.users, graph.items))).to(device)
    user, item = (
        torch.randn(size, width, device=device, requires_grad=True)
        for size in (graph.users, graph.items)
    )
    number = torch.randn(edges.num_edges, device=device, requires_grad=True)
    rows: list[Row] = []
    for name, way in [
        ("ours", edges),
        *([("dgl", DGLEdges(edges))] if device == "cpu" else []),
        ("peer", GatherEdges(edges)),
    ]:
        works = {
            "score": (way.score, (user, item)),
            "softmax": (way.softmax, (number,)),
            "sum": (way.sum, (number, item)),
            "attention": (
                lambda a, b, way=way: way.sum(way.softmax(way.score(a, b)), b),
                (user, item),
            ),
        }
        for operation, (function, inputs) in works.items():
            target = torch.randn_like(function(*inputs))

            def both(function=function, inputs=inputs, target=target) -> None:
                torch.autograd.grad(function(*inputs), inputs, target)

            def forward(function=function, inputs=inputs) -> None:
                with torch.no_grad():
                    function(*inputs)

            row: Row = {
                "shape": graph.name,
                "graph": graph.source,
                "D": width,
                "operation": operation,
                "way": name,
            }
            row["threads"] = torch.get_num_threads()
            for part, work in (("forward", forward), ("both", both)):
                median, least, most = timed(work, seconds, device)
                row |= {
                    f"{part}_ms": 1e3 * median,
                    f"{part}_min_ms": 1e3 * least,
                    f"{part}_max_ms": 1e3 * most,
                }
            rows.append(row)
    return rows


def loss(batch: int, seconds: float, device: str) -> Row:
    """Measures the sampled softmax in one pass, and as autograd computes the formula.

    The times are milliseconds forward with backward.
    """

    def plain(user: Tensor, positive: Tensor, negatives: Tensor) -> Tensor:
        right = (user * positive).sum(1, keepdim=True) / 0.15
        wrong = user @ negatives.T / 0.15 + math.log(6_999 / len(negatives))
        return -torch.cat([right, wrong], dim=1).log_softmax(1)[:, 0].mean()

    rows = (batch, batch, 512)
    inputs = [
        torch.nn.functional.normalize(torch.randn(n, 129, device=device)).requires_grad_()
        for n in rows
    ]
    row: Row = {"shape": f"batch {batch}"}
    ways = {"one pass": lambda *inputs: sampled_softmax(*inputs, 7_000, 0.15), "autograd": plain}
    for name, way in ways.items():
        found = timed(
            lambda way=way: torch.autograd.grad(way(*inputs), inputs), 2 * seconds, device
        )
        middle, least, most = (1e3 * value for value in found)
        row |= {f"{name}_ms": middle, f"{name}_min_ms": least, f"{name}_max_ms": most}
    return row
