"""The figures of subsets, sections and averages, with their intervals, weighted as a benchmark says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rmkit.evaluation.benchmark import Benchmark
from rmkit.evaluation.intervals import percentile_intervals, resample_accuracies, wilson_intervals
from rmkit.evaluation.metrics import count_outcomes, credit_rows, mean_probability, row_accuracy
from rmkit.evaluation.outcomes import READOUT_TOLERANCES, STORED, Outcome, group_by_subset


def subset_figures(outcomes: Sequence[Outcome], rules: Benchmark | None = None, subset: str = "") -> dict[str, Any]:
    """The figures that sections and averages are means of."""
    rows = credit_rows if rules is None else rules.rules.get(subset, credit_rows)
    return {
        "accuracy": row_accuracy(rows(outcomes, STORED)),
        "by_readout": {readout: row_accuracy(rows(outcomes, readout)) for readout in READOUT_TOLERANCES},
        "probability": mean_probability(outcomes),
        "chance": _chance(outcomes),
    }


def _chance(outcomes: Sequence[Outcome]) -> float | None:
    """Mean accuracy of random scores; None where several chosen responses must all win."""
    if any(len(outcome.contest.chosen) > 1 for outcome in outcomes):
        return None
    return float(np.mean([1 / (1 + len(outcome.contest.rejected)) for outcome in outcomes]))


def figure_interval(
    outcomes: Sequence[Outcome], rows: np.ndarray, figures: Mapping[str, Any], resampled: Mapping[str, np.ndarray]
) -> dict[str, list[float]]:
    """Wilson's where each record is one comparison, for it has a width even without a loss."""
    if len(rows) == len(outcomes):
        return wilson_intervals(count_outcomes(outcomes), figures["accuracy"])
    return percentile_intervals(resampled)


def official_results(
    rules: Benchmark,
    groups: Mapping[str, Sequence[Outcome]],
    rows: Mapping[str, Mapping[str, Any]],
    subsets: Mapping[str, Any],
    resampled: Mapping[str, Any],
) -> dict[str, Any]:
    """Sections and averages; every figure is weighted in the same way, resampled ones too."""
    counts = {name: len(group) for name, group in groups.items()}
    sections = rules.section_means(subsets, counts)
    resampled_sections = rules.section_means(resampled, counts)
    average, with_prior = rules.average(sections), rules.average_with_prior(sections)
    absent = [section for section in rules.sections if section not in sections]
    if average is not None:
        average["interval"] = percentile_intervals(rules.average(resampled_sections))
    if with_prior is not None:
        with_prior["interval"] = percentile_intervals(rules.average_with_prior(resampled_sections))
    section_rows = {}
    for section, figures in sections.items():
        members = [name for name in rules.members(section) if name in groups]
        total = count_outcomes([outcome for name in members for outcome in groups[name]])
        alone = members == [section]
        section_rows[section] = {
            **total.to_dict(),
            **figures,
            "interval": rows[section]["interval"] if alone else percentile_intervals(resampled_sections[section]),
            "subsets": members,
        }
    reason = f"no pairs of section {', '.join(absent)}; the average needs all {len(rules.sections)}"
    return {
        "sections": section_rows,
        "average": average,
        "average_with_prior": with_prior,
        "average_reason": reason if absent and rules.averaged else None,
    }


def slice_average(rules: Benchmark, outcomes: Sequence[Outcome], resamples: int, seed: int) -> dict[str, Any] | None:
    """The average over a part of the comparisons; None where a section is absent."""
    groups = group_by_subset(outcomes, rules.subsets)
    counts = {name: len(group) for name, group in groups.items()}
    figures = rules.average(rules.section_means({n: subset_figures(g, rules, n) for n, g in groups.items()}, counts))
    if figures is None:
        return None
    resampled = resample_accuracies({name: credit_rows(group) for name, group in groups.items()}, resamples, seed)
    interval = percentile_intervals(rules.average(rules.section_means(resampled, counts)))
    return {**count_outcomes(outcomes).to_dict(), **figures, "interval": interval}
