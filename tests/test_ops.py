"""Every kernel against the dense product: values, gradients, empty rows, odd shapes,
relabelling.
"""

import copy

import pytest
import torch

from dualgnn_dgl import ops
from dualgnn_dgl.errors import ConfigError
from dualgnn_dgl.ops import Adjacency, average, normalise

KERNELS = sorted(set(ops.KERNELS) - {"triton"})  # that one: test_ops_triton.py
ROWS, COLUMNS, WIDTH = 7, 11, 3


def edges(weighted=False, seed=0, count=29):
    """Random edges into 7 rows from 11 columns.

    Row 2 and column 5 stay empty, one edge stands three times.
    """
    draw = torch.Generator().manual_seed(seed)
    dst = torch.randint(ROWS, (count,), generator=draw)
    src = torch.randint(COLUMNS, (count,), generator=draw)
    keep = (dst != 2) & (src != 5)
    dst, src = dst[keep], src[keep]
    dst, src = torch.cat([dst, torch.tensor([4, 4, 4])]), torch.cat([src, torch.tensor([9, 9, 9])])
    return dst, src, torch.randn(len(dst), generator=draw) if weighted else None


def slow(dst, src, shape, weight=None, left=None, right=None, dtype=torch.float64):
    """The matrix, entry by entry."""
    full = torch.zeros(shape, dtype=dtype)
    for e, (row, column) in enumerate(zip(dst.tolist(), src.tolist(), strict=True)):
        full[row, column] += 1.0 if weight is None else weight[e].to(dtype)
    for row in range(shape[0]):
        for column in range(shape[1]):
            full[row, column] *= (1 if left is None else left[row].to(dtype)) * (
                1 if right is None else right[column].to(dtype)
            )
    return full


def forms():
    """(edges, keyword arguments of Adjacency) for a plain, a weighted, and a scaled matrix."""
    draw = torch.Generator().manual_seed(5)
    scales = {
        "left": torch.rand(ROWS, generator=draw),
        "right": torch.rand(COLUMNS, generator=draw),
    }
    for name, weighted, keywords in (
        ("plain", False, {}),
        ("weighted", True, {}),
        ("scaled", False, scales),
        ("left", False, {"left": scales["left"]}),
        ("right", False, {"right": scales["right"]}),
    ):
        dst, src, weight = edges(weighted)
        yield pytest.param(dst, src, keywords if weight is None else {"weight": weight}, id=name)


FORMS = list(forms())


# ---------------------------------------------------------------- the contract of ops/__init__.py


def device_of(kernel: str, monkeypatch) -> str:
    """A device on which the kernel runs here; a kernel without one is skipped with its reason."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # Triton has an interpreter for the CPU
    dst, src, _ = edges()
    reasons = []
    for device in ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",):
        try:
            with ops.use(kernel):
                Adjacency(dst, src, (ROWS, COLUMNS)).to(device) @ torch.ones(COLUMNS, 1).to(device)
            return device
        except ConfigError as error:
            reasons.append(str(error))
    pytest.skip("; ".join(reasons))


def cases(shape: tuple[int, int]):
    """(edges, keyword arguments of Adjacency); the last row and the first column stay empty."""
    draw = torch.Generator().manual_seed(sum(shape))
    for count in (0, 1, 37):
        dst = torch.randint(max(shape[0] - 1, 1), (count,), generator=draw)
        src = torch.randint(shape[1], (count,), generator=draw).clamp(min=min(1, shape[1] - 1))
        dst, src = torch.cat([dst, dst[:2]]), torch.cat([src, src[:2]])  # two are given twice
        left, right = (torch.rand(size, generator=draw) for size in shape)
        for keywords in (
            {},
            {"weight": torch.randn(len(dst), generator=draw)},
            {"left": left, "right": right},
            {"right": right},
        ):
            yield dst, src, keywords


@pytest.mark.parametrize("kernel", sorted(ops.KERNELS))
@pytest.mark.parametrize("shape", [(7, 11), (1, 23), (23, 1), (41, 3), (1, 1)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_contract_of_a_kernel(kernel, shape, dtype, monkeypatch):
    """Dense product and gradient, empty rows and columns, uneven sizes, repeated edges.

    It runs for every entry of `KERNELS`, so a new kernel is tested without a line here.
    """
    device, tolerance = device_of(kernel, monkeypatch), 1e-5 if dtype == torch.float32 else 1e-6
    draw = torch.Generator().manual_seed(3)
    for dst, src, keywords in cases(shape):
        full = slow(dst, src, shape, **keywords)
        matrix = Adjacency(dst, src, shape, **keywords).to(device)
        for width in (1, 5, 33):
            x = torch.randn(shape[1], width, dtype=dtype, generator=draw).to(device)
            target = torch.randn(shape[0], width, dtype=dtype, generator=draw).to(device)
            before = x.clone()
            x.requires_grad_()
            with ops.use(kernel):
                y, again = matrix @ x, matrix @ x
                (gradient,) = torch.autograd.grad(y, x, target)
            assert (y.shape, y.dtype, y.device) == ((shape[0], width), dtype, x.device)
            assert torch.equal(y, again) and torch.equal(x, before)
            expected = full @ before.cpu().double(), full.T @ target.cpu().double()
            for found, wanted in zip((y.detach(), gradient), expected, strict=True):
                torch.testing.assert_close(
                    found.cpu().double(), wanted, rtol=tolerance, atol=tolerance
                )
            empty_rows, empty_columns = (full == 0).all(1), (full == 0).all(0)
            assert (y.detach().cpu()[empty_rows] == 0).all()
            assert (gradient.cpu()[empty_columns] == 0).all()


# ---------------------------------------------------------------- single properties


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("dst", "src", "keywords"), FORMS)
def test_equals_the_dense_product_and_its_gradient(kernel, dst, src, keywords):
    full = slow(dst, src, (ROWS, COLUMNS), **keywords)
    matrix = Adjacency(dst, src, (ROWS, COLUMNS), **keywords)
    x = torch.randn(COLUMNS, WIDTH, generator=torch.Generator().manual_seed(1), requires_grad=True)
    target = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(2))
    with ops.use(kernel):
        y = matrix @ x
        (y * target).sum().backward()
    assert y.dtype == torch.float32 and y.shape == (ROWS, WIDTH)
    torch.testing.assert_close(y.double(), full @ x.detach().double(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x.grad.double(), full.T @ target.double(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(matrix.dense().double(), full, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("dst", "src", "keywords"), FORMS)
def test_transpose(kernel, dst, src, keywords):
    full = slow(dst, src, (ROWS, COLUMNS), **keywords)
    matrix = Adjacency(dst, src, (ROWS, COLUMNS), **keywords)
    y = torch.randn(ROWS, WIDTH, requires_grad=True)
    with ops.use(kernel):
        product = matrix.T @ y
        product.square().sum().backward()
    assert matrix.T.shape == (COLUMNS, ROWS) and matrix.T.T.shape == (ROWS, COLUMNS)
    torch.testing.assert_close(product.double(), full.T @ y.detach().double(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        y.grad.double(), 2 * full @ (full.T @ y.detach().double()), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(matrix.T.T.dense(), matrix.dense())


@pytest.mark.parametrize("kernel", ["csr", "bag"])
@pytest.mark.parametrize(("dst", "src", "keywords"), FORMS)
def test_gradcheck_in_float64(kernel, dst, src, keywords):
    matrix = Adjacency(dst, src, (ROWS, COLUMNS), **keywords).to(torch.float64)
    x = torch.randn(COLUMNS, WIDTH, dtype=torch.float64, requires_grad=True)
    with ops.use(kernel):
        assert torch.autograd.gradcheck(lambda value: matrix @ value, (x,))
        assert torch.autograd.gradgradcheck(lambda value: matrix @ value, (x,))


@pytest.mark.parametrize("kernel", KERNELS)
def test_second_derivative_is_there_or_refused_but_never_silently_lost(kernel):
    dst, src, _ = edges()
    matrix = Adjacency(dst, src, (ROWS, COLUMNS))
    full = slow(dst, src, (ROWS, COLUMNS)).float()
    x = torch.randn(COLUMNS, WIDTH, requires_grad=True)
    with ops.use(kernel):
        (gradient,) = torch.autograd.grad((matrix @ x).pow(3).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), x)
    y = x.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad((full @ y).pow(3).sum(), y, create_graph=True)
    (expected,) = torch.autograd.grad(gradient.square().sum(), y)
    torch.testing.assert_close(second, expected, rtol=1e-3, atol=1e-2)


def test_scales_are_exact_in_float64_after_a_cast():
    """Cast to float64 and back: weights, scales and product follow, index tensors stay whole
    numbers.
    """
    dst, src, weight = edges(weighted=True)
    matrix = Adjacency(dst, src, (ROWS, COLUMNS), weight=weight)
    x = torch.randn(COLUMNS, WIDTH)
    with ops.use("csr"):
        before = matrix @ x  # fills the kernel's cache, which must not outlive the cast
        assert matrix.to(torch.float64) is matrix
        after = matrix @ x.double()
    assert after.dtype == torch.float64
    torch.testing.assert_close(after, before.double(), rtol=1e-5, atol=1e-5)
    assert all(not b.is_floating_point() or b.dtype == torch.float64 for b in matrix.buffers())
    assert (matrix.to(torch.float32) @ x).dtype == torch.float32


@pytest.mark.parametrize("kernel", KERNELS)
def test_same_matrix_takes_float32_then_float64_then_float32(kernel):
    dst, src, weight = edges(weighted=True)
    matrix = Adjacency(dst, src, (ROWS, COLUMNS), weight=weight)
    full = slow(dst, src, (ROWS, COLUMNS), weight)
    x = torch.randn(COLUMNS, WIDTH, dtype=torch.float64)
    with ops.use(kernel):
        for dtype, tolerance in (
            (torch.float32, 1e-5),
            (torch.float64, 1e-6),
            (torch.float32, 1e-5),
        ):
            y = matrix @ x.to(dtype)
            assert y.dtype == dtype
            torch.testing.assert_close(y.double(), full @ x, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("dst", "src", "keywords"), FORMS)
def test_without_is_zero_there_and_the_same_elsewhere(kernel, dst, src, keywords):
    full = slow(dst, src, (ROWS, COLUMNS), **keywords)
    pairs = list(zip(dst.tolist(), src.tolist(), strict=True))
    gone = [pair for pair in pairs if pairs.count(pair) == 1][::3]
    assert len(gone) > 3
    missing = next((r, c) for r in range(ROWS) for c in range(COLUMNS) if full[r, c] == 0)
    expected = full.clone()
    for row, column in gone:
        expected[row, column] = 0
    matrix = Adjacency(dst, src, (ROWS, COLUMNS), **keywords)
    # one twice, and two that are not there
    rows, columns = torch.tensor([*gone, gone[0], missing, (2, 5)]).T
    left = matrix.without(rows, columns)
    x = torch.randn(COLUMNS, WIDTH, requires_grad=True)
    with ops.use(kernel):
        y = left @ x
        (gradient,) = torch.autograd.grad(y.sum(), x)
        torch.testing.assert_close(y.double(), expected @ x.double(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(
            gradient.double(), expected.T @ torch.ones_like(y).double(), rtol=1e-5, atol=1e-6
        )
    torch.testing.assert_close(left.T.dense().double(), expected.T, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(matrix.dense().double(), full, rtol=1e-5, atol=1e-6)
    nothing = Adjacency(dst[:0], src[:0], (ROWS, COLUMNS))
    assert nothing.without(rows, columns).num_edges == 0


@pytest.mark.parametrize("kernel", KERNELS)
def test_rows_without_edges_are_zero_and_empty_columns_get_no_gradient(kernel):
    dst, src, _ = edges()
    x = torch.randn(COLUMNS, WIDTH, requires_grad=True)
    with ops.use(kernel):
        y = normalise(dst, src, (ROWS, COLUMNS)) @ x
        y.square().sum().backward()
    assert torch.isfinite(y).all() and torch.isfinite(x.grad).all()
    assert (y[2] == 0).all() and (x.grad[5] == 0).all() and (x.grad[9] != 0).any()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("weighted", [False, True])
def test_matrix_without_any_edge(kernel, weighted):
    none = torch.zeros(0, dtype=torch.int64)
    matrix = Adjacency(none, none, (ROWS, COLUMNS), weight=torch.zeros(0) if weighted else None)
    x = torch.randn(COLUMNS, WIDTH, requires_grad=True)
    with ops.use(kernel):
        y = matrix @ x
        y.sum().backward()
    assert y.shape == (ROWS, WIDTH) and (y == 0).all() and (x.grad == 0).all()
    assert (
        matrix.num_edges == 0
        and torch.isfinite(normalise(none, none, (ROWS, COLUMNS)).dense()).all()
    )


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", [(1, 23), (23, 1), (1, 1), (40, 3)])
def test_lopsided_shapes(kernel, shape):
    draw = torch.Generator().manual_seed(9)
    dst, src = (torch.randint(size, (17,), generator=draw) for size in shape)
    x = torch.randn(shape[1], 5, requires_grad=True)
    with ops.use(kernel):
        y = Adjacency(dst, src, shape) @ x
        y.sum().backward()
    full = slow(dst, src, shape)
    torch.testing.assert_close(y.double(), full @ x.detach().double(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        x.grad.double(), full.T @ torch.ones(shape[0], 5).double(), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("width", [1, 2, 33])
@pytest.mark.parametrize("weighted", [False, True])
def test_any_width(kernel, width, weighted):
    dst, src, weight = edges(weighted)
    x = torch.randn(COLUMNS, width)
    with ops.use(kernel):
        y = Adjacency(dst, src, (ROWS, COLUMNS), weight=weight) @ x
    torch.testing.assert_close(
        y.double(), slow(dst, src, (ROWS, COLUMNS), weight) @ x.double(), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_edge_given_twice_counts_twice(kernel):
    dst, src = torch.tensor([1, 1, 0]), torch.tensor([2, 2, 2])
    x = torch.tensor([[0.0], [0.0], [5.0]])
    with ops.use(kernel):
        assert (Adjacency(dst, src, (2, 3)) @ x).tolist() == [[5.0], [10.0]]
        weighted = Adjacency(dst, src, (2, 3), weight=torch.tensor([0.5, 0.25, 3.0]))
        assert (weighted @ x).tolist() == [[15.0], [3.75]]


@pytest.mark.parametrize("kernel", KERNELS)
def test_order_of_the_edges_does_not_matter(kernel):
    dst, src, weight = edges(weighted=True)
    order = torch.randperm(len(dst), generator=torch.Generator().manual_seed(4))
    x = torch.randn(COLUMNS, WIDTH)
    with ops.use(kernel):
        one = Adjacency(dst, src, (ROWS, COLUMNS), weight=weight) @ x
        two = Adjacency(dst[order], src[order], (ROWS, COLUMNS), weight=weight[order]) @ x
    torch.testing.assert_close(one, two)


@pytest.mark.parametrize("kernel", KERNELS)
def test_relabelling_the_nodes_permutes_the_result(kernel):
    dst, src, weight = edges(weighted=True)
    rows, columns = torch.randperm(ROWS), torch.randperm(COLUMNS)  # new number of each old node
    x = torch.randn(COLUMNS, WIDTH)
    moved = torch.empty_like(x)
    moved[columns] = x
    with ops.use(kernel):
        plain = Adjacency(dst, src, (ROWS, COLUMNS), weight=weight) @ x
        other = Adjacency(rows[dst], columns[src], (ROWS, COLUMNS), weight=weight) @ moved
    torch.testing.assert_close(other[rows], plain)


@pytest.mark.parametrize("kernel", KERNELS)
def test_strided_input_and_strided_gradient(kernel):
    dst, src, _ = edges()
    matrix, full = Adjacency(dst, src, (ROWS, COLUMNS)), slow(dst, src, (ROWS, COLUMNS)).float()
    base = torch.randn(WIDTH, 2 * COLUMNS, requires_grad=True)
    x = base[:, ::2].T
    assert not x.is_contiguous()
    with ops.use(kernel):
        y = matrix @ x
        # an expanded, non-contiguous gradient
        y.T.contiguous().T.mul(torch.arange(WIDTH) + 1.0).sum().backward()
    torch.testing.assert_close(y, full @ x.detach(), rtol=1e-5, atol=1e-5)
    expected = torch.zeros_like(base)
    expected[:, ::2] = (full.T @ (torch.arange(WIDTH) + 1.0).expand(ROWS, WIDTH)).T
    torch.testing.assert_close(base.grad, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_input_is_left_alone(kernel):
    dst, src, _ = edges()
    x = torch.randn(COLUMNS, WIDTH)
    before = x.clone()
    with ops.use(kernel):
        y = normalise(dst, src, (ROWS, COLUMNS)) @ x
        y += 1
    assert torch.equal(x, before)


def test_kernels_agree_with_one_another_and_with_the_free_choice():
    dst, src, weight = edges(weighted=True)
    x = torch.randn(COLUMNS, WIDTH)
    for matrix in (
        Adjacency(dst, src, (ROWS, COLUMNS), weight=weight),
        normalise(dst, src, (ROWS, COLUMNS)),
    ):
        chosen = matrix @ x
        for kernel in KERNELS:
            with ops.use(kernel):
                torch.testing.assert_close(matrix @ x, chosen, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
def test_forced_kernel_is_the_one_that_runs(kernel, monkeypatch):
    ran = []
    for name, module in ops.KERNELS.items():
        original = module.spmm
        monkeypatch.setattr(
            module,
            "spmm",
            lambda matrix, x, name=name, run=original: (ran.append(name), run(matrix, x))[1],
        )
    dst, src, _ = edges()
    x = torch.randn(COLUMNS, WIDTH, requires_grad=True)
    with ops.use(kernel):
        (Adjacency(dst, src, (ROWS, COLUMNS)) @ x).sum().backward()
    assert ran == [kernel, kernel]


def test_normalise_is_the_symmetric_normalisation():
    draw = torch.Generator().manual_seed(8)
    full = (torch.rand(ROWS, COLUMNS, generator=draw) < 0.3).double()
    full[3] = 0
    full[:, 10] = 0
    dst, src = full.nonzero(as_tuple=True)
    rows, columns = full.sum(1), full.sum(0)
    expected = torch.zeros_like(full)
    for r, c in zip(dst.tolist(), src.tolist(), strict=True):
        expected[r, c] = 1 / (rows[r] * columns[c]).sqrt()
    result = normalise(dst, src, (ROWS, COLUMNS))
    assert not result.dense().isnan().any()
    torch.testing.assert_close(result.dense().double(), expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(result.T.dense().double(), expected.T, rtol=1e-6, atol=1e-7)
    # the bipartite graph as one matrix
    square = torch.zeros(ROWS + COLUMNS, ROWS + COLUMNS, dtype=torch.float64)
    square[:ROWS, ROWS:], square[ROWS:, :ROWS] = full, full.T
    scale = torch.diag(torch.where(square.sum(1) > 0, square.sum(1), torch.inf).rsqrt())
    torch.testing.assert_close((scale @ square @ scale)[:ROWS, ROWS:], expected)


def test_state_dict_holds_nothing():
    dst, src, weight = edges(weighted=True)
    matrix = Adjacency(dst, src, (ROWS, COLUMNS), weight=weight)
    assert matrix.state_dict() == {} and list(matrix.parameters()) == []
    assert len(list(matrix.buffers())) > 0
    holder = torch.nn.Module()
    holder.to_user, holder.to_item = matrix, matrix.T
    holder.load_state_dict({})
    holder.to(torch.float64)
    x = torch.randn(ROWS, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(holder.to_item @ x, slow(dst, src, (ROWS, COLUMNS), weight).T @ x)


@pytest.mark.parametrize("kernel", KERNELS)
def test_deep_copy_after_use(kernel):
    dst, src, weight = edges(weighted=True)
    matrix, x = Adjacency(dst, src, (ROWS, COLUMNS), weight=weight), torch.randn(COLUMNS, WIDTH)
    with ops.use(kernel):
        y = matrix @ x
        assert torch.equal(copy.deepcopy(matrix) @ x, y)


@pytest.mark.parametrize(
    "shape",
    [(COLUMNS + 1, WIDTH), (COLUMNS - 1, WIDTH), (ROWS, WIDTH), (COLUMNS,), (COLUMNS, WIDTH, 1)],
)
def test_wrong_shapes_are_refused_with_both_shapes(shape):
    dst, src, _ = edges()
    with pytest.raises(ValueError, match=r"\(7, 11\).*\(\d+"):
        Adjacency(dst, src, (ROWS, COLUMNS)) @ torch.zeros(shape)


@pytest.mark.parametrize(("dst", "src"), [([7], [0]), ([0], [11]), ([-1], [0]), ([0], [-1])])
def test_edges_outside_the_shape_are_refused(dst, src):
    with pytest.raises(ValueError, match="outside"):
        Adjacency(torch.tensor(dst), torch.tensor(src), (ROWS, COLUMNS))


def test_lists_that_do_not_fit_together_are_refused():
    dst, src, weight = edges(weighted=True)
    with pytest.raises(ValueError, match="not both"):
        Adjacency(dst, src, (ROWS, COLUMNS), weight=weight, left=torch.ones(ROWS))
    with pytest.raises(ValueError, match="as many"):
        Adjacency(dst, src[:-1], (ROWS, COLUMNS))
    with pytest.raises(ValueError, match="as many"):
        Adjacency(dst, src, (ROWS, COLUMNS), weight=weight[:-1])
    with pytest.raises(ValueError, match="weights"):
        Adjacency(dst, src, (ROWS, COLUMNS), weight=torch.cat([weight, weight]))


def test_use_is_undone_after_an_error_and_nests():
    dst, src, _ = edges()
    matrix, x = Adjacency(dst, src, (ROWS, COLUMNS)), torch.zeros(COLUMNS, WIDTH)
    free = ops.choose(matrix._matrices[0], x)
    with pytest.raises(ZeroDivisionError), ops.use("bag"):
        raise ZeroDivisionError
    assert ops.choose(matrix._matrices[0], x) == free
    with ops.use("bag"):
        with ops.use("csr"):
            assert ops.choose(matrix._matrices[0], x) == "csr"
        assert ops.choose(matrix._matrices[0], x) == "bag"
        with ops.use(None):
            assert ops.choose(matrix._matrices[0], x) == free
    assert ops.choose(matrix._matrices[0], x) == free


@pytest.mark.parametrize(
    ("threads", "skew"),
    [(1, 1.0), (2, 2 * 27 / 30), (3, 3 * 26 / 30), (4, 4 * 25 / 30), (9, 9 * 24 / 30)],
)
def test_skew_is_the_fullest_run_over_the_mean(threads, skew):
    """30 edges into 7 rows: 24, 1, 1, 1, 1, 1, 1.

    Runs of 4, 3, 2 and 1 rows; nine threads leave two idle.
    """
    dst = torch.cat([torch.zeros(24, dtype=torch.int64), torch.arange(1, 7)])
    matrix = Adjacency(dst, torch.zeros_like(dst), (ROWS, COLUMNS))._matrices[0]
    assert matrix.skew(threads) == pytest.approx(skew)


def test_choice_on_the_cpu(monkeypatch):
    dst = torch.cat([torch.zeros(24, dtype=torch.int64), torch.arange(1, 7)])
    src = torch.arange(len(dst)) % COLUMNS
    uneven, even = normalise(dst, src, (ROWS, COLUMNS)), normalise(src % ROWS, src, (ROWS, COLUMNS))
    weighted = Adjacency(dst, src, (ROWS, COLUMNS), weight=torch.rand(len(dst)))
    found = {}
    for threads in (1, 4):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        for name, matrix in (("uneven", uneven), ("even", even), ("weighted", weighted)):
            for dtype in (torch.float32, torch.float64, torch.bfloat16):
                found[threads, name, dtype] = ops.choose(
                    matrix._matrices[0], torch.zeros(COLUMNS, 2, dtype=dtype)
                )
    assert found.pop((4, "uneven", torch.float32)) == "dgl"
    assert all(
        kernel == ("csr" if dtype == torch.float64 else "bag")
        for (_, _, dtype), kernel in found.items()
    )
    assert len(found) == 17


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_sums_in_float32(dtype):
    dst, src = torch.zeros(400, dtype=torch.int64), torch.arange(400)
    matrix = normalise(dst, src, (1, 400))
    x = (torch.rand(400, WIDTH) + 0.5).to(dtype).requires_grad_()
    y = matrix @ x
    y.float().sum().backward()
    assert y.dtype == x.grad.dtype == dtype
    # one rounding of the weight, one of the result; 400 additions would lose 20 times that
    error = torch.finfo(dtype).eps
    torch.testing.assert_close(
        y.double(), matrix.dense().double() @ x.detach().double(), rtol=error, atol=0
    )
    torch.testing.assert_close(
        x.grad.double(), matrix.dense().double().T.expand(400, WIDTH), rtol=error, atol=0
    )


@pytest.mark.parametrize(
    ("scale", "size"), [("left", COLUMNS), ("right", ROWS), ("left", 1), ("right", 0)]
)
def test_scales_that_do_not_fit_are_refused(scale, size):
    dst, src, _ = edges()
    with pytest.raises(ValueError, match=rf"{size} numbers.*\(7, 11\)"):
        Adjacency(dst, src, (ROWS, COLUMNS), **{scale: torch.ones(size)})


def test_unknown_kernel_names_the_nearest():
    with pytest.raises(ConfigError, match="'csx'.*did you mean 'csr'"), ops.use("csx"):
        pass


def test_average_means_over_the_rows_that_point_here():
    dst, src, _ = edges()
    x = torch.randn(COLUMNS, WIDTH)
    y = average(dst, src, (ROWS, COLUMNS)) @ x
    for row in range(ROWS):
        here = [x[s] for d, s in zip(dst.tolist(), src.tolist(), strict=True) if d == row]
        torch.testing.assert_close(
            y[row], torch.stack(here).mean(0) if here else torch.zeros(WIDTH)
        )


def test_one_wide_product_while_the_tables_fit_the_cache(monkeypatch):
    matrix = Adjacency(torch.tensor([0]), torch.tensor([1]), (300, 200))
    monkeypatch.setattr(ops.adjacency, "_last_cache", lambda: 3 * 4 * 500 * 128)
    assert ops.one_wide_product(matrix, 128) and not ops.one_wide_product(matrix, 129)
    assert ops.one_wide_product(matrix.T, 128)


@pytest.mark.parametrize(("dst", "src", "keywords"), FORMS)
def test_without_some_pairs_is_the_dense_matrix_with_zeros_there(dst, src, keywords):
    """Pairs that stand once, one of them named twice.

    Pairs that do not stand, before, among and behind those that do.
    """
    full, matrix = (
        slow(dst, src, (ROWS, COLUMNS), **keywords),
        Adjacency(dst, src, (ROWS, COLUMNS), **keywords),
    )
    pairs = list(zip(dst.tolist(), src.tolist(), strict=True))
    once = [pair for pair in pairs if pairs.count(pair) == 1][:6]
    gone = torch.tensor([*once, once[0], (0, 5), (2, 3), (2, COLUMNS - 1), (ROWS - 1, 5)])
    for _ in range(2):  # the second time with what the first has kept
        found = matrix.without(gone[:, 0], gone[:, 1])
        expected = full.clone()
        expected[gone[:, 0], gone[:, 1]] = 0
        torch.testing.assert_close(found.dense().double(), expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(found.T.dense().double(), expected.T, rtol=1e-6, atol=1e-6)
        x = torch.randn(COLUMNS, WIDTH, requires_grad=True)
        (found @ x).sum().backward()
        torch.testing.assert_close(
            x.grad.double(), expected.sum(0).unsqueeze(1).expand(-1, WIDTH), rtol=1e-5, atol=1e-5
        )
    torch.testing.assert_close(matrix.dense().double(), full, rtol=1e-6, atol=1e-6)


def test_without_of_a_matrix_without_entries_is_itself():
    nothing = torch.empty(0, dtype=torch.int64)
    assert (
        Adjacency(nothing, nothing, (3, 4))
        .without(torch.tensor([2]), torch.tensor([3]))
        .dense()
        .sum()
        == 0
    )
