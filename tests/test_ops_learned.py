"""Scores, softmax and weighted sums over edges against dense twins.

Values, gradients twice over, empty rows, odd shapes.
"""

import copy

import pytest
import torch

from dualgnn_dgl import ops
from dualgnn_dgl.ops import Adjacency
from dualgnn_dgl.ops.learned import Edges

ROWS, COLUMNS, WIDTH = 7, 11, 3
KERNELS = sorted(set(ops.KERNELS) - {"triton"})
SHAPES = [(ROWS, COLUMNS, 29), (13, 5, 40), (4, 9, 1), (6, 3, 0)]


def make(rows=ROWS, columns=COLUMNS, count=29, seed=0):
    """Random edges; row 2 and column 1 stay empty, and the first edge stands three times."""
    draw = torch.Generator().manual_seed(seed)
    dst, src = (
        torch.randint(rows, (count,), generator=draw),
        torch.randint(columns, (count,), generator=draw),
    )
    keep = (dst != 2) & (src != 1)
    dst, src = dst[keep], src[keep]
    dst, src = torch.cat([dst, dst[:1], dst[:1]]), torch.cat([src, src[:1], src[:1]])
    return Edges(Adjacency(dst, src, (rows, columns)))


def randn(*shape, seed=1, dtype=torch.float64):
    return torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype
    ).requires_grad_()


def slow_score(edges, a, b):
    return torch.stack(
        [a[d] @ b[s] for d, s in zip(*map(torch.Tensor.tolist, edges.ends()), strict=True)]
    )


def slow_softmax(edges, score):
    """The softmax of every destination by itself."""
    dst = edges.ends()[0]
    out = torch.zeros_like(score)
    for row in set(dst.tolist()):
        here = dst == row
        out = out + torch.zeros_like(score).masked_scatter(here, score[here].softmax(0))
    return out


def slow_sum(edges, weight, x):
    """The dense matrix of the weights, repeated pairs added, times x."""
    full = torch.zeros(edges.shape, dtype=x.dtype).index_put(edges.ends(), weight, accumulate=True)
    return full @ x


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_values_and_gradients_equal_the_dense_twins(shape, dtype):
    """A whole attention step: the softmax of scores weighs a sum, as models use it."""
    edges = make(*shape)
    inputs = (
        randn(edges.shape[0], WIDTH),
        randn(edges.shape[1], WIDTH, seed=2),
        randn(edges.shape[1], WIDTH + 2, seed=3),
    )
    twins = [tensor.detach().to(dtype).requires_grad_() for tensor in inputs]
    weight = edges.softmax(edges.score(twins[0], twins[1]))
    found = edges.sum(weight, twins[2])
    if not edges.num_edges:
        assert weight.shape == (0,) and torch.equal(found, torch.zeros_like(found))
        return
    slow_weight = slow_softmax(edges, slow_score(edges, *inputs[:2]))
    expected = slow_sum(edges, slow_weight, inputs[2])
    target = randn(*found.shape, seed=4).detach()
    gradients = torch.autograd.grad((found * target.to(dtype)).sum(), twins)
    slow = torch.autograd.grad((expected * target).sum(), inputs)
    assert found.dtype == dtype
    tolerance = 1e-9 if dtype == torch.float64 else 2e-5
    pairs = [(weight, slow_weight), (found, expected), *zip(gradients, slow, strict=True)]
    for one, other in pairs:
        torch.testing.assert_close(one.double(), other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kernel", ["csr", "bag"])
@pytest.mark.parametrize("shape", SHAPES[:2])
def test_gradcheck_twice(kernel, shape):
    edges = make(*shape)
    a, b = randn(edges.shape[0], WIDTH), randn(edges.shape[1], WIDTH, seed=2)
    score, weight = randn(edges.num_edges, seed=3), randn(edges.num_edges, seed=4)
    with ops.use(kernel):
        for function, inputs in (
            (edges.score, (a, b)),
            (edges.softmax, (score,)),
            (edges.sum, (weight, b)),
        ):
            assert torch.autograd.gradcheck(function, inputs)
            assert torch.autograd.gradgradcheck(function, inputs)
        assert torch.autograd.gradcheck(edges.turn, (weight,))
        own = randn(edges.shape[1], seed=5)
        assert torch.autograd.gradcheck(edges.from_source, (own,)) and torch.autograd.gradgradcheck(
            edges.from_source, (own,)
        )


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_gives_the_same_weighted_sum(kernel):
    edges = make()
    weight, x = (
        randn(edges.num_edges, dtype=torch.float32),
        randn(COLUMNS, WIDTH, seed=2, dtype=torch.float32),
    )
    with ops.use(kernel):
        found = edges.sum(weight, x)
        gradients = torch.autograd.grad(found.square().sum(), (weight, x))
    expected = slow_sum(edges, weight, x)
    slow = torch.autograd.grad(expected.square().sum(), (weight, x))
    for one, other in zip((found, *gradients), (expected, *slow), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_a_destination_without_edges_gets_zero_and_no_nan():
    edges = make()
    x = randn(COLUMNS, WIDTH)
    y = edges.sum(edges.softmax(randn(edges.num_edges)), x)
    assert (y[2] == 0).all() and torch.isfinite(y).all()
    y.sum().backward()
    assert torch.isfinite(x.grad).all() and (x.grad[1] == 0).all()


def test_softmax_stands_large_scores_and_sums_to_one():
    edges = make()
    score = 1e4 * randn(edges.num_edges).detach()
    weight = edges.softmax(score.requires_grad_())
    sums = torch.zeros(ROWS, dtype=torch.float64).index_add(0, edges.ends()[0], weight)
    torch.testing.assert_close(sums, torch.tensor([1.0, 1, 0, 1, 1, 1, 1], dtype=torch.float64))
    weight.square().sum().backward()
    assert torch.isfinite(score.grad).all()


def test_turned_round_it_is_the_transpose():
    edges = make()
    weight, y = randn(edges.num_edges).detach(), randn(ROWS, WIDTH).detach()
    turned = edges.turn(weight)
    dense = torch.zeros(edges.shape, dtype=torch.float64).index_put(
        edges.ends(), weight, accumulate=True
    )
    torch.testing.assert_close(edges.T.sum(turned, y), dense.T @ y)
    assert edges.T.shape == edges.shape[::-1]
    assert torch.equal(edges.T.turn(turned), weight)
    pairs, back = edges.ends(), edges.T.ends()
    assert torch.equal(edges.turn(pairs[0]), back[1]) and torch.equal(edges.turn(pairs[1]), back[0])


def test_every_edge_has_its_source_s_number():
    for edges in (make(), make().T, make(6, 3, 0)):
        own = randn(edges.shape[1]).detach()
        assert torch.equal(edges.from_source(own), own[edges.ends()[1]])


def test_same_bits_with_several_threads():
    draw = torch.Generator().manual_seed(0)
    pairs = torch.randint(300, (2, 20000), generator=draw)
    edges = Edges(Adjacency(pairs[0], pairs[1] % 200, (300, 200)))
    a, b = randn(300, 64, dtype=torch.float32), randn(200, 64, seed=2, dtype=torch.float32)
    before, found = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        for _ in range(4):
            loss = edges.sum(edges.softmax(edges.score(a, b)), b).square().sum()
            found.append(torch.autograd.grad(loss, (a, b)))
    finally:
        torch.set_num_threads(before)
    assert all(
        torch.equal(one, other)
        for again in found[1:]
        for one, other in zip(found[0], again, strict=True)
    )


def test_moves_copies_and_stays_out_of_the_state_dict():
    edges = make()
    score = randn(edges.num_edges).detach()
    twin = copy.deepcopy(edges).to(torch.float64)
    assert torch.equal(twin.softmax(score), edges.softmax(score)) and not edges.state_dict()
    assert twin.to("meta").sum is not None and not edges._forward_indices.is_meta


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_cuda_as_on_the_cpu():
    edges = make()
    values = [randn(size, WIDTH, seed=size, dtype=torch.float32) for size in (ROWS, COLUMNS)]
    moved = [value.detach().cuda().requires_grad_() for value in values]
    results = []
    for module, (a, b) in ((edges, values), (copy.deepcopy(edges).cuda(), moved)):
        found = module.sum(module.softmax(module.score(a, b)), b)
        results.append((found, *torch.autograd.grad(found.square().sum(), (a, b))))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other.cpu(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda e: e.score(torch.zeros(ROWS, 3), torch.zeros(COLUMNS, 4)), "cannot score"),
        (lambda e: e.score(torch.zeros(COLUMNS, 3), torch.zeros(ROWS, 3)), "cannot score"),
        (lambda e: e.softmax(torch.zeros(2)), "need as many numbers"),
        (lambda e: e.sum(torch.zeros(e.num_edges), torch.zeros(ROWS, 3)), "cannot multiply"),
        (lambda e: e.turn(torch.zeros(e.num_edges, 1)), "need as many numbers"),
        (lambda e: e.from_source(torch.zeros(ROWS)), "11 sources need as many numbers"),
    ],
)
def test_wrong_shapes_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(make())
