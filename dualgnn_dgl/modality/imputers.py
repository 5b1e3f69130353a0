"""Training-free imputers: an absent row becomes a weighted mean of the present rows.

All imputers have one form. Let X (I, F) be the features, zero where absent, p (I,) be 1 where
present, and L (I, I) be an operator with weights ≥ 0. For absent i,

    x̃_i = (L X)_i / (L p)_i,    or the mean of all present rows where (L p)_i = 0

    mean             L = 1 1ᵀ
    neighbour_mean   L = A
    multi_hop        X ← H X, then present rows are reset to their values; `hops` times
    ppr              L = α (I − (1−α) H)⁻¹    personalised PageRank
    heat             L = exp(−t (I − H))      heat diffusion

A is the graph of items watched by the same users in training (`neighbours.item_graph`), and
H = D^-½ A D^-½. `zero` imputes zeros, the silent default of most toolkits. No inverse is formed:
PageRank uses Chebyshev's acceleration of its fixed-point iteration, heat the Taylor series
exp(−t) Σ tⁿ Hⁿ / n!, both to a relative 1e-6.

Sources: the imputers and the graph are those of Malitesta et al., CIKM 2024 (arXiv 2408.11767), and
heat is that of its 2026 sequel (arXiv 2602.17354). Multi-hop is feature propagation (Rossi et al.,
LoG 2022); personalised PageRank and heat as graph diffusions are from Gasteiger et al., NeurIPS
2019; Chebyshev acceleration is from Golub & Varga, Numer. Math. 1961. Two differences from their
code: missing rows do not count in a mean, where theirs enter as zeros, so all results are divided
by L p; and diffusions are not reduced to their k largest entries.

To add an imputer, write an operator here, (X, p, A, options) → L X, and add its line to `IMPUTERS`.
`impute`, `preprocess`, `train` and `robustness` read the names from there. The command line imports
this file, so NumPy and SciPy are imported inside the functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dualgnn_dgl.core.options import Options, option

if TYPE_CHECKING:
    import numpy as np
    from scipy import sparse

    Operator = Callable[[np.ndarray, np.ndarray, sparse.csr_matrix | None, "Imputing"], np.ndarray]

TOLERANCE = 1e-6


@dataclass(frozen=True)
class Imputing(Options):
    """Options of the imputers; each uses its own and the graph's k."""

    k: int = option(20, "neighbours an item in the item graph", low=1)
    hops: int = option(20, "steps of multi_hop", low=1)
    alpha: float = option(0.1, "restart probability α of ppr", low=1e-3, high=1)
    time: float = option(5.0, "diffusion time t of heat", low=0, high=100)


def _mean(
    x: np.ndarray, present: np.ndarray, graph: sparse.csr_matrix | None, options: Imputing
) -> np.ndarray:
    import numpy as np

    return np.broadcast_to(x.sum(axis=0, dtype=np.float64).astype(np.float32), x.shape)


def _neighbour_mean(
    x: np.ndarray, present: np.ndarray, graph: sparse.csr_matrix, options: Imputing
) -> np.ndarray:
    return graph @ x


def _multi_hop(
    x: np.ndarray, present: np.ndarray, graph: sparse.csr_matrix, options: Imputing
) -> np.ndarray:
    from dualgnn_dgl.modality.neighbours import normalised

    step, y = normalised(graph), x
    for _ in range(options.hops):
        y = step @ y
        y[present] = x[present]
    return y


def _ppr(
    x: np.ndarray, present: np.ndarray, graph: sparse.csr_matrix, options: Imputing
) -> np.ndarray:
    """Computes z⁺ = ω (G z + α x − z⁻) + z⁻ with G = (1−α) H (Golub & Varga 1961).

    The eigenvalues of G are within ±(1−α).
    """
    import numpy as np

    from dualgnn_dgl.modality.neighbours import normalised

    radius = 1 - options.alpha
    step, source = normalised(graph) * np.float32(radius), np.float32(options.alpha) * x
    rate = radius / (1 + np.sqrt(1 - radius**2))  # factor of the error per step
    before, z, omega = np.zeros_like(x), source, 1.0
    steps = int(np.ceil(np.log(TOLERANCE / 2) / np.log(rate))) if rate > 0 else 0
    for n in range(steps):
        omega = 1 / (1 - radius**2 / 2) if n == 0 else 1 / (1 - radius**2 * omega / 4)
        before, z = z, np.float32(omega) * (step @ z + source - before) + before
    return z


def _heat(
    x: np.ndarray, present: np.ndarray, graph: sparse.csr_matrix, options: Imputing
) -> np.ndarray:
    """Computes exp(−t) Σ tⁿ Hⁿ x / n!; the rest is the tail of a Poisson distribution of mean t."""
    import numpy as np

    from dualgnn_dgl.modality.neighbours import normalised

    step, t = normalised(graph), options.time
    share = np.exp(-t)
    y, total, covered, n = x, np.float32(share) * x, share, 0
    while 1 - covered > TOLERANCE:
        n += 1
        y, share = step @ y, share * t / n
        total, covered = total + np.float32(share) * y, covered + share
        if n > 10 * t + 100:  # `covered` may stay below 1 by rounding.
            break
    return total


IMPUTERS: dict[str, Operator | None] = {
    "zero": None,  # no operator is needed
    "mean": _mean,
    "neighbour_mean": _neighbour_mean,
    "multi_hop": _multi_hop,
    "ppr": _ppr,
    "heat": _heat,
}
