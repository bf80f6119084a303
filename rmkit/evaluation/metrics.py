"""Figures of judged pairs: counts, accuracy under both tie conventions, reliability, agreement with truth.

Two policies live here. A tie counts a half (`ties_half`) or nothing (`ties_zero`); both are always given. A
pair without a verdict, because a side failed or was not scored, is counted as an error and as wrong in both:
left out, it would flatter a judge that fails on hard pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rmkit.errors import DataError
from rmkit.evaluation.agreement import rank_correlation
from rmkit.evaluation.outcomes import STORED, Outcome
from rmkit.evaluation.records import Scoring
from rmkit.evaluation.reliability import bin_reliability
from rmkit.scoring.items import SIDES

TIE_CREDITS = {"ties_half": 0.5, "ties_zero": 0.0}
"""What a tie counts, per convention. `ties_half` stands first in reports."""

_MOST_OUTSIDE = 0.5


@dataclass(frozen=True, slots=True)
class Counts:
    """How many of n pairs were won, tied, lost and not judged; n = wins + ties + losses + errors.

    `truncated` are the pairs with a side whose conversation was cut; they are among the others.
    """

    n: int
    wins: int
    ties: int
    losses: int
    errors: int
    truncated: int

    @property
    def judged(self) -> int:
        """Pairs with a verdict."""
        return self.n - self.errors

    def accuracy(self) -> dict[str, float]:
        """Accuracy per tie convention; errors count as wrong. n must not be 0.

        Example:
            >>> Counts(n=10, wins=6, ties=2, losses=1, errors=1, truncated=0).accuracy()
            {'ties_half': 0.7, 'ties_zero': 0.6}
        """
        return {name: (self.wins + credit * self.ties) / self.n for name, credit in TIE_CREDITS.items()}

    def to_dict(self) -> dict[str, Any]:
        """The counts, and the rates of ties, errors and truncation as shares of n."""
        return {
            "n": self.n,
            "judged": self.judged,
            "wins": self.wins,
            "ties": self.ties,
            "losses": self.losses,
            "errors": self.errors,
            "truncated": self.truncated,
            "tie_rate": self.ties / self.n,
            "error_rate": self.errors / self.n,
            "truncation_rate": self.truncated / self.n,
        }


def count_outcomes(outcomes: Sequence[Outcome]) -> Counts:
    """Counts of the verdicts by the stored aggregates."""
    verdicts = [outcome.verdict for outcome in outcomes]
    return Counts(
        n=len(verdicts),
        wins=verdicts.count(1),
        ties=verdicts.count(0),
        losses=verdicts.count(-1),
        errors=verdicts.count(None),
        truncated=sum(o.truncated for o in outcomes),
    )


def credit_rows(outcomes: Sequence[Outcome], readout: str = STORED) -> np.ndarray:
    """What each record earned, of shape (records, conventions of `TIE_CREDITS` + 1).

    The first columns are the sums of what its comparisons count under each convention, the last is their
    number. `ties_half` shares the point of a tie: half for two responses, 1/k for k. A comparison without a
    verdict earns nothing.
    """
    records: dict[str, list[float]] = {}
    for outcome in outcomes:
        row = records.setdefault(outcome.contest.record, [0.0] * (len(TIE_CREDITS) + 1))
        row[-1] += 1
        if outcome.standings:
            standing = outcome.standings[readout]
            for column, credit in enumerate(TIE_CREDITS.values()):
                tie = standing.share if credit else 0.0
                row[column] += {1: 1.0, 0: tie, -1: 0.0}[standing.verdict]
    return np.array(list(records.values()))


def row_accuracy(rows: np.ndarray) -> dict[str, float]:
    """Accuracy per tie convention of rows as `credit_rows` gives them: credits over comparisons."""
    *credits, size = rows.sum(axis=0).tolist()
    return {convention: credit / size for convention, credit in zip(TIE_CREDITS, credits, strict=True)}


def weighted_mean(figures: Sequence[Any], weights: Sequence[float]) -> Any:
    """Weighted mean of numbers, of arrays, or of dicts of them, leaf by leaf.

    A leaf that is None is left out, with its weight; if all are None, so is the mean.

    Example:
        >>> weighted_mean([{"a": 1.0, "b": None}, {"a": 0.0, "b": 0.5}], [3, 1])
        {'a': 0.75, 'b': 0.5}
    """
    if isinstance(figures[0], Mapping):
        return {key: weighted_mean([figure[key] for figure in figures], weights) for key in figures[0]}
    known = [(figure, weight) for figure, weight in zip(figures, weights, strict=True) if figure is not None]
    if not known:
        return None
    return sum(figure * weight for figure, weight in known) / sum(weight for _, weight in known)


def mean_probability(outcomes: Sequence[Outcome]) -> float | None:
    """Mean of P(chosen > rejected) over the judged pairs; None without one."""
    probabilities = [o.probability for o in outcomes if o.probability is not None]
    return float(np.mean(probabilities)) if probabilities else None


def margin_histogram(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """How far apart the aggregates are, chosen minus rejected, over the judged pairs.

    Returns:
        `mean` and `median` (None without judged pairs), and `edges` of 40 bins (0 in the middle) with `counts`.
    """
    margins = np.array([o.margin for o in outcomes if o.margin is not None])
    if not len(margins):
        return {"mean": None, "median": None, "edges": [], "counts": []}
    reach = float(np.abs(margins).max()) or 1.0
    counts, edges = np.histogram(margins, bins=40, range=(-reach, reach))
    return {
        "mean": float(margins.mean()),
        "median": float(np.median(margins)),
        "edges": edges.tolist(),
        "counts": counts.tolist(),
    }


def reliability(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Whether the judge's confidence in a pair is earned, over the judged pairs.

    The confidence is max(P, 1 - P), P = P(chosen > rejected), between 0.5 and 1: how sure the judge is of the
    side that it prefers. Right is P > 0.5; P = 0.5 is half right.

    Returns:
        `bins`, equally wide, empty ones left out: `low`, `high`, `n`, mean `confidence`, `accuracy`; and
        `expected_calibration_error`, the mean of |accuracy - confidence| over bins weighted by n, or None.
    """
    probabilities = np.array([o.probability for o in outcomes if o.probability is not None])
    confidences = np.maximum(probabilities, 1 - probabilities)
    right = np.where(np.isclose(probabilities, 0.5, rtol=0, atol=1e-12), 0.5, probabilities > 0.5)
    return bin_reliability(confidences, right, lowest=0.5).to_dict()


def describe_outside_mass(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A note where a judge gives most of its probability to what is no score, as a model used zero-shot may.

    Args:
        figures: For each attribute, `outside_mass`: the mean probability outside the scale, or None.
    """
    masses = {name: found["outside_mass"] for name, found in figures.items() if found["outside_mass"] is not None}
    high = {name: mass for name, mass in masses.items() if mass > _MOST_OUTSIDE}
    if not high:
        return []
    return [
        "The judge gives most of its probability to what is no score, so its scores say little: "
        + ", ".join(f"{name} {mass:.1%}" for name, mass in high.items())
        + " outside the scale."
    ]


def attribute_figures(scoring: Scoring) -> dict[str, dict[str, Any]]:
    """Figures per attribute, over the judged responses of the pairs.

    Returns:
        For each attribute: `n` responses; the mean expected score of each side, `chosen_mean` and
        `rejected_mean`; `outside_mass`, the mean probability outside the scale; and against the true scores
        of pairs that have them (metadata `chosen_true_scores`, `rejected_true_scores`): their number
        `n_true`, Spearman's rank correlation `spearman` with the expected score, and the mean absolute error
        `mae` of it. A figure that can't be computed is None.
    """
    figures = {}
    for key in scoring.rubric.keys:
        means: dict[str, list[float]] = {side: [] for side in SIDES}
        outside, expected, true = [], [], []
        for pair in scoring.pairs:
            for side in SIDES:
                score = _true_scores(pair.metadata, side, pair.id).get(key)
                for index in range(len(getattr(pair, side))):
                    judgment = scoring.judgments.get((pair.id, side, index))
                    if judgment is None or judgment.error is not None:
                        continue
                    distribution = judgment.attributes[key]
                    means[side].append(distribution.mean)
                    outside.append(distribution.outside_mass)
                    if score is not None:
                        expected.append(distribution.mean)
                        true.append(float(score))
        figures[key] = {
            "n": len(outside),
            "chosen_mean": _mean(means["chosen"]),
            "rejected_mean": _mean(means["rejected"]),
            "outside_mass": _mean(outside),
            "n_true": len(true),
            "spearman": rank_correlation(expected, true),
            "mae": _mean(np.abs(np.subtract(expected, true))),
        }
    return figures


def _true_scores(metadata: Any, side: str, pair_id: str) -> dict[str, float]:
    scores = metadata.get(f"{side}_true_scores") or {}
    if not isinstance(scores, dict):
        raise DataError(f"pair {pair_id!r}: {side}_true_scores must map attribute keys to scores, found {scores!r}")
    return scores


def _mean(values: Sequence[float] | np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None
