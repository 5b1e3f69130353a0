"""The one search for nearest rows.

Against sorting all cosines, and the same for any size of its blocks.
"""

from __future__ import annotations

import pytest
import torch

from dualgnn_dgl.graphs.nearest import nearest, unit


@pytest.mark.parametrize("rows", [None, 1, 5])
@pytest.mark.parametrize("own", [None, torch.inf, -torch.inf])
def test_nearest_equals_sorting(own, rows) -> None:
    draw = torch.Generator().manual_seed(3)
    keys = unit(torch.randn(23, 4, generator=draw))
    queries = keys if own is not None else unit(torch.randn(17, 4, generator=draw))
    place, cosine = nearest(queries, keys, 6, "test", own=own, rows=rows)
    slow = queries.double() @ keys.double().T
    if own is not None:
        slow.fill_diagonal_(own)
    expected = slow.sort(dim=1, descending=True)
    assert torch.equal(place, expected.indices[:, :6])
    torch.testing.assert_close(
        cosine.double(), expected.values[:, :6].clamp(-1, 1), atol=1e-6, rtol=0
    )


def test_no_queries_and_zero_rows() -> None:
    place, cosine = nearest(torch.empty(0, 4), unit(torch.ones(5, 4)), 3, "test")
    assert place.shape == cosine.shape == (0, 3) and place.dtype == torch.int64
    place, cosine = nearest(unit(torch.zeros(2, 4)), unit(torch.ones(5, 4)), 2, "test")
    assert torch.equal(cosine, torch.zeros(2, 2)) and len(set(place[0].tolist())) == 2
