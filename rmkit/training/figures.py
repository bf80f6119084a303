"""Figures of an evaluation while training: agreement with ratings, and pairs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from rmkit.evaluation.agreement import measure_agreement
from rmkit.evaluation.outcomes import READOUT_TOLERANCES
from rmkit.evaluation.reliability import Reliability
from rmkit.rubric import Rubric
from rmkit.schema import Conversation, Judgment, PreferencePair, RatedResponse
from rmkit.scores import ScoreDistribution, aggregate, verdict

AGREEMENT = ("mae", "qwk", "spearman", "calibration_error")
"""Figures that each attribute has, as `mae_helpfulness`, and that are averaged over attributes as `mae`."""

CHOOSING = {
    "loss": False,
    "mae": False,
    "qwk": True,
    "spearman": True,
    "calibration_error": False,
    "pair_accuracy": True,
    "pair_accuracy_mode": True,
    "outside_mass": False,
    "errors": False,
}
"""Figures that can choose the best checkpoint, and whether more is better; those of `AGREEMENT` also by attribute."""


def is_better_higher(name: str) -> bool:
    """Whether more is better of a figure, of all attributes or of one, with `eval_` or without."""
    name = name.removeprefix("eval_")
    return CHOOSING.get(name) or any(CHOOSING[figure] and name.startswith(f"{figure}_") for figure in AGREEMENT)


@dataclass(frozen=True, slots=True)
class Figures:
    """What an evaluation found.

    Args:
        metrics: Numbers by name, see `find_figures`.
        reliability: Reliability bins by attribute, of those that have a `calibration_error_KEY`.
    """

    metrics: dict[str, float]
    reliability: dict[str, Reliability]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two judged responses to one conversation, of which people prefer one.

    Args:
        rubric: Under which both are judged.
        better: Place of the preferred response among the judgements.
        worse: Place of the other.
    """

    rubric: Rubric
    better: int
    worse: int


def find_figures(
    rubric: Rubric, rows: Sequence[RatedResponse], comparisons: Sequence[Comparison], judgments: Sequence[Judgment]
) -> Figures:
    """How well judgements agree with ratings and preferences.

    Args:
        rubric: Of rows that bring none of their own.
        rows: Rated responses.
        comparisons: Who is preferred, among `judgments`.
        judgments: Of the rows, in order, and then of responses without ratings.

    Returns:
        As metrics, each absent where the data do not define it: for each attribute (see `rated_scales`) `mae_KEY`,
        `qwk_KEY`, `spearman_KEY`, `calibration_error_KEY` as in `rmkit.evaluation.agreement`, and their means over
        the attributes without `_KEY`; `pair_accuracy` and `pair_accuracy_mode`, the share of `pairs` in which the
        aggregate of the means, or of the modes, is higher for the preferred response (ties half, a pair without
        judgement none); `outside_mass`, mean probability outside the scale; `errors`, responses without a judgement.
    """
    metrics: dict[str, float] = {}
    reliability = {}
    by_name: dict[str, list[float]] = defaultdict(list)
    for name, rated in rated_scales(rubric, rows).items():
        known = [(judgments[place].attributes.get(rated.key), rating) for place, rating in rated.ratings]
        judged = [(distribution, rating) for distribution, rating in known if distribution is not None]
        if not judged:
            continue
        agreement = measure_agreement([d for d, _ in judged], [rating for _, rating in judged])
        for figure in AGREEMENT:
            value = getattr(agreement, figure)
            if value is not None:
                metrics[f"{figure}_{name}"] = value
                by_name[figure].append(value)
        reliability[name] = agreement.reliability
    metrics |= {figure: float(np.mean(values)) for figure, values in by_name.items()}
    if comparisons:
        metrics |= pair_accuracies(comparisons, judgments)
        metrics["pairs"] = float(len(comparisons))
    outside = [d.outside_mass for judgment in judgments for d in judgment.attributes.values()]
    if outside:
        metrics["outside_mass"] = float(np.mean(outside))
    metrics["errors"] = float(sum(judgment.error is not None for judgment in judgments))
    return Figures(metrics, reliability)


def figure_names(rubric: Rubric, rows: Sequence[RatedResponse], comparisons: Sequence[Comparison]) -> set[str]:
    """Names of the figures that `find_figures` gives on these rows for a judge that fails on none of them.

    Spearman's correlation is also undefined at an evaluation where all expected scores are the same.
    """
    names = {"errors"}
    for name, rated in rated_scales(rubric, rows).items():
        varied = len({rating for _, rating in rated.ratings}) > 1
        figures = [figure for figure in AGREEMENT if varied or figure not in ("qwk", "spearman")]
        names |= {*figures, *(f"{figure}_{name}" for figure in figures)}
    if rows or comparisons:
        names.add("outside_mass")
    return names | ({"pair_accuracy", "pair_accuracy_mode", "pairs"} if comparisons else set())


@dataclass(frozen=True, slots=True)
class Rated:
    """Ratings of one attribute on one scale.

    Args:
        key: The attribute's key.
        ratings: Place of each row that has one, and the rating.
    """

    key: str
    ratings: tuple[tuple[int, int], ...]


def rated_scales(rubric: Rubric, rows: Sequence[RatedResponse]) -> dict[str, Rated]:
    """The ratings of rows by attribute; scores that were derived from a preference are none.

    Rows with a rubric of their own may rate an attribute on another scale. Errors of two scales can't be averaged, so
    each is an attribute of its own: `helpfulness` on the scale of the run's rubric (or on the only one that there
    is), and `helpfulness.0-10` on any other.
    """
    found: dict[tuple[str, int, int], list[tuple[int, int]]] = defaultdict(list)
    for place, row in enumerate(rows):
        own = row.rubric or rubric
        for key, rating in own.complete(row.scores).items():
            if key not in row.derived:
                found[(key, own[key].minimum, own[key].maximum)].append((place, rating))
    plain = {attribute.key: (attribute.minimum, attribute.maximum) for attribute in rubric.attributes}
    keys = [key for key, *_ in found]
    for key, low, high in found:
        if keys.count(key) == 1 and key not in plain:
            plain[key] = (low, high)
    named = {
        key if plain.get(key) == (low, high) else f"{key}.{low}-{high}": Rated(key, tuple(ratings))
        for (key, low, high), ratings in found.items()
    }
    return dict(sorted(named.items()))


def pair_accuracies(comparisons: Iterable[Comparison], judgments: Sequence[Judgment]) -> dict[str, float]:
    """The share of comparisons that the aggregate of means, or of modes, decides as people do; ties half."""
    outcomes: dict[str, list[float]] = {readout: [] for readout in READOUT_TOLERANCES}
    for comparison in comparisons:
        better, worse = judgments[comparison.better], judgments[comparison.worse]
        for readout, tolerance in READOUT_TOLERANCES.items():
            if better.error is not None or worse.error is not None:
                outcomes[readout].append(0.0)  # as in reports: left out, it would flatter a judge that fails
                continue
            first, second = (aggregate(comparison.rubric, side.attributes, readout) for side in (better, worse))
            outcomes[readout].append((1 + verdict(first, second, tolerance)) / 2)
    return {
        "pair_accuracy" if readout == "mean" else f"pair_accuracy_{readout}": float(np.mean(values))
        for readout, values in outcomes.items()
    }


def rated_comparisons(rubric: Rubric, rows: Sequence[RatedResponse]) -> list[Comparison]:
    """Pairs of responses to one conversation, judged under one rubric, whose ratings have different aggregates."""
    groups: dict[Conversation, list[tuple[int, Rubric, float]]] = defaultdict(list)
    for place, row in enumerate(rows):
        own = row.rubric or rubric
        rated = _rated_aggregate(own, row.scores)
        if rated is not None:
            groups[row.conversation].append((place, own, rated))
    return [
        Comparison(own, *((first, second) if rated > other_rated else (second, first)))
        for members in groups.values()
        for (first, own, rated), (second, other, other_rated) in combinations(members, 2)
        if rated != other_rated and own == other
    ]


def preferred_comparisons(rubric: Rubric, pairs: Iterable[PreferencePair], start: int) -> Iterator[Comparison]:
    """Each chosen response against each rejected one; judgements stand in the order of the pairs from `start`."""
    for pair in pairs:
        rejected = start + len(pair.chosen)
        end = rejected + len(pair.rejected)
        yield from (Comparison(rubric, a, b) for a in range(start, rejected) for b in range(rejected, end))
        start = end


def _rated_aggregate(rubric: Rubric, ratings: Mapping[str, int]) -> float | None:
    scores = rubric.complete(ratings)
    if any(attribute.weight and attribute.key not in scores for attribute in rubric.attributes):
        return None
    return aggregate(rubric, {key: ScoreDistribution((score,), (1.0,)) for key, score in scores.items()})


def describe_metrics(metrics: Mapping[str, float]) -> list[str]:
    """Lines for people: a figure each, with those of its attributes beside it."""
    lines = []
    shown = {name.removeprefix("eval_"): value for name, value in metrics.items()}
    parts = {name: [other for other in shown if other.startswith(f"{name}_")] for name in AGREEMENT}
    for name, value in shown.items():
        if any(name in found for found in parts.values()):
            continue
        beside = ", ".join(f"{other.removeprefix(f'{name}_')} {shown[other]:.3f}" for other in parts.get(name, ()))
        lines.append(f"{name}: {value:.4f}" + (f" ({beside})" if beside else ""))
    return lines
