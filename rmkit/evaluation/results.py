"""From scoring folders to the results of a benchmark: plain data, fit for `results.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from rmkit.errors import DataError
from rmkit.evaluation.benchmarks import BENCHMARKS
from rmkit.evaluation.correlations import correlate_attributes
from rmkit.evaluation.disagreements import worst_pairs
from rmkit.evaluation.entropy import entropy_of_pairs
from rmkit.evaluation.intervals import LEVEL, resample_accuracies
from rmkit.evaluation.length_bias import measure_length_bias
from rmkit.evaluation.metrics import (
    Counts,
    attribute_figures,
    count_outcomes,
    credit_rows,
    describe_outside_mass,
    margin_histogram,
    reliability,
)
from rmkit.evaluation.official import figure_interval, official_results, slice_average, subset_figures
from rmkit.evaluation.outcomes import STORED, Outcome, compare_pairs, group_by_subset
from rmkit.evaluation.paired import compare_judges
from rmkit.evaluation.provenance import describe_provenance
from rmkit.evaluation.records import Scoring

_CONVENTIONS = {
    "ties": "ties_half: a tie counts 0.5, or 1/k where the correct response ties with k - 1 others; "
    "ties_zero: a tie counts 0",
    "errors": "a pair without a verdict counts as wrong under both conventions",
    "accuracy": "verdicts compare the aggregates in scores.jsonl; a tie is exact equality",
    "by_readout": "accuracy when each attribute is read by its mean or its mode",
    "probability": "mean of P(chosen > rejected) over judged pairs of one response with one, ties half",
    "chance": "mean accuracy of random scores; None, and in no mean, where several chosen responses must all win",
    "margin": "aggregate of chosen minus that of rejected",
    "length": "characters of the response",
    "entropy": "mean over attributes of entropy / log K, weighted as the aggregate",
}
_ERROR_EXAMPLES = 10


def evaluate(scoring: Scoring, benchmark: str, seed: int = 0, resamples: int = 2000) -> dict[str, Any]:
    """The results of one judge on one benchmark.

    Args:
        scoring: Pairs with their judgements.
        benchmark: A name in `rmkit.evaluation.benchmarks.BENCHMARKS`.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.

    Returns:
        Plain JSON data without NaN: `subsets`, `sections`, `average` and `slices` (published benchmarks only),
        `all_pairs`, `attributes`, `margins`, `reliability`, `length_bias`, `entropy`, `correlations`,
        `disagreements`, `notes`, and where all of it comes from.

    Raises:
        DataError: For a subset that the benchmark does not have, or pairs of another form.
    """
    return _evaluate(scoring, benchmark, _compare(scoring, benchmark), seed, resamples)


def evaluate_judges(
    scorings: Mapping[str, Scoring], benchmark: str, seed: int = 0, resamples: int = 2000
) -> dict[str, Any]:
    """The results of several judges on the same pairs, side by side.

    Args:
        scorings: What each judge said, by the name that the report gives it; two or more.
        benchmark: As for `evaluate`.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.

    Returns:
        Plain JSON data: `judges`, the results of each as `evaluate` gives them, and `comparisons` of each two, as
        `rmkit.evaluation.paired.compare_judges` gives them, with the names `first` and `second`.

    Raises:
        DataError: As for `evaluate`, or if the judges were not given the same pairs.
    """
    outcomes = {name: _compare(scoring, benchmark) for name, scoring in scorings.items()}
    rules = BENCHMARKS[benchmark]
    return {
        "benchmark": benchmark,
        "title": rules.title,
        "formula": rules.formula,
        "judges": {
            name: _evaluate(scoring, benchmark, outcomes[name], seed, resamples) for name, scoring in scorings.items()
        },
        "comparisons": [
            {"first": first, "second": second}
            | compare_judges(outcomes[first], outcomes[second], rules, seed, resamples)
            for first, second in combinations(scorings, 2)
        ],
    }


def _compare(scoring: Scoring, benchmark: str) -> list[Outcome]:
    rules = BENCHMARKS[benchmark]
    outcomes = compare_pairs(scoring, rules.contests)
    if not outcomes:
        raise DataError(f"{rules.title}: the pairs hold nothing to compare")
    return outcomes


def _evaluate(
    scoring: Scoring, benchmark: str, outcomes: Sequence[Outcome], seed: int, resamples: int
) -> dict[str, Any]:
    rules = BENCHMARKS[benchmark]
    official = bool(rules.sections)
    groups = group_by_subset(outcomes, rules.subsets)
    records = {name: len({o.id for o in group}) for name, group in groups.items()}
    notes = [*scoring.notes, *rules.check_subsets(records)]
    rows = {name: rules.rules.get(name, credit_rows)(group, STORED) for name, group in groups.items()}
    notes += _describe_left_out(groups, rows) + _describe_errors(count_outcomes(outcomes))
    attributes = attribute_figures(scoring)
    notes += describe_outside_mass(attributes)
    subsets = {name: subset_figures(group, rules, name) for name, group in groups.items()}
    resampled = resample_accuracies(rows, resamples, seed)
    results: dict[str, Any] = {
        "benchmark": benchmark,
        "title": rules.title,
        "formula": rules.formula,
        "notes": notes,
        "subsets": {
            name: {
                **count_outcomes(group).to_dict(),
                "records": records[name],
                **subsets[name],
                "interval": figure_interval(group, rows[name], subsets[name], resampled[name]),
            }
            for name, group in groups.items()
        },
    }
    if official:
        results |= official_results(rules, groups, results["subsets"], subsets, resampled)
        results["slices"] = {
            name: slice_average(rules, [o for o in outcomes if belongs(o)], resamples, seed)
            for name, belongs in rules.slices.items()
        }
    everything, all_rows = subset_figures(outcomes), credit_rows(outcomes)
    return results | {
        "all_pairs": {
            **count_outcomes(outcomes).to_dict(),
            "records": len(scoring.pairs) + len(scoring.unread),
            **everything,
            "interval": figure_interval(
                outcomes, all_rows, everything, resample_accuracies({"": all_rows}, resamples, seed)[""]
            ),
        },
        "attributes": attributes,
        "margins": margin_histogram(outcomes),
        "reliability": reliability(outcomes),
        "length_bias": measure_length_bias(scoring, groups, seed, resamples),
        "entropy": entropy_of_pairs(scoring, outcomes),
        "correlations": correlate_attributes(scoring.rubric.keys, _score_columns(scoring)),
        "disagreements": worst_pairs(scoring, outcomes),
        "error_examples": [{"id": o.id, "error": o.error} for o in outcomes if o.error is not None][:_ERROR_EXAMPLES],
        "conventions": _CONVENTIONS,
        "intervals": {
            "level": LEVEL,
            "subsets and all pairs": "Wilson score; where comparisons share a record, a bootstrap of records",
            "sections and average": "percentiles of a bootstrap within subsets",
            "resamples": resamples,
            "seed": seed,
        },
        **describe_provenance(scoring.manifest, scoring.scores_sha256, scoring.rubric),
    }


def _score_columns(scoring: Scoring) -> np.ndarray:
    """Mean scores of all judged responses, of shape (responses, attributes)."""
    keys = scoring.rubric.keys
    judged = [judgment.attributes for judgment in scoring.judgments.values() if judgment.error is None]
    return np.array([[found[key].mean for key in keys] for found in judged]).reshape(-1, len(keys))


def _describe_errors(counts: Counts) -> list[str]:
    if counts.judged == 0:
        return [f"None of the {counts.n} pairs has a verdict: the accuracies say nothing about the judge."]
    if counts.errors:
        return [f"{counts.errors} of {counts.n} pairs have no verdict and count as wrong."]
    return []


def _describe_left_out(groups: Mapping[str, Sequence[Outcome]], rows: Mapping[str, np.ndarray]) -> list[str]:
    """Notes on prompts that a rule of its own leaves out, because a part of them is not here."""
    left_out = {name: len({o.contest.record for o in group}) - len(rows[name]) for name, group in groups.items()}
    return [
        f"{name}: {count} prompts lack one of their records, which the score needs; left out."
        for name, count in left_out.items()
        if count
    ]
