"""Measures the false positives of the significance tests by simulation.

    python -m benchmarks.quality.pvalues           all cases, about ten minutes on one core; writes
                                                   results/pvalues.json
    python -m benchmarks.quality.pvalues --quick   fewer draws, nothing is written
    python -m benchmarks.quality.pvalues --kept    corrects results/robustness-*.json, see
    `corrected`

A false positive is p < .05 where two models do not differ. Each case draws the paired differences
of n users from a distribution with mean zero, shaped as metrics are: many zeros, ties, skew. Three
tests see the same resamples. `shifted` is the one of the package (`evaluation.p_value`).
`percentile` is twice the smaller share of resamples on one side of zero, which `dualgnn robustness`
used before. `studentised` is shifted and divided by each resample's own standard error (Efron &
Tibshirani 1993, section 16.4). A test that keeps its level has 5 % below .05.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from benchmarks.lib.paths import RESULTS
from dualgnn_dgl.evaluation import holm, p_value
from dualgnn_dgl.evaluation.intervals import resampled_means
from dualgnn_dgl.experiments.robustness.summary import RESAMPLES

RESULT = RESULTS / "pvalues.json"
LEVEL = 0.05
USERS = (20, 60, 200)
Draw = Callable[[np.random.Generator, int], np.ndarray]


def normal(rng: np.random.Generator, users: int) -> np.ndarray:
    """Draws differences without ties."""
    return rng.normal(0, 1, users)


def one_held_out(rng: np.random.Generator, users: int) -> np.ndarray:
    """Draws −1, 0 or 1: one held-out item per user, hit by either model in 30 % of the cases."""
    return (rng.random(users) < 0.3).astype(float) - (rng.random(users) < 0.3)


def rare_hits(rng: np.random.Generator, users: int) -> np.ndarray:
    """Draws the same with hits in 8 %: 85 % of the differences are zero."""
    return (rng.random(users) < 0.08).astype(float) - (rng.random(users) < 0.08)


def recall(rng: np.random.Generator, users: int) -> np.ndarray:
    """Draws differences of correlated recalls.

    Each user has several held-out items, found by both models with the user's own probability.
    """
    held, found = 1 + rng.geometric(0.3, users), rng.beta(0.5, 3, users)
    return (rng.binomial(held, found) - rng.binomial(held, found)) / held


def few_gain(rng: np.random.Generator, users: int) -> np.ndarray:
    """Draws a skewed null: a tenth of the users gain much, the others lose a little; mean zero."""
    return np.where(
        rng.random(users) < 0.1, rng.uniform(0.4, 1.4, users), rng.uniform(-0.2, 0, users)
    )


CASES: dict[str, Draw] = {
    "normal": normal,
    "one held-out item": one_held_out,
    "rare hits": rare_hits,
    "recall of several items": recall,
    "few users gain much": few_gain,
}


def p_values(differences: np.ndarray, rng: np.random.Generator, resamples: int) -> dict[str, float]:
    """Returns the p-values of one sample of differences (n,), all from the same resamples."""
    moments = np.stack([differences, differences**2], axis=1)  # (n, 2)
    mean, square = resampled_means(moments, rng, resamples).T  # (R,) each
    observed = float(differences.mean())
    error, errors = differences.std(), np.sqrt(np.maximum(square - mean**2, 0))
    if error > 0:
        # A resample without spread has an infinite distance, unless it equals the observed mean.
        distance = np.abs(mean - observed)
        scaled = np.divide(
            distance, errors, out=np.where(distance > 0, np.inf, 0.0), where=errors > 0
        )
        studentised = (1 + (scaled >= abs(observed) / error * (1 - 1e-9)).sum()) / (resamples + 1)
    else:
        studentised = 1.0 if observed == 0 else 1 / (resamples + 1)
    smaller = min((mean <= 0).sum(), (mean >= 0).sum())
    return {
        "shifted": float(p_value(observed, mean)),
        "percentile": float(min(1.0, 2 * (smaller + 1) / (resamples + 1))),
        "studentised": float(studentised),
    }


def false_positives(draw: Draw, users: int, samples: int, resamples: int) -> dict[str, float]:
    """Returns the share of `samples` samples with p < .05, by each test."""
    found: dict[str, int] = {}
    for sample in range(samples):
        rng = np.random.default_rng([sample, users])
        for test, p in p_values(draw(rng, users), rng, resamples).items():
            found[test] = found.get(test, 0) + (p < LEVEL)
    return {test: round(count / samples, 4) for test, count in found.items()}


def corrected(summary: dict) -> list[tuple[str, float, float]]:
    """Replaces the percentile p-values of a robustness summary, in place.

    The users' values behind these summaries were not kept, so nothing can be resampled. Over
    thousands of users the resampled differences are close to normal: their standard error follows
    from the kept 95 % interval. The new p is the mean of `evaluation.p_value` for it, (1 + R ·
    2Φ(−|d| / error)) / (R + 1), with Holm's correction as before.

    Returns:
        (place, old, new) of each p-value above rate zero.
    """
    # `ends` is the width of the interval in standard errors.
    found, ends = [], 2 * NormalDist().inv_cdf(0.975)
    for panel in summary["panels"]:
        for rate in dict.fromkeys(rate for row in panel["rows"] for rate in row["points"]):
            for label in ("versus", "kept_versus"):
                rows = [row for row in panel["rows"][1:] if label in row["points"].get(rate, {})]
                tests = [row["points"][rate][label] for row in rows]
                raw = []
                for test in tests:
                    error = (test["interval"][1] - test["interval"][0]) / ends
                    beyond = (
                        2 * NormalDist().cdf(-abs(test["difference"]) / error)
                        if error > 0
                        else float(test["difference"] == 0)
                    )
                    raw.append((1 + RESAMPLES * beyond) / (RESAMPLES + 1))
                for row, test, p in zip(rows, tests, holm(raw), strict=True):
                    place = (
                        f"{panel['stage']}, {panel['holes']} {rate}, {row['model']} "
                        f"{row['strategy']}, {label}"
                    )
                    if float(rate) > 0:
                        found.append((place, test["p"], p))
                    test["p"] = p
    return found


def correct_kept() -> None:
    """Corrects every summary on file that the percentile formula made, and prints the p-values."""
    for file in sorted(RESULT.parent.glob("robustness-*.json")):
        summary = json.loads(file.read_text(encoding="utf-8"))
        if "test" not in summary:
            for place, old, new in corrected(summary):
                print(f"{file.name}: {place}: {old:.4f} -> {new:.4f}")
            summary["test"] = (
                "shifted bootstrap with Holm's correction, its normal limit from the kept interval"
            )
            file.write_text(
                json.dumps(summary, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
            )


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=4000, help="samples of users a case")
    parser.add_argument("--resamples", type=int, default=999, help="bootstrap resamples a sample")
    parser.add_argument(
        "--quick", action="store_true", help="200 samples, 199 resamples, nothing is written"
    )
    parser.add_argument(
        "--kept",
        action="store_true",
        help="correct the p-values of results/robustness-*.json instead",
    )
    arguments = parser.parse_args()
    if arguments.kept:
        correct_kept()
        return
    samples, resamples = (200, 199) if arguments.quick else (arguments.samples, arguments.resamples)
    rows, started = [], time.perf_counter()
    print(
        "| differences | users | shifted (used) | percentile | studentised |\n| --- | --- | --- | "
        "--- | --- |"
    )
    for name, draw in CASES.items():
        for users in USERS:
            shares = false_positives(draw, users, samples, resamples)
            rows.append({"case": name, "users": users, **shares})
            print(
                f"| {name} | {users} | {' | '.join(f'{share:.1%}' for share in shares.values())} |",
                flush=True,
            )
    if not arguments.quick:
        about = {
            "level": LEVEL,
            "samples": samples,
            "resamples": resamples,
            "seconds": round(time.perf_counter() - started),
        }
        RESULT.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
