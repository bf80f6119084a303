"""Whether a judge favours long responses: beyond what is true of the better ones, and at equal quality.

A response's length is its number of characters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from statsmodels.regression.linear_model import OLS

from rmkit.evaluation.intervals import LEVEL, mean_interval, share_interval
from rmkit.evaluation.outcomes import Outcome
from rmkit.evaluation.records import Scoring
from rmkit.schema import PreferencePair
from rmkit.scores import verdict
from rmkit.scoring.items import SIDES

RATIO_EDGES = (-1.5, -0.5, -0.1, 0.1, 0.5, 1.5)
"""Where groups of pairs by log2(length of chosen / length of rejected) end: about equal between the middle two."""

LEAST_FOR_SLOPE = 10
"""Fewer records have no slope: its interval would rest on the regression's form alone."""


@dataclass(frozen=True, slots=True)
class _Duel:
    """One chosen against one rejected response: the logarithm of how much longer chosen is, and who is higher."""

    record: str
    ratio: float
    verdict: int | None


def measure_length_bias(
    scoring: Scoring, groups: Mapping[str, Sequence[Outcome]], seed: int = 0, resamples: int = 2000
) -> dict[str, Any]:
    """Length bias of each subset, and of all pairs.

    Args:
        scoring: Pairs with their judgements.
        groups: Outcomes per subset. Each chosen response of a contest meets each rejected one.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.

    Returns:
        `subsets` and `all_pairs`, each as `_measure` gives it; `by_ratio`, the accuracy (ties half) of the judged
        comparisons between any two of `RATIO_EDGES`, from `low` to `high` (None: no bound); and `slope`, over all
        judged responses: see `fit_slope`; quality is chosen or rejected, and responses are compared within their
        pair only.
    """
    pairs = {pair.id: pair for pair in scoring.pairs}
    duels = {
        name: [
            duel
            for outcome in outcomes
            if outcome.id in pairs  # a row that could not be read has no length
            for duel in _list_duels(pairs[outcome.id], outcome, scoring)
        ]
        for name, outcomes in groups.items()
    }
    everything = [duel for found in duels.values() for duel in found]
    return {
        "subsets": {name: _measure(found, seed, resamples) for name, found in duels.items()},
        "all_pairs": _measure(everything, seed, resamples),
        "by_ratio": _bin_ratios(everything, seed, resamples),
        "slope": _fit_pairs(scoring),
    }


def _list_duels(pair: PreferencePair, outcome: Outcome, scoring: Scoring) -> list[_Duel]:
    duels = []
    for i in outcome.contest.chosen:
        for j in outcome.contest.rejected:
            judged = [scoring.judgments.get((pair.id, side, n)) for side, n in zip(SIDES, (i, j), strict=True)]
            first, second = (None if found is None else found.aggregate for found in judged)
            higher = None if first is None or second is None else verdict(first, second)
            ratio = float(np.log2(len(pair.chosen[i])) - np.log2(len(pair.rejected[j])))
            duels.append(_Duel(outcome.contest.record, ratio, higher))
    return duels


def _measure(duels: Sequence[_Duel], seed: int, resamples: int) -> dict[str, Any]:
    """Figures of some comparisons of one chosen with one rejected response.

    Returns:
        The numbers `chosen_longer`, `chosen_shorter` and `equal_length`. Of those that differ in length, with a share
        in [0, 1], its number n and an interval each: `longer_preferred`, how often the longer response has the higher
        aggregate (ties half, errors left out); `longer_chosen`, how often it should have; `accuracy_longer` and
        `accuracy_shorter`, the accuracy where chosen is the longer or the shorter one (ties half, errors wrong). Last
        `excess`: longer_preferred - longer_chosen over the judged ones, with a bootstrap's interval.
    """
    longer = np.array([duel.ratio > 0 for duel in duels], dtype=bool)
    shorter = np.array([duel.ratio < 0 for duel in duels], dtype=bool)
    judged = np.array([duel.verdict is not None for duel in duels], dtype=bool)
    won = np.array([0.0 if duel.verdict is None else (duel.verdict + 1) / 2 for duel in duels])
    uneven = longer | shorter
    parts = {
        "longer_preferred": (np.where(longer, won, 1 - won), uneven & judged),
        "longer_chosen": (longer.astype(float), uneven),
        "accuracy_longer": (won, longer),
        "accuracy_shorter": (won, shorter),
    }
    places = {record: place for place, record in enumerate(dict.fromkeys(duel.record for duel in duels))}
    place = np.array([places[duel.record] for duel in duels], dtype=int)

    def add_up(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
        sums = (np.bincount(place, weights=values * counted), np.bincount(place, weights=counted))
        return np.stack(sums, axis=1)  # (records, 2)

    figures: dict[str, Any] = {
        "chosen_longer": int(longer.sum()),
        "chosen_shorter": int(shorter.sum()),
        "equal_length": len(duels) - int(uneven.sum()),
    }
    for name, (values, counted) in parts.items():
        rows = add_up(values, counted)
        n = int(rows[:, 1].sum())
        figures[name] = {
            "share": float(rows[:, 0].sum() / n) if n else None,
            "n": n,
            "interval": share_interval(rows, resamples, seed),
        }
    figures["excess"] = mean_interval(add_up(parts["longer_preferred"][0] - longer, uneven & judged), resamples, seed)
    return figures


def _bin_ratios(duels: Sequence[_Duel], seed: int, resamples: int) -> list[dict[str, Any]]:
    places: dict[int, dict[str, list[float]]] = {}
    for duel in duels:
        if duel.verdict is not None:
            rows = places.setdefault(int(np.searchsorted(RATIO_EDGES, duel.ratio)), {})
            row = rows.setdefault(duel.record, [0.0, 0.0])
            row[0] += (duel.verdict + 1) / 2
            row[1] += 1
    bounds = [None, *RATIO_EDGES, None]
    bins = []
    for place in sorted(places):
        counted = np.array(list(places[place].values()))
        part, whole = counted.sum(axis=0).tolist()
        bins.append(
            {
                "low": bounds[place],
                "high": bounds[place + 1],
                "n": int(whole),
                "accuracy": part / whole,
                "interval": share_interval(counted, resamples, seed),
            }
        )
    return bins


def _fit_pairs(scoring: Scoring) -> dict[str, Any] | None:
    scores, lengths, quality, groups = [], [], [], []
    for number, pair in enumerate(scoring.pairs):
        for side in SIDES:
            for index, response in enumerate(getattr(pair, side)):
                judgment = scoring.judgments.get((pair.id, side, index))
                if judgment is not None and judgment.aggregate is not None:
                    scores.append(judgment.aggregate)
                    lengths.append(len(response))
                    quality.append(float(side == "chosen"))
                    groups.append(number)
    return fit_slope(np.array(scores), np.array(lengths), np.array(quality), np.array(groups), within=True)


def fit_slope(
    scores: np.ndarray, lengths: np.ndarray, quality: np.ndarray, groups: np.ndarray, within: bool
) -> dict[str, Any] | None:
    """How much higher a response is scored for each doubling of its length, at equal quality.

    Least squares of score = a + b log2(length) + c quality, with statsmodels; the interval of b is by standard errors
    that are robust to groups being correlated within.

    Args:
        scores: The judge's scores, of shape (N,).
        lengths: Lengths in characters, (N,).
        quality: A known measure of quality, (N,): chosen or rejected, or a human rating.
        groups: Which responses belong together, (N,): those of one pair, or of one prompt.
        within: Whether each group has an `a` of its own, so that only responses of one group are compared.

    Returns:
        `slope` (b), its `interval`, its two-sided `p_value` (None for a perfect fit), `quality` (c), and the numbers
        of `responses` and `groups`. None where there are fewer than `LEAST_FOR_SLOPE` groups, or lengths don't vary
        beside quality.
    """
    _, place = np.unique(groups, return_inverse=True)
    count = int(place.max()) + 1 if len(place) else 0
    if count < LEAST_FOR_SLOPE:
        return None
    columns = np.stack([scores, np.log2(np.maximum(lengths, 1)), quality], axis=1).astype(float)
    sizes = np.bincount(place)[:, None]
    means = np.stack([np.bincount(place, weights=column) for column in columns.T], axis=1) / sizes
    columns = columns - (means[place] if within else columns.mean(axis=0))
    design = columns[:, 1:]
    if np.linalg.matrix_rank(design, tol=1e-9 * len(design)) < design.shape[1] or np.ptp(columns[:, 0]) == 0:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):  # of a perfect fit, which has no p-value
        fit = OLS(columns[:, 0], design).fit(cov_type="cluster", cov_kwds={"groups": place})
        p_value = float(fit.pvalues[0])
    return {
        "slope": float(fit.params[0]),
        "interval": [float(bound) for bound in fit.conf_int(alpha=1 - LEVEL)[0]],
        "p_value": p_value if np.isfinite(p_value) else None,
        "quality": float(fit.params[1]),
        "responses": len(scores),
        "groups": count,
    }
