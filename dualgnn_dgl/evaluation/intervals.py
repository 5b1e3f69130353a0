"""Bootstrap intervals: how much a mean over users would vary with other users.

`resampled_means` makes the resamples of every interval and test: of means, paired differences,
ratios and slices of users.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dualgnn_dgl.errors import ConfigError

_BUDGET = 64 * 2**20


def bootstrap(
    per_user: Mapping[str, np.ndarray],
    seed: int | np.random.Generator,
    resamples: int = 1000,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Computes the percentile interval of every mean, with users drawn with replacement.

    All metrics share the same draws, see `resampled_means`.

    Args:
        per_user: Metric → (B,) values of the same B users.
        seed: A seed or a generator.
        resamples: Number of resamples.
        level: Share of resampled means inside the interval.

    Returns:
        Metric → (low, high).

    Raises:
        ConfigError: If `resamples` < 1 or `level` is not within 0…1.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.

    >>> bootstrap({"hit@1": np.ones(7)}, seed=0)
    {'hit@1': (1.0, 1.0)}
    """
    if resamples < 1:
        raise ConfigError(f"a bootstrap of {resamples} resamples was asked for: ask for 1 or more")
    if not 0 < level < 1:
        raise ConfigError(
            f"a bootstrap interval of level {level} was asked for: ask for a share between 0 and 1"
        )
    # The means have shape (resamples, metrics).
    means = resampled_means(np.stack(list(per_user.values()), axis=1), seed, resamples)
    low, high = percentiles(means, level)
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(per_user)}


def percentiles(resampled: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ends (low, high) of the interval that covers the share `level`.

    Args:
        resampled: Resampled values, (resamples, …).
        level: Share of the values inside the interval.

    >>> [round(float(end), 6) for end in percentiles(np.arange(101.0))]
    [2.5, 97.5]
    """
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def resampled_means(
    values: np.ndarray, seed: int | np.random.Generator, resamples: int
) -> np.ndarray:
    """Computes column means of `values`, with rows drawn with replacement.

    Equal rows are interchangeable. A resample is therefore drawn as the number of times each
    distinct row occurs in it, one multinomial draw, and one set of draws serves all columns.

    Args:
        values: (B, n).
        seed: A seed or a generator.
        resamples: Number of resamples.

    Returns:
        (resamples, n) float64.

    >>> resampled_means(np.array([[1.0, 2.0]] * 5), seed=0, resamples=3).tolist()
    [[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]
    """
    generator = np.random.default_rng(seed)
    rows, occurs = np.unique(values.astype(np.float64), axis=0, return_counts=True)  # (d, n), (d,)
    share = occurs / len(values)
    means = np.empty((resamples, values.shape[1]))
    step = max(1, _BUDGET // (8 * len(rows)))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        means[start : start + size] = (
            generator.multinomial(len(values), share, size=size) @ rows / len(values)
        )
    return means
