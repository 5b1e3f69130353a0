"""The option `--gpu N`, shared by the commands that need torch."""

from __future__ import annotations

import click

from dualgnn_dgl.core.devices import pick_device as pick_device

gpu_option = click.option(
    "--gpu",
    type=int,
    default=None,
    metavar="N",
    help="CUDA device; -1 forces the CPU.  [default: CUDA if available, else the CPU]",
)
