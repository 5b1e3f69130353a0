"""Graphs of training pairs on which bench_ops.py measures kernels, published or random."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

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
