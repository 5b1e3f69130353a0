"""`Adjacency @ x`: the only message passing that a model file needs, on any kernel.

To add a kernel, write one file with a function `spmm(matrix, x)`, such as `ops/csr.py`, and add one
line to `KERNELS` in `ops/kernels.py`. Its contract:

- `spmm` gets a `Matrix` of shape (rows, columns) in CSR and a contiguous x (columns, D) in float32
  or float64 on the same device. It returns a new tensor (rows, D) on this device in the type of x,
  and changes neither argument.
- The entries are `matrix.weight`, or ones, or ones between the diagonal scales `matrix.left` and
  `matrix.right`; `matrix.entries(dtype)` returns them as one tensor. An entry that is stored twice
  counts twice.
- A row without entries is zero. A matrix without entries, of any shape, gives zeros.
- The same input gives the same bits. Types narrower than float32 are optional; they are summed in
  float32, and `choose` must not take a kernel for a type that it lacks.
- No gradient is needed: `Adjacency` multiplies by the stored transpose with the same kernel.
- A tensor that is prepared once goes to `matrix.cache`, or to `matrix.pattern` if it does not
  depend on the weights. `Adjacency` drops both when it is moved or cast.
- Packages that not every installation has are imported inside the function. If the kernel cannot
  run, it raises `ConfigError` with the remedy.

`ops.use(name)` takes the kernel; `choose` in `ops/kernels.py` decides when it is taken by itself.
The contract test in `tests/test_ops.py` runs for every kernel in the table.
"""

from __future__ import annotations

from dualgnn_dgl.ops.adjacency import Adjacency, average, normalise, one_wide_product
from dualgnn_dgl.ops.kernels import KERNELS, choose, use
from dualgnn_dgl.ops.matrix import Matrix

__all__ = [
    "KERNELS",
    "Adjacency",
    "Matrix",
    "average",
    "choose",
    "normalise",
    "one_wide_product",
    "use",
]
