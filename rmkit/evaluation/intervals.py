"""How sure an accuracy is: Wilson intervals and a stratified bootstrap."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from statsmodels.stats.proportion import proportion_confint

from rmkit.evaluation.metrics import TIE_CREDITS, Counts

LEVEL = 0.95
"""Coverage of every interval."""


def wilson_intervals(counts: Counts) -> dict[str, list[float]]:
    """Wilson score interval of the accuracy for each tie convention, as [low, high] in [0, 1].

    Ties at half credit enter as half a success. That makes the interval a little too wide, never too
    narrow: a half varies less than a coin flip.

    Example:
        >>> counts = Counts(n=10, wins=8, ties=0, losses=2, errors=0, truncated=0)
        >>> [round(bound, 3) for bound in wilson_intervals(counts)["ties_zero"]]
        [0.49, 0.943]
    """
    intervals = {}
    for convention, accuracy in counts.accuracy().items():
        low, high = proportion_confint(accuracy * counts.n, counts.n, alpha=1 - LEVEL, method="wilson")
        intervals[convention] = [float(low), float(high)]
    return intervals


def resample_accuracies(counts: Mapping[str, Counts], resamples: int, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Accuracies of resampled subsets, drawn within each subset (a stratified bootstrap).

    Drawing n pairs with replacement from a subset only matters through how many of them are won, tied and
    neither, so those three numbers are drawn at once, from the multinomial distribution.

    Args:
        counts: Counts per subset.
        resamples: Number of resamples, R.
        seed: Seed of the generator; the same seed gives the same numbers.

    Returns:
        For each subset, for each tie convention, an array of shape (R,).
    """
    generator = np.random.default_rng(seed)
    resampled = {}
    for name, count in counts.items():
        shares = np.array([count.wins, count.ties, count.n - count.wins - count.ties]) / count.n
        drawn = generator.multinomial(count.n, shares, size=resamples)  # (R, 3)
        resampled[name] = {
            convention: (drawn[:, 0] + credit * drawn[:, 1]) / count.n for convention, credit in TIE_CREDITS.items()
        }
    return resampled


def percentile_intervals(resampled: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """The middle `LEVEL` of resampled figures, of shape (R,), for each tie convention, as [low, high].

    Where every pair had the same outcome, all resamples agree and the interval is a point: too narrow.
    """
    quantiles = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    return {convention: np.quantile(values, quantiles).tolist() for convention, values in resampled.items()}
