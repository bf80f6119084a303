"""Fitting a judge's calibration to scored pairs or rated responses, and what it gains on records held out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rmkit.calibration import Calibration, fit_curve
from rmkit.errors import DataError
from rmkit.evaluation.benchmarks import contests_of_any
from rmkit.evaluation.outcomes import compare_pairs
from rmkit.evaluation.rated import RatedScoring
from rmkit.evaluation.records import Scoring
from rmkit.evaluation.reliability import bin_reliability

FOLDS = 5
LEAST = 50
"""Fewer observations are refused: a curve through them would be noise."""

_BINS = 10


@dataclass(frozen=True, slots=True)
class Gain:
    """What rescaling changes on records that it was not fitted to (cross-fitted in `FOLDS` folds).

    Args:
        name: An attribute's key, or `preference`.
        n: Observations.
        before: Calibration error of the raw numbers.
        after: That of the rescaled ones. For attributes both are the mean over equally filled bins of
            |mean score - mean rating|, in steps of the scale; for preferences the expected calibration error.
    """

    name: str
    n: int
    before: float
    after: float


def fit_calibration(
    pairs: Scoring | None = None, rated: RatedScoring | None = None, seed: int = 0
) -> tuple[Calibration, list[Gain]]:
    """A calibration from scored pairs, from rated responses, or from both, of one judge.

    Args:
        pairs: Fits P(chosen > rejected), over pairs of one with one.
        rated: Fits the expected scores of the judge's own attributes.
        seed: Seed of the folds.

    Raises:
        DataError: Without either, for two judges, or for too few observations.
    """
    scorings = [scoring for scoring in (pairs, rated) if scoring is not None]
    if not scorings:
        raise DataError("nothing to fit to: give scored pairs, rated responses, or both")
    manifest, rubric = scorings[0].manifest, scorings[0].rubric
    for scoring in scorings:
        if scoring.manifest.get("judge_sha256") != manifest.get("judge_sha256") or scoring.rubric != rubric:
            raise DataError("the scores of pairs and of rated responses are of two judges; score both with one")
    gains: list[Gain] = []
    preference, scores = None, {}
    if pairs is not None:
        confidences, right, groups = _observe_pairs(pairs)
        preference = fit_curve(confidences.tolist(), right.tolist())
        gains.append(_measure("preference", confidences, right, groups, _calibration_error, seed))
    for key, (means, ratings, groups) in (_observe_ratings(rated) if rated is not None else {}).items():
        scores[key] = fit_curve(means.tolist(), ratings.tolist())
        gains.append(_measure(key, means, ratings, groups, _rating_error, seed))
    fitted_on = {
        name: {field: scoring.manifest.get(field) for field in ("input", "input_sha256")}
        for name, scoring in (("pairs", pairs), ("ratings", rated))
        if scoring is not None
    }
    judge, digest = str(manifest.get("judge")), str(manifest.get("judge_sha256"))
    return Calibration(judge, digest, rubric, scores, preference, fitted_on), gains


def _observe_pairs(scoring: Scoring) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence, whether it was right (half for P = 0.5), and the record of each pair; arrays of shape (N,)."""
    found = [o for o in compare_pairs(scoring, contests_of_any) if o.probability is not None]
    probabilities = np.array([o.probability for o in found])
    _check_number("judged pairs of one with one", len(found))
    right = np.where(np.isclose(probabilities, 0.5, rtol=0, atol=1e-12), 0.5, probabilities > 0.5)
    return np.maximum(probabilities, 1 - probabilities), right, _number([o.contest.record for o in found])


def _observe_ratings(scoring: RatedScoring) -> Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Expected scores, ratings and conversations of each rated attribute; arrays of shape (N,)."""
    found = {}
    for key in scoring.rubric.keys:
        rows = [
            (judgment.attributes[key].mean, float(row.scores[key]), row.conversation)
            for row, judgment in scoring.pairs()
            if row.rubric is None and key in row.scores
        ]
        if rows:
            _check_number(f"judged responses with a rating of {key!r}", len(rows))
            means, ratings, conversations = zip(*rows, strict=True)
            found[key] = (np.array(means), np.array(ratings), _number(conversations))
    if not found:
        raise DataError("no judged response has a rating of one of the judge's attributes")
    return found


def _check_number(what: str, found: int) -> None:
    if found < LEAST:
        raise DataError(f"{found} {what}: a calibration needs {LEAST} at least")


def _number(names: Sequence[Any]) -> np.ndarray:
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return np.array([places[name] for name in names])


def _measure(
    name: str,
    inputs: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    error: Callable[[np.ndarray, np.ndarray], float],
    seed: int,
) -> Gain:
    fold = np.random.default_rng(seed).permutation(int(groups.max()) + 1)[groups] % FOLDS
    rescaled = np.zeros(len(inputs))
    for number in range(FOLDS):
        held_out = fold == number
        if held_out.any() and not held_out.all():
            curve = fit_curve(inputs[~held_out].tolist(), targets[~held_out].tolist())
            rescaled[held_out] = np.interp(inputs[held_out], curve.inputs, curve.outputs)
    return Gain(name, len(inputs), error(inputs, targets), error(rescaled, targets))


def _calibration_error(confidences: np.ndarray, right: np.ndarray) -> float:
    found = bin_reliability(confidences, right, bins=2 * _BINS).expected_calibration_error
    assert found is not None  # there are observations
    return found


def _rating_error(scores: np.ndarray, ratings: np.ndarray) -> float:
    bins = np.array_split(np.argsort(scores, kind="stable"), min(_BINS, len(scores)))
    return float(np.average([abs(scores[b].mean() - ratings[b].mean()) for b in bins], weights=[len(b) for b in bins]))
