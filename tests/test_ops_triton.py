"""The Triton kernel against the dense product.

On the GPU where there is one, else in Triton's interpreter.
"""

import copy
import os
import subprocess
import sys

import pytest
import torch
from test_ops import COLUMNS, FORMS, ROWS, edges, slow

from dualgnn_dgl import ops
from dualgnn_dgl.errors import ConfigError
from dualgnn_dgl.ops import Adjacency, normalise, triton_kernel

GPU = torch.cuda.is_available()
DEVICES = [
    pytest.param(
        "cpu",
        marks=pytest.mark.skipif(
            GPU, reason="with a GPU the kernel is compiled for it: no interpreter"
        ),
        id="interpreter",
    ),
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not GPU, reason="no CUDA device here")],
        id="cuda",
    ),
]
needs_triton = pytest.mark.skipif(
    not triton_kernel.installed(), reason="triton 3 is not installed: pip install triton"
)


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """Without a GPU the interpreter runs the kernel.

    It must be switched on before triton is imported.
    """
    if not GPU:
        monkeypatch.setenv("TRITON_INTERPRET", "1")


def product(matrix, x, target, kernel="triton"):
    """matrix @ x and the gradient of its inner product with `target`."""
    x = x.detach().requires_grad_()
    with ops.use(kernel):
        y = matrix @ x
        (gradient,) = torch.autograd.grad(y, x, target)
    return y.detach(), gradient


def skewed(rows, columns, count, seed):
    """Random pairs of which half fall into row 1; row 0 and column 2 stay empty."""
    draw = torch.Generator().manual_seed(seed)
    dst = torch.randint(1, rows, (count,), generator=draw)
    dst[: count // 2] = 1
    src = torch.randint(3, columns, (count,), generator=draw)
    return dst, src


@needs_triton
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("width", [1, 5, 33])
@pytest.mark.parametrize(("dst", "src", "keywords"), FORMS)
def test_equals_the_dense_product_and_its_gradient(device, width, dst, src, keywords):
    full = slow(dst, src, (ROWS, COLUMNS), **keywords)
    matrix = Adjacency(dst, src, (ROWS, COLUMNS), **keywords).to(device)
    x, target = torch.randn(COLUMNS, width), torch.randn(ROWS, width)
    y, gradient = product(matrix, x.to(device), target.to(device))
    assert y.dtype == torch.float32 and y.shape == (ROWS, width)
    torch.testing.assert_close(y.cpu().double(), full @ x.double(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        gradient.cpu().double(), full.T @ target.double(), rtol=1e-5, atol=1e-5
    )


@needs_triton
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("width", [7, 130])  # 130: two blocks of columns, the second nearly empty
@pytest.mark.parametrize("segment", [5, 16, 40])
def test_long_rows_in_segments(device, width, segment, monkeypatch):
    monkeypatch.setattr(triton_kernel, "SEGMENT", segment)
    dst, src = skewed(19, 23, 211, seed=3)
    matrix = normalise(dst, src, (19, 23)).to(device)
    x, target = torch.randn(23, width, device=device), torch.randn(19, width, device=device)
    y, gradient = product(matrix, x, target)
    full = matrix.dense().double()
    torch.testing.assert_close(y.double(), full @ x.double(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient.double(), full.T @ target.double(), rtol=1e-5, atol=1e-5)
    assert matrix._matrices[0].pattern["triton"].num_parts > 1
    assert (y[0] == 0).all() and (gradient[2] == 0).all()
    again, _ = product(matrix, x, target)
    assert torch.equal(again, y)  # no atomic addition: the same bits


@needs_triton
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.bfloat16, 2**-7), (torch.float16, 2**-11), (torch.float64, 1e-12)],
)
def test_other_types_sum_in_float32_or_better(device, dtype, tolerance, monkeypatch):
    """The result is off by one rounding of the output, not by one an addition (the interpreter cuts
    bfloat16 off: 2^-7).
    """
    monkeypatch.setattr(triton_kernel, "SEGMENT", 32)
    dst, src = skewed(5, 29, 400, seed=4)
    left, right = torch.rand(5) + 0.5, torch.rand(29) + 0.5
    matrix = Adjacency(dst, src, (5, 29), left=left, right=right).to(device)
    x = (torch.rand(29, 17, device=device) + 0.5).to(dtype)  # positive: nothing cancels
    y, gradient = product(matrix, x, torch.ones(5, 17, dtype=dtype, device=device))
    full = slow(dst, src, (5, 29), left=left, right=right).to(device)
    assert y.dtype == gradient.dtype == dtype
    torch.testing.assert_close(y.double(), full @ x.double(), rtol=1.01 * tolerance, atol=1e-30)
    torch.testing.assert_close(
        gradient.double(), full.T @ torch.ones_like(y).double(), rtol=1.01 * tolerance, atol=1e-30
    )


@needs_triton
@pytest.mark.parametrize("device", DEVICES)
def test_gradcheck_in_float64(device):
    dst, src, weight = edges(weighted=True)
    matrix = Adjacency(dst, src, (ROWS, COLUMNS), weight=weight).to(device, torch.float64)
    x = torch.randn(COLUMNS, 2, dtype=torch.float64, device=device, requires_grad=True)
    with ops.use("triton"):
        assert torch.autograd.gradcheck(lambda value: matrix @ value, (x,), fast_mode=True)
        assert torch.autograd.gradgradcheck(lambda value: matrix @ value, (x,), fast_mode=True)


@needs_triton
@pytest.mark.parametrize("device", DEVICES)
def test_no_edges_no_rows_no_columns(device):
    none = torch.zeros(0, dtype=torch.int64)
    for shape, width in (((4, 6), 3), ((0, 6), 3), ((4, 6), 0)):
        with ops.use("triton"):
            y = Adjacency(none, none, shape).to(device) @ torch.ones(shape[1], width, device=device)
        assert y.shape == (shape[0], width) and (y == 0).all()


@needs_triton
@pytest.mark.parametrize("device", DEVICES)
def test_indices_of_64_bits(device):
    dst, src = torch.tensor([1, 0]), torch.tensor([2, 1])
    matrix = Adjacency(dst, src, (2, 3))
    for name, part in matrix.named_buffers():
        setattr(matrix, name, part.long())
    matrix.to(device)  # built again over the 64-bit tensors
    assert matrix._matrices[0].indices.dtype == torch.int64
    x = torch.arange(6.0, device=device).reshape(3, 2)
    with ops.use("triton"):
        assert (matrix @ x).tolist() == [[2.0, 3.0], [4.0, 5.0]]


@pytest.mark.parametrize("longest", [1, 3, 4, 100])
def test_segments_cover_every_edge_once(longest):
    lengths = torch.tensor([0, 4, 1, 9, 0, 8, 3])
    indptr = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    segments = triton_kernel.split(indptr.int(), longest)
    parts, whole, of_part = [0] * segments.num_parts, {}, {}
    for line, row in enumerate(segments.long_row.tolist()):
        for part in range(int(segments.first[line]), int(segments.first[line + 1])):
            of_part[part] = row
    for start, stop, target in zip(
        *(piece.tolist() for piece in (segments.start, segments.stop, segments.target)), strict=True
    ):
        assert stop - start <= longest
        row = target if target >= 0 else of_part[-1 - target]
        whole.setdefault(row, []).extend(range(start, stop))
        if target < 0:
            parts[-1 - target] += 1
    assert parts == [1] * segments.num_parts
    assert whole == {row: list(range(indptr[row], indptr[row + 1])) for row in range(7)}
    assert all(
        part.dtype == torch.int32 for part in (segments.start, segments.target, segments.first)
    )


@pytest.mark.parametrize(
    ("width", "expected"),
    [(1, 16), (17, 32), (64, 64), (65, 128), (128, 128), (130, 64), (192, 64), (256, 128)],
)
def test_block_of_columns(width, expected):
    assert triton_kernel.block(width) == expected


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from dualgnn_dgl.ops import triton_kernel

kinds = dict.fromkeys(("start", "stop", "target", "indices", "first", "long_row"), "*i32") | {"width": "i32"}
kinds |= dict.fromkeys(("weight", "left", "right", "parts"), "*fp32")
for kernel in triton_kernel.programs():
    names = kernel.arg_names
    values = {name: True for name in ("WEIGHT", "LEFT", "RIGHT")}
    values |= {"SUM": triton_kernel.tl.float32, "EDGES": 16, "COLUMNS": 64}
    for dtype, capability in (("*fp32", 80), ("*bf16", 90)):
        source = ASTSource(
            fn=kernel,
            signature={name: (kinds | {"x": dtype, "y": dtype}).get(name, "constexpr") for name in names},
            constexprs={(names.index(name),): value for name, value in values.items() if name in names},
        )
        made = compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 1})
        print(len(made.asm["cubin"]))
"""


@needs_triton
def test_compiles_for_a_gpu_that_is_not_here(tmp_path):
    """The interpreter takes more than the compiler does.

    Two kernels, two types, down to machine code, without a device.
    """
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    run = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert [int(size) > 1000 for size in run.stdout.split()] == [True] * 4


def test_refused_where_it_cannot_run(monkeypatch):
    dst, src, _ = edges()
    matrix, x = Adjacency(dst, src, (ROWS, COLUMNS)), torch.zeros(COLUMNS, 2)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(triton_kernel, "installed", lambda: True)
    with (
        pytest.raises(ConfigError, match="runs on CUDA: use ops.use\\('bag'\\)"),
        ops.use("triton"),
    ):
        matrix @ x
    monkeypatch.setattr(triton_kernel, "installed", lambda: False)
    with pytest.raises(ConfigError, match="pip install triton"), ops.use("triton"):
        matrix @ x


@needs_triton
def test_a_product_reads_no_package_metadata(monkeypatch):
    """That took ten times as long on the host as the product on the device."""
    monkeypatch.setattr(triton_kernel, "version", lambda name: pytest.fail(f"looked up {name}"))
    dst, src, _ = edges()
    matrix = Adjacency(dst, src, (ROWS, COLUMNS)).to("cuda" if GPU else "cpu")
    with ops.use("triton"):
        assert (
            matrix @ torch.ones(COLUMNS, 2, device=matrix._forward_indices.device)
        ).sum() == len(dst) * 2


@needs_triton
def test_matrices_with_other_weights_at_the_same_places_share_how_rows_are_cut():
    """Cutting them waits for the device, which a recorded step must not."""
    dst, src, _ = edges()
    whole = Adjacency(dst, src, (ROWS, COLUMNS)).to("cuda" if GPU else "cpu")
    less = whole.without(whole.edges()[0][:2], whole.edges()[1][:2])
    with ops.use("triton"):
        less @ torch.ones(COLUMNS, 2, device=whole._forward_indices.device)
    assert whole._matrices[0].pattern["triton"] is less._matrices[0].pattern["triton"]


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="no CUDA device here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_free_choice_on_cuda_agrees_with_the_cpu(dtype):
    dst, src = skewed(301, 217, 9_001, seed=6)
    matrix = normalise(dst, src, (301, 217))
    draw = torch.Generator().manual_seed(7)
    x, target = torch.randn(217, 64, generator=draw), torch.randn(301, 64, generator=draw)
    # float32 on a CPU adds the long row up one by one, and errs by 10⁻⁵ itself
    exact = copy.deepcopy(matrix).to(torch.float64)
    expected = product(exact, x.double(), target.double(), "csr")
    found = product(matrix.to("cuda"), x.to("cuda", dtype), target.to("cuda", dtype), None)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.cpu().double(), other, rtol=tolerance, atol=tolerance)


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="no CUDA device here")
def test_triton_is_chosen_on_cuda():
    dst, src, weight = edges(weighted=True)
    matrix = Adjacency(dst, src, (ROWS, COLUMNS), weight=weight).to("cuda")
    expected = "triton" if triton_kernel.installed() else "csr"
    assert ops.choose(matrix._matrices[0], torch.zeros(COLUMNS, 4, device="cuda")) == expected
