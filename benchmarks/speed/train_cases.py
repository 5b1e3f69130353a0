"""Cases of bench_train.py: data sets, sides and options."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

from benchmarks.speed import shapes
from dualgnn_dgl.core.options import parse_pair


@dataclass(frozen=True)
class Side:
    """One row of a case.

    Attributes:
        label: Name of the row.
        data: Data set.
        code: 'ours', 'pyg' or 'pyg-csr'.
        options: Options, as `--set` takes them.
    """

    label: str
    data: str
    code: str
    options: dict[str, str]


OURS, REDUCED = "ours", f"ours, features {shapes.REDUCED}"
CASES = {
    # case: (model, label → (data, code))
    "baby": (
        "dualgnn",
        {OURS: ("baby", "ours"), REDUCED: ("baby-256", "ours"), "pyg": ("baby", "pyg")},
    ),
    "tiktok": ("dualgnn", {OURS: ("tiktok", "ours"), "pyg": ("tiktok", "pyg")}),
    "movielens": (
        "dualgnn",
        {
            OURS: ("movielens", "ours"),
            REDUCED: ("movielens-256", "ours"),
            "pyg": ("movielens", "pyg"),
        },
    ),
    "tiktok lightgcn": (
        "lightgcn",
        {OURS: ("tiktok", "ours"), "pyg": ("tiktok", "pyg"), "pyg csr": ("tiktok", "pyg-csr")},
    ),
    "gowalla": (
        "lightgcn",
        {OURS: ("gowalla", "ours"), "pyg": ("gowalla", "pyg"), "pyg csr": ("gowalla", "pyg-csr")},
    ),
}


# Options that trade quality for speed, one row each: key=value,key=value on top of the base.
OPTIONS = {
    "dualgnn": (
        "batch_size=8192",
        "batch_size=16384",
        "share_propagation=8",
        "batch_size=16384,precision=bfloat16",
        "fanout=10",
    ),
    "lightgcn": (
        "batch_size=16384,lr=0.01",
        "share_propagation=8,lr=0.01",
        "batch_size=16384,lr=0.01,fanout=10,hops=3",
    ),
}


CURVES = {"options": "tiktok", "options lightgcn": "tiktok lightgcn"}  # curve: case


def sides_of(case: str, arguments: argparse.Namespace, rows: tuple[str, ...] = ()) -> list[Side]:
    """Returns the case's rows, and ours again with the options of each of `rows` and of `--set`."""
    sides = [
        Side(label, data, code, arguments.base) for label, (data, code) in CASES[case][1].items()
    ]
    ours = [side for side in sides if side.code == "ours"]
    every = [dict(map(parse_pair, row.split(","))) for row in rows]
    if arguments.set and arguments.set not in every:
        every.append(arguments.set)
    for changes in every:
        text = " ".join(f"{key}={value}" for key, value in changes.items())
        sides += [
            replace(s, label=f"{s.label}, {text}", options=arguments.base | changes) for s in ours
        ]
    return sides
