"""How well judged score distributions agree with human ratings: error, kappa, rank correlation, calibration.

Training and evaluation reports share these figures. A figure that the data do not define is None, never a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr
from statsmodels.stats.inter_rater import cohens_kappa

from rmkit.evaluation.reliability import Reliability, bin_reliability
from rmkit.scores import ScoreDistribution


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of the score distributions of one attribute with ratings on the same scale.

    Args:
        n: Rated responses with a judgement, at least 1.
        mae: Mean absolute error of the expected score (the mean), in score steps.
        qwk: Quadratic weighted kappa of the most probable scores (the modes), see `quadratic_kappa`.
        spearman: Rank correlation of the expected scores, see `rank_correlation`.
        reliability: Of the statements "the rating is the mode", made with confidence P(mode).
    """

    n: int
    mae: float
    qwk: float | None
    spearman: float | None
    reliability: Reliability

    @property
    def calibration_error(self) -> float | None:
        """Expected calibration error of the most probable score, in [0, 1]."""
        return self.reliability.expected_calibration_error


def measure_agreement(distributions: Sequence[ScoreDistribution], ratings: Sequence[int]) -> Agreement:
    """Compare score distributions of one attribute with ratings.

    Calibration is that of the most probable score (top-label, Guo et al., arXiv 1706.04599): of all scores to which
    the judge gives about 70 %, 70 % should be the rating. P(score) is over the legal scores; what lies outside the
    scale is a figure of its own.

    Args:
        distributions: At least one, all over the same legal scores.
        ratings: One for each, a legal score.

    Raises:
        ValueError: If there are none, or the lengths differ.

    Example:
        >>> sure, torn = ScoreDistribution((1, 2, 3), (0.0, 0.1, 0.9)), ScoreDistribution((1, 2, 3), (0.6, 0.4, 0.0))
        >>> found = measure_agreement([sure, torn, torn], [3, 2, 1])
        >>> round(found.mae, 3), found.qwk, round(found.spearman, 3), round(found.calibration_error, 3)
        (0.367, 0.8, 0.866, 0.1)
    """
    if not distributions or len(distributions) != len(ratings):
        raise ValueError(f"{len(distributions)} distributions and {len(ratings)} ratings: give as many, at least one")
    means = [distribution.mean for distribution in distributions]
    modes = [distribution.mode for distribution in distributions]
    return Agreement(
        n=len(ratings),
        mae=float(np.abs(np.subtract(means, ratings)).mean()),
        qwk=quadratic_kappa(modes, ratings),
        spearman=rank_correlation(means, ratings),
        reliability=bin_reliability(
            [max(distribution.probabilities) for distribution in distributions], np.equal(modes, ratings)
        ),
    )


def quadratic_kappa(scores: Sequence[int], ratings: Sequence[int]) -> float | None:
    """Quadratic weighted kappa (Cohen 1968): 1 - mean (s - r)^2 / the same mean if both were drawn independently.

    1 is full agreement and 0 what chance gives; below 0 it is worse. Scores that nobody gave add nothing, so the
    table needs only those that occur, at their distances on the scale.

    Returns:
        The kappa, or None where all ratings are equal: then there is nothing to agree about.

    Example:
        >>> quadratic_kappa([3, 1, 1], [3, 2, 1])  # 1 - (1/3) / (5/3)
        0.8
    """
    if len(set(ratings)) < 2:
        return None
    values, places = np.unique([*scores, *ratings], return_inverse=True)
    rows, columns = np.split(places, 2)
    table = np.zeros((len(values), len(values)))
    np.add.at(table, (rows, columns), 1)
    kappa = float(cohens_kappa(table, weights=values, wt="quadratic", return_results=False))
    return round(kappa, 12) + 0.0  # chance is 0, and not what rounding leaves of it


def rank_correlation(scores: Sequence[float], ratings: Sequence[float]) -> float | None:
    """Spearman's rank correlation, tied values at their mean rank; None where a side is constant."""
    if len(set(scores)) < 2 or len(set(ratings)) < 2:
        return None  # no ranks to correlate
    return float(spearmanr(scores, ratings).statistic)
