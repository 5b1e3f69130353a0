"""A Triton kernel for CUDA: scales, gathers and sums over CSR in one pass.

It sums in float32 for every narrower input. One program sums up to SEGMENT edges of one row over a
block of columns. A longer row is cut into segments, whose sums go to a table of their own and are
added by a second, small kernel. There is no atomic addition, so the same input gives the same bits,
and no program waits on the most popular item. Triton comes with torch's CUDA builds. Without CUDA,
its interpreter (TRITON_INTERPRET=1) runs the same code, slowly, for tests.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from dualgnn_dgl.errors import ConfigError
from dualgnn_dgl.ops.matrix import Matrix

SEGMENT = 256  # edges a program sums at most
# Values gathered at once, edges × columns: eight independent 16-byte loads a thread with one warp.
TILE = 1024


@dataclass(frozen=True)
class Segments:
    """The parts of rows that programs sum: segment s adds the entries `start[s]` to `stop[s]`.

    All tensors have the index type of the matrix.

    Attributes:
        start: First entry of each segment, (S,).
        stop: End of each segment, (S,).
        target: The row ≥ 0 if a segment is the whole of it, or −1−p for line p of the table of
            parts, (S,).
        first: Lines first[l]…first[l+1] of this table sum up to row long_row[l], (L+1,).
        long_row: Rows of more than one segment, (L,).
        num_parts: Number of lines of the table.
    """

    start: Tensor
    stop: Tensor
    target: Tensor
    first: Tensor
    long_row: Tensor
    num_parts: int


def split(indptr: Tensor, longest: int) -> Segments:
    """Cuts the rows of a CSR matrix into segments of at most `longest` entries.

    An empty row is one empty segment.
    """
    kind, indptr = indptr.dtype, indptr.long()
    count = ((indptr.diff() + longest - 1) // longest).clamp(min=1)  # segments of each row
    row = torch.repeat_interleave(count)
    # 0, 1, … within the row
    place = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
    start = indptr[row] + longest * place
    part = count[row] > 1
    # the p-th part, from 1, is line p-1: -1 - (p-1) = -p
    target = torch.where(part, -part.cumsum(0), row)
    long_row = torch.nonzero(count > 1).flatten()
    first = torch.cat([count.new_zeros(1), count[long_row].cumsum(0)])
    stop = torch.minimum(start + longest, indptr[row + 1])
    return Segments(
        start.to(kind),
        stop.to(kind),
        target.to(kind),
        first.to(kind),
        long_row.to(kind),
        int(first[-1]),
    )


def block(width: int) -> int:
    """Returns the columns of a program: a power of two.

    It is 64 if 128 would leave more of them unused (D = 192).
    """
    if width <= 64:
        return 1 << max(width - 1, 15).bit_length()
    return 128 if (width - 1) % 128 >= 64 else 64


@functools.cache
def installed() -> bool:
    """Returns whether triton 3 or newer is installed.

    It is asked before every product, so the metadata are read once.
    """
    try:
        return int(version("triton").split(".")[0]) >= 3
    except PackageNotFoundError:
        return False


@functools.cache
def fits(device: torch.device) -> bool:
    """Returns whether the kernel can run on this CUDA device.

    Triton must be installed; it compiles for compute capability 7 and above.
    """
    return installed() and torch.cuda.get_device_capability(device)[0] >= 7


@functools.cache
def programs() -> tuple[Any, Any]:
    """Returns the two compiled kernels.

    Triton is imported here, so that nothing else needs it installed.
    """
    # Triton compiles a kernel from its source, which finds `tl` among the globals of this module.
    global tl
    import triton
    import triton.language as tl

    @triton.jit
    def gather_sum(
        start, stop, target, indices, weight,
            left, right, x, y, parts, width,
        WEIGHT: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, SUM: tl.constexpr,
        EDGES: tl.constexpr, COLUMNS: tl.constexpr,
    ):  # fmt: skip
        segment = tl.program_id(0)
        column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)  # (COLUMNS,)
        inside = column < width
        begin, end, row = (
            tl.load(start + segment),
            tl.load(stop + segment),
            tl.load(target + segment).to(tl.int64),
        )
        # One line for each edge of the stride, so that threads exchange nothing yet.
        sums = tl.zeros((EDGES, COLUMNS), dtype=SUM)
        for edge in range(begin, end, EDGES):
            number = edge + tl.arange(0, EDGES)  # (EDGES,)
            real = number < end
            source = tl.load(indices + number, mask=real, other=0).to(tl.int64)
            both = real[:, None] & inside[None, :]  # (EDGES, COLUMNS)
            value = tl.load(x + source[:, None] * width + column[None, :], mask=both, other=0.0).to(
                SUM
            )
            if WEIGHT:
                value *= tl.load(weight + number, mask=real, other=0.0).to(SUM)[:, None]
            if RIGHT:
                value *= tl.load(right + source, mask=real, other=0.0).to(SUM)[:, None]
            sums += value
        total = tl.sum(sums, axis=0)  # (COLUMNS,)
        if row >= 0:
            if LEFT:
                total *= tl.load(left + row).to(SUM)
            tl.store(y + row * width + column, total.to(y.dtype.element_ty), mask=inside)
        else:
            tl.store(parts + (-1 - row) * width + column, total, mask=inside)

    @triton.jit
    def add_parts(
        first, long_row, left, y, parts, width,
        LEFT: tl.constexpr, SUM: tl.constexpr, COLUMNS: tl.constexpr,
    ):  # fmt: skip
        number = tl.program_id(0)
        column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)  # (COLUMNS,)
        inside = column < width
        row = tl.load(long_row + number).to(tl.int64)
        total = tl.zeros((COLUMNS,), dtype=SUM)
        begin, end = tl.load(first + number).to(tl.int64), tl.load(first + number + 1).to(tl.int64)
        for line in range(begin, end):
            total += tl.load(parts + line * width + column, mask=inside, other=0.0)
        if LEFT:
            total *= tl.load(left + row).to(SUM)
        tl.store(y + row * width + column, total.to(y.dtype.element_ty), mask=inside)

    return gather_sum, add_parts


def spmm(matrix: Matrix, x: Tensor) -> Tensor:
    """Returns matrix @ x, (rows, D); the contract is in `ops/__init__.py`.

    Raises:
        ConfigError: Without triton, or on the CPU outside Triton's interpreter.
    """
    if not installed():
        raise ConfigError(
            "the triton kernel needs triton 3: pip install triton, or use ops.use('csr')"
        )
    if not x.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise ConfigError("the triton kernel runs on CUDA: use ops.use('bag') on the CPU")
    (rows, width), indices = (matrix.shape[0], x.shape[1]), matrix.indices
    y = x.new_empty(rows, width)
    if y.numel() == 0:
        return y
    if "triton" not in matrix.pattern:
        matrix.pattern["triton"] = split(matrix.indptr, SEGMENT)
    segments: Segments = matrix.pattern["triton"]
    gather_sum, add_parts = programs()
    double = x.dtype == torch.float64
    tl_sum = tl.float64 if double else tl.float32
    parts = torch.empty(
        segments.num_parts, width, dtype=torch.float64 if double else torch.float32, device=x.device
    )
    columns = block(width)
    blocks = -(-width // columns)
    # A missing one is replaced by a tensor that is not read.
    weight, left, right = (
        indices if one is None else one for one in (matrix.weight, matrix.left, matrix.right)
    )
    with torch.cuda.device_of(x):
        gather_sum[(len(segments.start), blocks)](
            segments.start, segments.stop, segments.target, indices, weight,
            left, right, x, y, parts, width,
            WEIGHT=matrix.weight is not None, LEFT=matrix.left is not None,
            RIGHT=matrix.right is not None,
            SUM=tl_sum, EDGES=TILE // columns, COLUMNS=columns, num_warps=1,
        )  # fmt: skip
        if segments.num_parts:
            add_parts[(len(segments.long_row), blocks)](
                segments.first, segments.long_row, left, y, parts, width,
                LEFT=matrix.left is not None, SUM=tl_sum, COLUMNS=columns, num_warps=1,
            )  # fmt: skip
    return y
