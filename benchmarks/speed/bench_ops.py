"""Measures one propagation by kernel, and its share of this machine's memory bandwidth.

One propagation is `to_user @ item` and `to_item @ user` with the symmetric normalisation, as
LightGCN and DualGNN do it per layer; forward, and forward with backward. Baby, TikTok and Gowalla
are the published training graphs if the folder --root has them, else random graphs of their size
with the same kind of skew. TikTok-full (the size that papers report) and MovieLens are always
random. The peer is the common form of message passing: gather, multiply, `index_add`.

A second table has the operations with learned edge weights, user by user over their items: the
scores of all edges (SDDMM), their softmax, the weighted sum, and the three in a row as attention;
ours, DGL's and the peer's, D = 64. A third has DualGNN-Plus' loss, forward with backward: users of
a batch against 512 shared negatives, D = 129 (128 and the bias).

    python -m benchmarks.speed.bench_ops                  everything, 4 minutes on two cores
    python -m benchmarks.speed.bench_ops --shapes baby    some shapes only; the file keeps other
    rows
    python -m benchmarks.speed.bench_ops --only learned   the second table only; so with loss
    python -m benchmarks.speed.bench_ops --quick          two shapes, two widths
    python -m benchmarks.speed.bench_ops --device cuda    on the GPU, into results/ops_cuda.json

Bytes by the roofline for a product of E edges, D columns, float32, 32-bit indices: without any
reuse 4E + 4DE + 4D·rows (every edge fetches its row from memory), with perfect reuse 4E + 4D·(rows
+ columns). Real traffic is between the two. The machine's bandwidth is that of a large torch copy,
2·N·4 bytes, with the same threads, measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.lib.paths import RAW, RESULTS
from dualgnn_dgl import ops
from dualgnn_dgl.core.files import write_json
from dualgnn_dgl.models.losses import sampled_softmax
from dualgnn_dgl.ops import Adjacency, normalise, triton_kernel
from dualgnn_dgl.ops.learned import Edges

Row = dict[str, object]
TABLES = ("propagation", "learned", "loss")
WIDTHS = (64, 128, 192, 256)
SIZES = {  # users, items, training pairs
    "baby": (19_445, 7_050, 118_551),
    "tiktok": (9_308, 6_710, 59_541),
    "tiktok-full": (36_656, 76_085, 726_065),
    "movielens": (55_485, 5_986, 1_239_508),
    "gowalla": (29_858, 40_981, 810_128),
}
FILES = {
    "baby": "amazon-baby/baby.inter",
    "tiktok": "tiktok/tiktok.inter",
    "gowalla": "gowalla/train.txt",
}


@dataclass(frozen=True)
class Graph:
    """A log of training pairs.

    Attributes:
        name: Name of the shape.
        user: User of each pair, (E,).
        item: Item of each pair, (E,).
        users: Number of users.
        items: Number of items.
        source: 'published' or 'random'.
    """

    name: str
    user: Tensor
    item: Tensor
    users: int
    items: int
    source: str

    def bytes(self, width: int) -> tuple[int, int]:
        """Returns the bytes of one propagation forward, (without reuse, with perfect reuse).

        Its backward moves the same number again.
        """
        edges, nodes = len(self.user), self.users + self.items
        return 2 * edges * 4 * (
            1 + width
        ) + nodes * 4 * width, 2 * edges * 4 + 2 * nodes * 4 * width


def load(name: str, root: Path) -> Graph:
    """Returns the published graph below `root`, else a random one of the same size."""
    users, items, _ = SIZES[name]
    path = root / FILES.get(name, "-")
    if not path.is_file():
        return Graph(name, *map(torch.from_numpy, draw(*SIZES[name])), users, items, "random")
    if path.suffix == ".inter":
        user, item, label = np.loadtxt(
            path, dtype=np.int64, delimiter="\t", skiprows=1, unpack=True
        )
        user, item = user[label == 0], item[label == 0]
    else:
        lists = [
            np.array(line.split(), dtype=np.int64)
            for line in path.read_text().splitlines()
            if line.strip()
        ]
        user = np.repeat([line[0] for line in lists], [len(line) - 1 for line in lists])
        item = np.concatenate([line[1:] for line in lists])
    return Graph(name, torch.from_numpy(user), torch.from_numpy(item), users, items, "published")


def draw(users: int, items: int, edges: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws distinct random pairs, with the counts of users and items skewed like a log's.

    Chances are ∝ rank^-0.7, in random order of ids.
    """
    rng = np.random.default_rng(0)
    chances = [rng.permutation(np.arange(1, size + 1) ** -0.7) for size in (users, items)]
    keys = np.zeros(0, dtype=np.int64)
    while len(keys) < edges:
        user, item = (rng.choice(len(p), size=edges, p=p / p.sum()) for p in chances)
        keys = np.unique(np.concatenate([keys, user * items + item]))
    keys = rng.permutation(keys)[:edges]
    return keys // items, keys % items


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


def machine(device: str) -> Row:
    """Returns the machine and versions of the results."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        name = next(
            (
                line.split(":", 1)[1].strip()
                for line in info.read_text().splitlines()
                if "model name" in line
            ),
            name,
        )
    versions = {}
    for package in ("torch", "dgl", "triton"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    found: Row = {"processor": name, "threads": torch.get_num_threads(), **versions}
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
    return found


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="two shapes, two widths, few repetitions; writes no file",
    )
    parser.add_argument("--shapes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument(
        "--only", choices=TABLES, help="measure only this table; the file keeps the others"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--root", type=Path, default=RAW, help="folder of the public data sets")
    options = parser.parse_args()
    device, seconds = options.device, 0.1 if options.quick else 0.4
    shapes, widths = (("baby", "gowalla"), (64, 192)) if options.quick else (options.shapes, WIDTHS)
    wanted = TABLES if options.only is None else (options.only,)
    kernels = (
        ["bag", "csr", "dgl"]
        if device == "cpu"
        else ["csr"] + ["triton"] * triton_kernel.installed()
    )
    bandwidth = copy_bandwidth(device)
    print(f"copy {bandwidth / 1e9:.1f} GB/s, {machine(device)}")
    for label, size in (
        ("", 24),
        ("forward ms", 25),
        ("GB/s", 7),
        ("share", 7),
        ("forward+backward ms", 25),
        ("GB/s", 7),
    ):
        print(label.rjust(size), end="")
    print("  share  share if reused")
    rows, fused, weighted = [], [], []
    for name in shapes if options.only != "loss" else ():  # the loss needs no graph
        graph = load(name, options.root)
        for row in learned(graph, 64, seconds, device) if "learned" in wanted else ():
            weighted.append(row)
            shown = (row["way"], row["operation"], row["forward_ms"], row["both_ms"])
            print(
                f"{name:12}{64:4} "
                f"{'{:>6} {:10} {:9.2f} ms forward {:9.2f} ms forward+backward'.format(*shown)}",
                flush=True,
            )
        for width in widths if "propagation" in wanted else ():
            for row in measure(graph, width, kernels, bandwidth, seconds, device):
                rows.append(row)
                print(
                    f"{name:12}{width:4} {row['kernel']:>6}{'*' if row['chosen'] else ' '} "
                    + "".join(
                        f"{row[f'{part}_ms']:9.2f} "
                        f"({row[f'{part}_min_ms']:.2f}–{row[f'{part}_max_ms']:.2f})".rjust(25)
                        + f"{row[f'{part}_no_reuse_gbs']:7.1f}{row[f'{part}_no_reuse_share']:7.2f}"
                        for part in ("forward", "both")
                    )
                    + f"{row['both_reuse_share']:17.2f}",
                    flush=True,
                )
        for modalities in (2, 3) if not options.quick and "propagation" in wanted else ():
            fused.append(in_width(graph, modalities, seconds, device))
            print(
                "{shape}: {M} products of 64 {separate_ms:.2f} ms, one of {M}·64 "
                "{one_wide_ms:.2f} ms".format(**fused[-1])
            )
    losses = [loss(batch, seconds, device) for batch in (2048, 16384)] if "loss" in wanted else []
    for row in losses:
        line = "{shape}: loss in one pass {one pass_ms:.1f} ms, by autograd {autograd_ms:.1f} ms"
        print(line.format(**row))
    if options.quick:
        return
    path = RESULTS / ("ops.json" if device == "cpu" else "ops_cuda.json")
    kept = json.loads(path.read_text()) if path.is_file() else {}
    copies = kept.get("copy_gbs", {}) | dict.fromkeys(
        shapes if "propagation" in wanted else (), bandwidth / 1e9
    )
    tables = {"propagation": rows, "in_width": fused, "learned": weighted, "loss": losses}
    for name, made in tables.items():
        again = {row["shape"] for row in made}
        tables[name] = [row for row in kept.get(name, []) if row["shape"] not in again] + made
    # The file names the machine of the first table.
    measured_on = kept.get("machine") if "propagation" not in wanted else None
    write_json(path, {"machine": measured_on or machine(device), "copy_gbs": copies, **tables})
    print(path)


if __name__ == "__main__":
    main()
