"""From a scoring folder to the results of a benchmark: plain data, fit for `results.json`."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import rmkit
from rmkit.evaluation import reward_bench
from rmkit.evaluation.intervals import LEVEL, percentile_intervals, resample_accuracies, wilson_intervals
from rmkit.evaluation.metrics import (
    Counts,
    accuracy_by_readout,
    attribute_figures,
    count_outcomes,
    margin_histogram,
    mean_probability,
    reliability,
)
from rmkit.evaluation.outcomes import Outcome, compare_pairs, group_by_subset
from rmkit.evaluation.records import Scoring

BENCHMARKS = ("reward_bench", "pairs")
"""`reward_bench`: RewardBench 1. `pairs`: any other file of pairs, with its own subsets."""

_CONVENTIONS = {
    "ties": "ties_half: a tie counts 0.5; ties_zero: a tie counts 0",
    "errors": "a pair without a verdict counts as wrong under both conventions",
    "accuracy": "verdicts compare the aggregates in scores.jsonl; a tie is exact equality",
    "by_readout": "accuracy when each attribute is read by its mean or its mode",
    "probability": "mean of P(chosen > rejected) over judged pairs, ties half",
    "margin": "aggregate of chosen minus that of rejected",
}
_PROVENANCE = ("judge", "engine", "input", "input_sha256", "records", "errors", "truncated")
_ERROR_EXAMPLES = 10


def evaluate(scoring: Scoring, benchmark: str, seed: int = 0, resamples: int = 2000) -> dict[str, Any]:
    """The results of one benchmark.

    Args:
        scoring: Pairs with their judgements.
        benchmark: One of `BENCHMARKS`.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.

    Returns:
        Plain JSON data without NaN: `subsets`, `sections` and `average` (`reward_bench` only), `all_pairs`,
        `attributes`, `margins`, `reliability`, `notes`, and where all of it comes from.

    Raises:
        DataError: For a subset that the benchmark does not have, or pairs of another form.
    """
    outcomes = compare_pairs(scoring)
    official = benchmark == "reward_bench"
    groups = group_by_subset(outcomes, reward_bench.COUNTS if official else ())
    counts = {name: count_outcomes(group) for name, group in groups.items()}
    notes = list(scoring.notes)
    if official:
        notes += reward_bench.check_subsets({name: count.n for name, count in counts.items()})
    notes += _describe_errors(count_outcomes(outcomes))
    subsets = {name: _figures(group) for name, group in groups.items()}
    resampled = resample_accuracies(counts, resamples, seed)
    results: dict[str, Any] = {
        "benchmark": benchmark,
        "notes": notes,
        "subsets": {
            name: {**count.to_dict(), **subsets[name], "interval": wilson_intervals(count)}
            for name, count in counts.items()
        },
    }
    if official:
        results |= _official_results(groups, subsets, resampled)
    return results | {
        "all_pairs": {
            **count_outcomes(outcomes).to_dict(),
            **_figures(outcomes),
            "interval": wilson_intervals(count_outcomes(outcomes)),
        },
        "attributes": attribute_figures(scoring),
        "margins": margin_histogram(outcomes),
        "reliability": reliability(outcomes),
        "error_examples": [{"id": o.id, "error": o.error} for o in outcomes if o.error is not None][:_ERROR_EXAMPLES],
        "conventions": _CONVENTIONS,
        "intervals": {
            "level": LEVEL,
            "subsets and all pairs": "Wilson score",
            "sections and average": "percentiles of a bootstrap within subsets",
            "resamples": resamples,
            "seed": seed,
        },
        "scoring": {key: scoring.manifest.get(key) for key in _PROVENANCE},
        "scores_sha256": scoring.scores_sha256,
        "rubric": scoring.rubric.to_dict(),
        "versions": {
            "rmkit": rmkit.__version__,
            "python": platform.python_version(),
            **{package: metadata.version(package) for package in ("numpy", "scipy", "statsmodels")},
        },
    }


def _describe_errors(counts: Counts) -> list[str]:
    if counts.judged == 0:
        return [f"None of the {counts.n} pairs has a verdict: the accuracies say nothing about the judge."]
    if counts.errors:
        return [f"{counts.errors} of {counts.n} pairs have no verdict and count as wrong."]
    return []


def _figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The figures that sections and averages are means of."""
    return {
        "accuracy": count_outcomes(outcomes).accuracy(),
        "by_readout": accuracy_by_readout(outcomes),
        "probability": mean_probability(outcomes),
    }


def _official_results(
    groups: Mapping[str, Sequence[Outcome]], subsets: Mapping[str, Any], resampled: Mapping[str, Any]
) -> dict[str, Any]:
    """RewardBench 1's sections and average; every figure is weighted in the same way, resampled ones too."""
    sections = reward_bench.section_means(subsets)
    resampled_sections = reward_bench.section_means(resampled)
    average = reward_bench.average(sections)
    absent = [section for section in reward_bench.SECTIONS if section not in sections]
    if average is not None:
        average["interval"] = percentile_intervals(reward_bench.average(resampled_sections))
    rows = {}
    for section, figures in sections.items():
        members = [name for name in reward_bench.SECTIONS[section] if name in groups]
        counts = count_outcomes([outcome for name in members for outcome in groups[name]])
        rows[section] = {
            **counts.to_dict(),
            **figures,
            "interval": percentile_intervals(resampled_sections[section]),
            "subsets": members,
        }
    return {
        "sections": rows,
        "average": average,
        "average_reason": f"no pairs of section {', '.join(absent)}; the average needs all four" if absent else None,
    }
