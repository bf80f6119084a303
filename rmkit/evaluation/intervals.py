"""How sure a figure is: Wilson intervals and a stratified bootstrap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from statsmodels.stats.proportion import proportion_confint

from rmkit.evaluation.metrics import TIE_CREDITS, Counts

LEVEL = 0.95
"""Coverage of every interval."""

QUANTILES = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
"""The quantiles of resampled figures that bound an interval."""


def wilson_intervals(counts: Counts, accuracy: Mapping[str, float] | None = None) -> dict[str, list[float]]:
    """Wilson score interval of the accuracy for each tie convention, as [low, high] in [0, 1].

    Ties at half credit enter as half a success. That makes the interval a little too wide, never too
    narrow: a half varies less than a coin flip.

    Args:
        counts: Counts of independent comparisons.
        accuracy: Accuracy per tie convention where ties count another share; by default that of the counts.

    Example:
        >>> counts = Counts(n=10, wins=8, ties=0, losses=2, errors=0, truncated=0)
        >>> [round(bound, 3) for bound in wilson_intervals(counts)["ties_zero"]]
        [0.49, 0.943]
    """
    intervals = {}
    for convention, share in (counts.accuracy() if accuracy is None else accuracy).items():
        low, high = proportion_confint(share * counts.n, counts.n, alpha=1 - LEVEL, method="wilson")
        intervals[convention] = [float(low), float(high)]
    return intervals


def resample_accuracies(rows: Mapping[str, np.ndarray], resamples: int, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Accuracies of resampled subsets: whole records, drawn within each subset (a stratified bootstrap).

    Args:
        rows: For each subset, what its records earned, as `rmkit.evaluation.metrics.credit_rows` gives it.
        resamples: Number of resamples, R.
        seed: Seed of the generator; the same seed gives the same numbers.

    Returns:
        For each subset, for each tie convention, an array of shape (R,).
    """
    return {
        name: {convention: sums[:, column] / sums[:, -1] for column, convention in enumerate(TIE_CREDITS)}
        for name, sums in resample_sums(rows, resamples, seed).items()
    }


def resample_sums(rows: Mapping[str, np.ndarray], resamples: int, seed: int) -> dict[str, np.ndarray]:
    """Sums over resampled records, drawn with replacement within each subset.

    Drawing n records with replacement only matters through how often each distinct row is drawn, so those
    numbers are drawn at once, from the multinomial distribution.

    Args:
        rows: For each subset, one row per record, of shape (records, columns).
        resamples: Number of resamples, R.
        seed: Seed of the generator.

    Returns:
        For each subset, the sum of each column in each resample, of shape (R, columns).
    """
    generator = np.random.default_rng(seed)
    sums = {}
    for name, records in rows.items():
        distinct, numbers = np.unique(records, axis=0, return_counts=True)
        drawn = generator.multinomial(len(records), numbers / len(records), size=resamples)  # (R, distinct)
        sums[name] = drawn @ distinct
    return sums


def share_interval(rows: np.ndarray, resamples: int, seed: int) -> list[float] | None:
    """The interval of a share, from parts and wholes of records that were drawn as one.

    Args:
        rows: What counts and out of how many, of shape (records, 2); halves are allowed.
        resamples: Number of bootstrap resamples.
        seed: Seed of the generator.

    Returns:
        [low, high]: Wilson's where no record counts more than once, else percentiles of a bootstrap of records. None
        without anything to count.
    """
    rows = rows[rows[:, 1] > 0]
    if not len(rows):
        return None
    if rows[:, 1].max() <= 1:
        part, whole = rows.sum(axis=0)
        low, high = proportion_confint(part, whole, alpha=1 - LEVEL, method="wilson")
        return [float(low), float(high)]
    sums = resample_sums({"": rows}, resamples, seed)[""]
    return np.quantile(sums[:, 0] / sums[:, 1], QUANTILES).tolist()


def mean_interval(rows: np.ndarray, resamples: int, seed: int) -> dict[str, Any]:
    """The mean of numbers of any sign, with percentiles of a bootstrap of the records that they belong to.

    Args:
        rows: Sum and number of each record, of shape (records, 2).
        resamples: Number of bootstrap resamples.
        seed: Seed of the generator.

    Returns:
        `mean` and `interval`, both None without any number.
    """
    rows = rows[rows[:, 1] > 0]
    if not len(rows):
        return {"mean": None, "interval": None}
    sums = resample_sums({"": rows}, resamples, seed)[""]
    interval = np.quantile(sums[:, 0] / sums[:, 1], QUANTILES).tolist()
    return {"mean": float(rows[:, 0].sum() / rows[:, 1].sum()), "interval": interval}


def percentile_intervals(resampled: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """The middle `LEVEL` of resampled figures, of shape (R,), for each tie convention, as [low, high].

    Where every pair had the same outcome, all resamples agree and the interval is a point: too narrow.
    """
    return {convention: np.quantile(values, QUANTILES).tolist() for convention, values in resampled.items()}
