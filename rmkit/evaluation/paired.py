"""Two judges on the same records: the difference of their accuracies, and McNemar's test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from statsmodels.stats.contingency_tables import mcnemar

from rmkit.errors import DataError
from rmkit.evaluation.benchmark import Benchmark
from rmkit.evaluation.intervals import percentile_intervals, resample_sums
from rmkit.evaluation.metrics import TIE_CREDITS, credit_rows
from rmkit.evaluation.outcomes import STORED, Outcome, group_by_subset


def compare_judges(
    first: Sequence[Outcome], second: Sequence[Outcome], rules: Benchmark, seed: int = 0, resamples: int = 2000
) -> dict[str, Any]:
    """How much better the first judge is than the second, on the same comparisons.

    Records are drawn once for both judges, so what is hard for both does not widen the interval. A section's and the
    average's difference is that of the official figures.

    Args:
        first: Outcomes of the first judge.
        second: Those of the second, of the same contests in the same order.
        rules: The benchmark.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.

    Returns:
        `subsets`, `sections`, `average` (None where there is none) and `all_pairs`, each with `difference` and
        `interval` per tie convention. Subsets and all pairs also have `mcnemar`, see `apply_mcnemar`.

    Raises:
        DataError: If the judges were not given the same contests.
    """
    if [(o.id, o.contest) for o in first] != [(o.id, o.contest) for o in second]:
        raise DataError(
            "the judges did not score the same pairs, so they can't be compared record by record; score one pairs "
            "file with each"
        )
    groups = [group_by_subset(outcomes, rules.subsets) for outcomes in (first, second)]
    names = list(groups[0])
    rows = {
        name: np.hstack([rules.rules.get(name, credit_rows)(group[name], STORED) for group in groups])
        for name in names
    }
    counts = {name: len(groups[0][name]) for name in names}
    found = {name: _differences(records.sum(axis=0, keepdims=True)) for name, records in rows.items()}
    drawn = {name: _differences(sums) for name, sums in resample_sums(rows, resamples, seed).items()}
    every = np.hstack([credit_rows(first), credit_rows(second)])
    every_drawn = _differences(resample_sums({"": every}, resamples, seed)[""])
    sections, drawn_sections = rules.section_means(found, counts), rules.section_means(drawn, counts)
    average = rules.average(sections) if rules.sections else None
    return {
        "subsets": {
            name: _entry(found[name], drawn[name])
            | {"mcnemar": None if name in rules.rules else apply_mcnemar(groups[0][name], groups[1][name])}
            for name in names
        },
        "sections": {name: _entry(sections[name], drawn_sections[name]) for name in sections},
        "average": None if average is None else _entry(average, rules.average(drawn_sections)),
        "all_pairs": _entry(_differences(every.sum(axis=0, keepdims=True)), every_drawn)
        | {"mcnemar": apply_mcnemar(first, second)},
    }


def apply_mcnemar(first: Sequence[Outcome], second: Sequence[Outcome]) -> dict[str, Any] | None:
    """McNemar's exact test: among comparisons that one judge alone wins, does each win half of them?

    A comparison is won if chosen is strictly higher; ties and errors are not.

    Args:
        first: Outcomes of the first judge.
        second: Those of the second, of the same contests in the same order.

    Returns:
        `only_first`, `only_second`: how many one of them alone wins, and the two-sided `p_value`. None where several
        comparisons share a record, for they are not independent.
    """
    if len({outcome.contest.record for outcome in first}) < len(first):
        return None
    won = np.array([[a.verdict == 1, b.verdict == 1] for a, b in zip(first, second, strict=True)])
    only_first, only_second = int((won[:, 0] & ~won[:, 1]).sum()), int((~won[:, 0] & won[:, 1]).sum())
    both, neither = int(won.all(axis=1).sum()), int((~won).all(axis=1).sum())
    p_value = 1.0 if only_first == only_second else mcnemar([[both, only_first], [only_second, neither]]).pvalue
    return {"only_first": only_first, "only_second": only_second, "p_value": float(min(p_value, 1.0))}


def _differences(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracy of the first minus that of the second, from sums of both judges' credit rows, (R, 2 x columns)."""
    first, second = np.hsplit(sums, 2)
    return {
        convention: first[:, column] / first[:, -1] - second[:, column] / second[:, -1]
        for column, convention in enumerate(TIE_CREDITS)
    }


def _entry(found: Mapping[str, np.ndarray], drawn: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {
        "difference": {convention: float(values[0]) for convention, values in found.items()},
        "interval": percentile_intervals(drawn),
    }
