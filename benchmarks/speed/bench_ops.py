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
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks.lib.paths import RAW, RESULTS
from benchmarks.speed.ops_graphs import SIZES, load
from benchmarks.speed.ops_times import Row, copy_bandwidth, in_width, learned, loss, measure
from dualgnn_dgl.core.files import write_json
from dualgnn_dgl.ops import triton_kernel

TABLES = ("propagation", "learned", "loss")
WIDTHS = (64, 128, 192, 256)


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
