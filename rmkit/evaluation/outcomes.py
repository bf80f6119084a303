"""What became of each pair: won, tied, lost, or not judged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tqdm import tqdm

from rmkit.errors import DataError
from rmkit.evaluation.records import SIDES, ResponseKey, Scoring
from rmkit.rubric import Rubric
from rmkit.schema import Judgment, PreferencePair
from rmkit.scores import aggregate, probability_higher, verdict

READOUT_TOLERANCES = {"mean": 0.0, "mode": 1e-9}
"""Read-outs reported side by side, and what counts as equal. Aggregates of modes lie on a grid, where a
difference of this size is rounding; for means a tie is exact equality."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one pair.

    Args:
        id: The pair's id.
        subset: The pair's subset.
        verdict: 1 chosen is higher, -1 rejected is higher, 0 tie; None when a side has no judgement.
        by_readout: The same for each of `READOUT_TOLERANCES`, read anew from the distributions.
        margin: Aggregate of chosen minus that of rejected, or None.
        probability: P(chosen > rejected), or None.
        truncated: Whether a side's conversation was cut to fit the judge's context.
        error: Why there is no verdict, or None.
    """

    id: str
    subset: str
    verdict: int | None
    by_readout: Mapping[str, int | None]
    margin: float | None
    probability: float | None
    truncated: bool = False
    error: str | None = None


def compare_pairs(scoring: Scoring) -> list[Outcome]:
    """One outcome per pair, in the order of the pairs.

    Raises:
        DataError: For a pair with several responses on a side: these benchmarks compare one with one.
    """
    bar = tqdm(scoring.pairs, desc="pairs", unit="pair", disable=None, leave=False)
    return [_compare(pair, scoring.judgments, scoring.rubric) for pair in bar]


def _compare(pair: PreferencePair, judgments: Mapping[ResponseKey, Judgment], rubric: Rubric) -> Outcome:
    if len(pair.chosen) != 1 or len(pair.rejected) != 1:
        raise DataError(
            f"pair {pair.id!r}: {len(pair.chosen)} chosen and {len(pair.rejected)} rejected responses; "
            "this benchmark compares one with one"
        )
    found = {side: judgments.get((pair.id, side, 0)) for side in SIDES}
    truncated = any(judgment is not None and judgment.truncated for judgment in found.values())
    problems = [
        f"{side}: {'not scored' if judgment is None else judgment.error}"
        for side, judgment in found.items()
        if judgment is None or judgment.error is not None
    ]
    chosen, rejected = found["chosen"], found["rejected"]
    if problems or chosen is None or rejected is None or chosen.aggregate is None or rejected.aggregate is None:
        nothing = dict.fromkeys(READOUT_TOLERANCES)
        return Outcome(pair.id, pair.subset, None, nothing, None, None, truncated, "; ".join(problems))
    by_readout = {
        readout: verdict(
            aggregate(rubric, chosen.attributes, readout), aggregate(rubric, rejected.attributes, readout), tolerance
        )
        for readout, tolerance in READOUT_TOLERANCES.items()
    }
    return Outcome(
        id=pair.id,
        subset=pair.subset,
        verdict=verdict(chosen.aggregate, rejected.aggregate),
        by_readout=by_readout,
        margin=chosen.aggregate - rejected.aggregate,
        probability=probability_higher(rubric, chosen.attributes, rejected.attributes),
        truncated=truncated,
    )


def group_by_subset(outcomes: Iterable[Outcome], order: Iterable[str] = ()) -> dict[str, list[Outcome]]:
    """Outcomes per subset: first the subsets of `order` that occur, then the others as they come."""
    groups: dict[str, list[Outcome]] = {name: [] for name in order}
    for outcome in outcomes:
        groups.setdefault(outcome.subset, []).append(outcome)
    return {name: group for name, group in groups.items() if group}
