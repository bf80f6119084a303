"""Whether a judge knows when it is unsure: entropy of its distributions against its errors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rmkit.evaluation.agreement import rank_correlation
from rmkit.evaluation.outcomes import Outcome
from rmkit.evaluation.records import Scoring
from rmkit.rubric import Rubric
from rmkit.scores import ScoreDistribution
from rmkit.scoring.items import SIDES

BINS = 5


def relative_entropy(rubric: Rubric, distributions: Mapping[str, ScoreDistribution]) -> float:
    """Mean of the attributes' entropies, each divided by its largest value, log K; weighted as in the aggregate.

    Returns:
        A number in [0, 1]: 0 where every score is certain, 1 where all are equally probable.
    """
    total = weights = 0.0
    for attribute in rubric.attributes:
        distribution = distributions.get(attribute.key)
        if attribute.weight and distribution is not None:
            total += abs(attribute.weight) * distribution.entropy / math.log(len(distribution.values))
            weights += abs(attribute.weight)
    return total / weights if weights else 0.0


def compare_entropies(entropies: Sequence[float] | np.ndarray, errors: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Mean error by entropy.

    Args:
        entropies: Relative entropies, of shape (N,).
        errors: How wrong each was, (N,): 0 is right.

    Returns:
        `n`; Spearman's `spearman` of the two, None where one is constant; and `bins` of about equally many, with
        `low`, `high`, `n`, mean `entropy` and mean `error`. Equal entropies are never parted.
    """
    x, y = np.asarray(entropies, dtype=float), np.asarray(errors, dtype=float)
    bins = []
    if len(x):
        cuts = np.unique(np.quantile(x, np.arange(1, BINS) / BINS, method="inverted_cdf"))
        place = np.searchsorted(cuts, x, side="left")
        for number in np.unique(place):
            inside = place == number
            bins.append(
                {
                    "low": float(x[inside].min()),
                    "high": float(x[inside].max()),
                    "n": int(inside.sum()),
                    "entropy": float(x[inside].mean()),
                    "error": float(y[inside].mean()),
                }
            )
    return {"n": len(x), "spearman": rank_correlation(x.tolist(), y.tolist()), "bins": bins}


def entropy_of_pairs(scoring: Scoring, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Error rate of the judged comparisons by the mean relative entropy of their responses; see `compare_entropies`.

    A lost comparison is an error of 1, a tie of a half.
    """
    entropies, errors = [], []
    for outcome in outcomes:
        if outcome.verdict is None:
            continue
        places = zip(SIDES, (outcome.contest.chosen, outcome.contest.rejected), strict=True)
        keys = [(outcome.id, side, index) for side, indices in places for index in indices]
        found = [relative_entropy(scoring.rubric, scoring.judgments[key].attributes) for key in keys]
        entropies.append(float(np.mean(found)))
        errors.append((1 - outcome.verdict) / 2)
    return compare_entropies(entropies, errors)
