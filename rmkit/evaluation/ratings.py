"""How well judges agree with human ratings of single responses: plain data, fit for `results.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from rmkit.errors import DataError
from rmkit.evaluation.agreement import measure_agreement, quadratic_kappa, rank_correlation
from rmkit.evaluation.correlations import correlate_attributes
from rmkit.evaluation.disagreements import worst_ratings
from rmkit.evaluation.entropy import compare_entropies
from rmkit.evaluation.intervals import LEVEL, QUANTILES, mean_interval
from rmkit.evaluation.length_bias import fit_slope
from rmkit.evaluation.metrics import describe_outside_mass
from rmkit.evaluation.provenance import describe_provenance
from rmkit.evaluation.rated import RatedScoring
from rmkit.schema import Judgment, RatedResponse
from rmkit.scores import ScoreDistribution

MOST_RESAMPLES = 500
"""Resamples of kappa and rank correlation, which take far longer than means."""

_BINS = 10
_ERROR_EXAMPLES = 10


@dataclass(frozen=True, slots=True)
class _Column:
    """The judged and rated responses of one attribute, N of them."""

    name: str
    distributions: Sequence[ScoreDistribution]
    ratings: Sequence[int]
    entropies: Sequence[float]
    groups: np.ndarray  # int of shape (N,): responses to one conversation share a number
    ids: Sequence[str]

    @property
    def means(self) -> np.ndarray:
        return np.array([distribution.mean for distribution in self.distributions])

    @property
    def errors(self) -> np.ndarray:
        return np.abs(self.means - np.asarray(self.ratings, dtype=float))


def evaluate_ratings(scoring: RatedScoring, seed: int = 0, resamples: int = 2000) -> dict[str, Any]:
    """Agreement of one judge with human ratings.

    Args:
        scoring: Rated responses with their judgements.
        seed: Seed of the bootstrap, which draws conversations with all their responses.
        resamples: Number of resamples for errors; at most `MOST_RESAMPLES` for the other figures.

    Returns:
        Plain JSON data without NaN: `responses` (counts and rates), `attributes` (see `_describe_column`),
        `length_slope` at equal rating, `correlations` of the judge's attributes and `human_correlations` of the
        ratings, `disagreements`, `notes`, and where all of it comes from.

    Raises:
        DataError: If no response has both a rating and a judgement.
    """
    columns = _columns(scoring)
    counts = _count(scoring)
    if not columns and counts["judged"]:
        raise DataError("no rated attribute is one of the judge's; prepare the file with the judge's rubric")
    keys = scoring.rubric.keys
    common = [(row, judgment) for row, judgment in scoring.pairs() if row.rubric is None]
    judged = [[judgment.attributes[key].mean for key in keys] for _, judgment in common]
    rated = [[float(row.scores.get(key, np.nan)) for key in keys] for row, _ in common]
    notes = [*scoring.notes]
    if counts["errors"]:
        notes.append(f"{counts['errors']} of {counts['n']} responses have no judgement and are in no figure.")
    attributes = {column.name: _describe_column(column, seed, resamples) for column in columns}
    notes += describe_outside_mass(attributes)
    return {
        "benchmark": "ratings",
        "title": "Human ratings",
        "formula": "",
        "notes": notes,
        "responses": counts,
        "attributes": attributes,
        "length_slope": _fit_length(scoring),
        "correlations": correlate_attributes(keys, np.array(judged).reshape(-1, len(keys))),
        "human_correlations": correlate_attributes(keys, np.array(rated).reshape(-1, len(keys))),
        "disagreements": worst_ratings(scoring),
        "error_examples": _list_errors(scoring),
        "intervals": {
            "level": LEVEL,
            "method": "percentiles of a bootstrap of conversations",
            "resamples": resamples,
            "resamples_of_kappa_and_correlation": min(resamples, MOST_RESAMPLES),
            "seed": seed,
        },
        **describe_provenance(scoring.manifest, scoring.scores_sha256, scoring.rubric),
    }


def evaluate_rating_judges(
    scorings: Mapping[str, RatedScoring], seed: int = 0, resamples: int = 2000
) -> dict[str, Any]:
    """Agreement of several judges with the same ratings, side by side.

    Args:
        scorings: What each judge said, by the name that the report gives it; two or more.
        seed: Seed of the bootstrap.
        resamples: Number of resamples.

    Returns:
        `judges`, the results of each, and `comparisons` of each two: per attribute `mae_difference`, the mean absolute
        error of the `first` minus that of the `second` over the responses that both judged, with `n` and an
        `interval`; below 0 the first is better.

    Raises:
        DataError: As for `evaluate_ratings`, or if the ratings differ.
    """
    first_rows = [(row.id, row.scores) for row in next(iter(scorings.values())).rows]
    for name, scoring in scorings.items():
        if [(row.id, row.scores) for row in scoring.rows] != first_rows:
            raise DataError(f"judge {name!r} was given other rated responses; score one file with each judge")
    columns = {name: {column.name: column for column in _columns(scoring)} for name, scoring in scorings.items()}
    return {
        "benchmark": "ratings",
        "title": "Human ratings",
        "formula": "",
        "judges": {name: evaluate_ratings(scoring, seed, resamples) for name, scoring in scorings.items()},
        "comparisons": [
            {
                "first": first,
                "second": second,
                "attributes": {
                    key: _compare_errors(column, columns[second][key], seed, resamples)
                    for key, column in columns[first].items()
                    if key in columns[second]
                },
            }
            for first, second in combinations(scorings, 2)
        ],
    }


def _columns(scoring: RatedScoring) -> list[_Column]:
    """One column per attribute of the judge's rubric that is rated, then per attribute of rows' own rubrics."""
    found: dict[str, list[tuple[RatedResponse, Judgment, str]]] = {key: [] for key in scoring.rubric.keys}
    for row, judgment in scoring.pairs():
        for key in row.scores:
            if key in judgment.attributes:
                scale = scoring.rubric_of(row)[key]
                own = f"{key} (rows' own rubrics, {scale.minimum}-{scale.maximum})"
                found.setdefault(key if row.rubric is None else own, []).append((row, judgment, key))
    numbers: dict[Any, int] = {}
    return [
        _Column(
            name,
            [judgment.attributes[key] for _, judgment, key in items],
            [row.scores[key] for row, _, key in items],
            [_entropy(judgment.attributes[key]) for _, judgment, key in items],
            np.array([numbers.setdefault(row.conversation, len(numbers)) for row, _, _ in items]),
            [row.id for row, _, _ in items],
        )
        for name, items in found.items()
        if items
    ]


def _entropy(distribution: ScoreDistribution) -> float:
    return distribution.entropy / float(np.log(len(distribution.values)))


def _describe_column(column: _Column, seed: int, resamples: int) -> dict[str, Any]:
    """Figures of one attribute.

    Returns:
        `n`; the means of the expected scores and of the ratings, `judge_mean` and `human_mean`; `mae`, `qwk` and
        `spearman` (see `rmkit.evaluation.agreement`) with `intervals`; the `reliability` of the most probable score;
        `rating_bins`, the mean rating by expected score, equally wide; `entropy` against absolute error; and
        `outside_mass`, the mean probability outside the scale.
    """
    found = measure_agreement(column.distributions, column.ratings)
    means, ratings = column.means, np.asarray(column.ratings)
    modes = np.array([distribution.mode for distribution in column.distributions])
    drawn: dict[str, list[float]] = {"qwk": [], "spearman": []}
    for index in _resample_groups(column.groups, min(resamples, MOST_RESAMPLES), seed):
        for name, value in (
            ("qwk", quadratic_kappa(modes[index].tolist(), ratings[index].tolist())),
            ("spearman", rank_correlation(means[index].tolist(), ratings[index].tolist())),
        ):
            if value is not None:
                drawn[name].append(value)
    return {
        "n": found.n,
        "judge_mean": float(means.mean()),
        "human_mean": float(ratings.mean()),
        "mae": found.mae,
        "qwk": found.qwk,
        "spearman": found.spearman,
        "calibration_error": found.calibration_error,
        "outside_mass": float(np.mean([distribution.outside_mass for distribution in column.distributions])),
        "intervals": {
            "mae": mean_interval(_add_up(column.groups, column.errors), resamples, seed)["interval"],
            **{name: np.quantile(values, QUANTILES).tolist() if values else None for name, values in drawn.items()},
        },
        "reliability": found.reliability.to_dict(),
        "rating_bins": _bin_ratings(column),
        "entropy": compare_entropies(column.entropies, column.errors),
    }


def _resample_groups(groups: np.ndarray, resamples: int, seed: int) -> list[np.ndarray]:
    """Places of the responses of resampled conversations, one array per resample."""
    generator = np.random.default_rng(seed)
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    draws = generator.integers(0, len(members), (resamples, len(members)))
    return [np.concatenate([members[place] for place in draw]) for draw in draws]


def _add_up(groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sum and number per group, of shape (groups, 2)."""
    return np.stack([np.bincount(groups, weights=values), np.bincount(groups)], axis=1)


def _bin_ratings(column: _Column) -> list[dict[str, Any]]:
    values = column.distributions[0].values
    edges = np.linspace(values[0], values[-1], _BINS + 1)
    places = np.clip(np.digitize(column.means, edges) - 1, 0, _BINS - 1)
    ratings = np.asarray(column.ratings, dtype=float)
    return [
        {
            "low": float(edges[place]),
            "high": float(edges[place + 1]),
            "n": int((places == place).sum()),
            "score": float(column.means[places == place].mean()),
            "rating": float(ratings[places == place].mean()),
        }
        for place in np.unique(places)
    ]


def _compare_errors(first: _Column, second: _Column, seed: int, resamples: int) -> dict[str, Any]:
    others = dict(zip(second.ids, second.errors.tolist(), strict=True))
    both = [place for place, row_id in enumerate(first.ids) if row_id in others]
    differences = np.array([first.errors[place] - others[first.ids[place]] for place in both])
    rows = _add_up(first.groups[both], differences) if both else np.zeros((0, 2))
    found = mean_interval(rows, resamples, seed)
    return {"n": len(both), "mae_difference": found["mean"], "interval": found["interval"]}


def _fit_length(scoring: RatedScoring) -> dict[str, Any] | None:
    """The slope of the judge's aggregate on length at an equal aggregate of the ratings, over the attributes rated."""
    scores, lengths, quality, groups = [], [], [], []
    numbers: dict[Any, int] = {}
    for row, judgment in scoring.pairs():
        aggregates = scoring.aggregate(row, judgment)
        if aggregates is not None:
            scores.append(aggregates[0])
            lengths.append(len(row.response))
            quality.append(aggregates[1])
            groups.append(numbers.setdefault(row.conversation, len(numbers)))
    return fit_slope(np.array(scores), np.array(lengths), np.array(quality), np.array(groups), within=False)


def _count(scoring: RatedScoring) -> dict[str, Any]:
    found = [scoring.judgments.get(row.id) for row in scoring.rows]
    n, judged = len(found), sum(item is not None and item.error is None for item in found)
    truncated = sum(item is not None and item.truncated for item in found)
    return {
        "n": n,
        "judged": judged,
        "errors": n - judged,
        "error_rate": (n - judged) / n,
        "truncated": truncated,
        "truncation_rate": truncated / n,
    }


def _list_errors(scoring: RatedScoring) -> list[dict[str, str]]:
    found = []
    for row in scoring.rows:
        judgment = scoring.judgments.get(row.id)
        if judgment is None or judgment.error is not None:
            found.append({"id": row.id, "error": "not scored" if judgment is None else str(judgment.error)})
    return found[:_ERROR_EXAMPLES]
