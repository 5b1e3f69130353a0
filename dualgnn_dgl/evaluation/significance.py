"""Tests whether one model is better than another on the same users.

Paired differences have an interval and two tests, which ask different things. The bootstrap asks
whether the *mean* difference could be zero, which is the claim of a table of means. Wilcoxon's
signed-rank test asks whether the differences are symmetric around zero; it needs no mean, and a
large difference weighs no more than its rank. Where the two disagree, a few users make the
difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dualgnn_dgl.errors import ConfigError, DataError
from dualgnn_dgl.evaluation.intervals import percentiles, resampled_means


@dataclass(frozen=True)
class Difference:
    """The difference between a model and the base over the same users, positive where better.

    Attributes:
        mean: Mean over users of model − base.
        low: Lower end of its bootstrap interval; None without resamples.
        high: Upper end of its bootstrap interval; None without resamples.
        p_bootstrap: Two-sided p-value of the bootstrap; None without resamples.
        p_wilcoxon: Two-sided p-value of Wilcoxon's signed-rank test.
        better: Users for whom the model's value is above the base's.
        worse: Users for whom the model's value is below the base's.
    """

    mean: float
    low: float | None
    high: float | None
    p_bootstrap: float | None
    p_wilcoxon: float
    better: int
    worse: int


def paired(
    base: np.ndarray,
    others: Mapping[str, np.ndarray],
    seed: int | np.random.Generator = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> dict[str, Difference]:
    """Compares each of `others` with `base`, user by user.

    The bootstrap's p-value is that of `p_value`. Wilcoxon's test leaves out users whose two values
    agree.

    Args:
        base: Values of one metric for B users, (B,).
        others: Name → (B,) values of the same metric for the same users in the same order.
        seed: A seed or a generator; all of `others` share the same draws of users.
        resamples: Bootstrap resamples; 0 leaves out interval and p-value.
        level: Share of resampled means inside the interval.

    Raises:
        DataError: If there are no users, or their number differs.
        ConfigError: If `resamples` is negative.

    Sources: Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapters 13 and 16;
    Wilcoxon, Individual Comparisons by Ranking Methods (1945).

    >>> base = np.array([0.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    >>> found = paired(base, {"same": base, "other": np.array([1.0, 1.0, 1.0, 0.0, 1.0, 1.0])})
    >>> found["same"].mean, found["same"].p_bootstrap, found["same"].p_wilcoxon
    (0.0, 1.0, 1.0)
    >>> found["other"].mean, found["other"].better, found["other"].worse
    (0.5, 3, 0)
    """
    if not base.size or any(values.shape != base.shape for values in others.values()):
        sizes = [len(values) for values in (base, *others.values())]
        raise DataError(f"a paired comparison needs the same users everywhere, got {sizes} of them")
    if resamples < 0:
        raise ConfigError(f"a bootstrap of {resamples} resamples was asked for: ask for 0 or more")
    if not others:
        return {}
    differences = np.stack([values - base for values in others.values()], axis=1)  # (B, n)
    means = differences.mean(axis=0)  # (n,)
    low = high = p = [None] * len(means)
    if resamples:
        drawn = resampled_means(differences, seed, resamples)  # (resamples, n)
        low, high = (end.tolist() for end in percentiles(drawn, level))
        p = p_value(means, drawn).tolist()
    return {
        name: Difference(
            float(means[n]),
            low[n],
            high[n],
            p[n],
            _wilcoxon(differences[:, n]),
            int((differences[:, n] > 0).sum()),
            int((differences[:, n] < 0).sum()),
        )
        for n, name in enumerate(others)
    }


def p_value(observed: float | np.ndarray, resampled: np.ndarray) -> np.ndarray:
    """Tests whether a mean difference is zero, by bootstrap resamples shifted to that hypothesis.

    With d the observed difference and d* those of R resamples, d* − d is the variation by chance of
    a difference of zero, so that p = (1 + #{|d* − d| ≥ |d|}) / (R + 1). The test is two-sided. The
    observed difference counts as one of the resamples: p is never zero, and its smallest value is 1
    / (R + 1).

    benchmarks/quality/pvalues.py measures false positives: where two models differ by chance alone,
    4 to 6 % of the p-values of 60 users or more fall below .05. With fewer users, or where a few
    users make the difference, up to 19 % do.

    Args:
        observed: Differences d, () or (n,).
        resampled: The same of the resamples, (R,) or (R, n).

    Returns:
        p-values in the shape of `observed`.

    Sources: Efron & Tibshirani, An Introduction to the Bootstrap (1993), section 16.4; Davison &
    Hinkley, Bootstrap Methods and their Application (1997), chapter 4, also for the added one.

    >>> p_value(2.0, np.array([1.0, 2.0, 3.0, 4.0])).item()
    0.4
    """
    # Sums in another order round differently: the tolerance keeps equal distances equal.
    far = np.abs(resampled - observed) >= np.abs(observed) * (1 - 1e-9)
    return np.asarray((1 + far.sum(axis=0)) / (len(resampled) + 1))


def _wilcoxon(differences: np.ndarray) -> float:
    """Returns the two-sided p-value of the signed-rank test, 1 if all differences are zero."""
    from scipy.stats import wilcoxon

    moved = differences[differences != 0]
    return float(wilcoxon(moved).pvalue) if moved.size else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p-values for their number by Holm's step-down procedure.

    Of n p-values the smallest is multiplied by n, the next by n − 1 and so on, and none becomes
    smaller than the one before. This keeps the chance of even one false positive among all tests at
    the chosen level.

    Args:
        p_values: One for each test.

    Returns:
        The corrected p-values, in the same order.

    Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure (1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, least = [0.0] * len(p_values), 0.0
    for place, n in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[n]))
        adjusted[n] = least
    return adjusted
