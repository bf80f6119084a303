"""What became of each comparison: won, tied, lost, or not judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tqdm import tqdm

from rmkit.errors import DataError
from rmkit.evaluation.records import ResponseKey, Scoring
from rmkit.rubric import Rubric
from rmkit.schema import Judgment, PreferencePair
from rmkit.scores import aggregate, probability_higher, verdict
from rmkit.scoring.items import SIDES

READOUT_TOLERANCES = {"mean": 0.0, "mode": 1e-9}
"""Read-outs reported side by side, and what counts as equal. Aggregates of modes lie on a grid, where a
difference of this size is rounding; for means a tie is exact equality."""

STORED = "stored"
"""The name of the aggregates in `scores.jsonl`, beside those of the read-outs."""


@dataclass(frozen=True, slots=True)
class Contest:
    """One comparison: it is won if the worst of some chosen responses beats the best of some rejected ones.

    Args:
        record: What was drawn as one when the benchmark was made; its contests are not independent.
        subset: The subset that it counts in.
        chosen: Places among the pair's chosen responses.
        rejected: Places among the rejected ones.
    """

    record: str
    subset: str
    chosen: tuple[int, ...] = (0,)
    rejected: tuple[int, ...] = (0,)


def contest_of_two(pair: PreferencePair) -> tuple[Contest, ...]:
    """The one contest of a pair that has one response on each side.

    Raises:
        DataError: For a pair with several responses on a side.
    """
    if len(pair.chosen) != 1 or len(pair.rejected) != 1:
        raise DataError(
            f"pair {pair.id!r}: {len(pair.chosen)} chosen and {len(pair.rejected)} rejected responses; "
            "this benchmark compares one with one"
        )
    return (Contest(pair.id, pair.subset),)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a contest stands by one read-out.

    Args:
        verdict: 1 chosen is higher, -1 rejected is higher, 0 tie.
        share: What a tie counts where all at the top share the point: 1/k for k responses.
        margin: Aggregate of the worst chosen response minus that of the best rejected one.
        spread: Aggregate of the best chosen response minus that of the worst; 0 for one.
    """

    verdict: int
    share: float
    margin: float
    spread: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one contest.

    Args:
        id: The pair's id.
        contest: The contest.
        standings: How it stands by the aggregates in `scores.jsonl` (`STORED`), and by each of
            `READOUT_TOLERANCES`, read anew from the distributions. Empty when a response has no judgement.
        probability: P(chosen > rejected) for one against one, else None.
        truncated: Whether a response's conversation was cut to fit the judge's context.
        error: Why there is no verdict, or None.
    """

    id: str
    contest: Contest
    standings: Mapping[str, Standing] = field(default_factory=dict)
    probability: float | None = None
    truncated: bool = False
    error: str | None = None

    @property
    def verdict(self) -> int | None:
        """The verdict by the stored aggregates, or None."""
        return self.standings[STORED].verdict if self.standings else None

    @property
    def margin(self) -> float | None:
        """The margin of the stored aggregates, or None."""
        return self.standings[STORED].margin if self.standings else None


def compare_pairs(
    scoring: Scoring, contests: Callable[[PreferencePair], Sequence[Contest]] = contest_of_two
) -> list[Outcome]:
    """One outcome per contest, in the order of the pairs; then those of rows that could not be read.

    Args:
        scoring: Pairs with their judgements.
        contests: The contests of a pair.

    Raises:
        DataError: For a pair that has not the form which the contests need.
    """
    bar = tqdm(scoring.pairs, desc="pairs", unit="pair", disable=None, leave=False)
    outcomes = []
    for pair in bar:
        responses = _Responses(pair, scoring)
        outcomes += [responses.compare(contest) for contest in contests(pair)]
    for pair in scoring.unread:
        responses = _Responses(pair, scoring)
        try:
            found = contests(pair)
        except DataError:  # not even its form is known
            found = (Contest(pair.id, pair.subset),)
        for contest in found:
            outcome = responses.compare(contest)
            # A row that could be read when it was scored has a verdict, but no texts to report on.
            lost = Outcome(pair.id, contest, error="the row can't be read")
            outcomes.append(lost if outcome.error is None else outcome)
    return outcomes


class _Responses:
    """The judged responses of a pair; their aggregates are computed once, for all contests."""

    def __init__(self, pair: PreferencePair, scoring: Scoring) -> None:
        self.pair = pair
        self.rubric: Rubric = scoring.rubric
        self.judgments: dict[ResponseKey, Judgment] = {}
        self.aggregates: dict[ResponseKey, dict[str, float]] = {}
        self.problems: dict[ResponseKey, str] = {}
        for side in SIDES:
            responses = getattr(pair, side)
            for index in range(len(responses)):
                key = (pair.id, side, index)
                judgment = scoring.judgments.get(key)
                place = side if len(responses) == 1 else f"{side} {index + 1}"
                if judgment is not None:
                    self.judgments[key] = judgment
                if judgment is None or judgment.error is not None or judgment.aggregate is None:
                    self.problems[key] = f"{place}: {'not scored' if judgment is None else judgment.error}"
                else:
                    readouts = {name: aggregate(self.rubric, judgment.attributes, name) for name in READOUT_TOLERANCES}
                    self.aggregates[key] = {STORED: judgment.aggregate, **readouts}

    def compare(self, contest: Contest) -> Outcome:
        chosen = [(self.pair.id, "chosen", index) for index in contest.chosen]
        rejected = [(self.pair.id, "rejected", index) for index in contest.rejected]
        truncated = any(self.judgments[key].truncated for key in chosen + rejected if key in self.judgments)
        problems = [self.problems[key] for key in chosen + rejected if key in self.problems]
        if problems:
            return Outcome(self.pair.id, contest, truncated=truncated, error="; ".join(problems))
        standings = {
            name: _stand(
                [self.aggregates[key][name] for key in chosen], [self.aggregates[key][name] for key in rejected], name
            )
            for name in (STORED, *READOUT_TOLERANCES)
        }
        probability = None
        if len(chosen) == len(rejected) == 1:
            first, second = self.judgments[chosen[0]], self.judgments[rejected[0]]
            probability = probability_higher(self.rubric, first.attributes, second.attributes)
        return Outcome(self.pair.id, contest, standings, probability, truncated)


def _stand(chosen: Sequence[float], rejected: Sequence[float], readout: str) -> Standing:
    tolerance = READOUT_TOLERANCES.get(readout, 0.0)
    worst, best = min(chosen), max(rejected)
    level = sum(abs(value - worst) <= tolerance for value in rejected)
    return Standing(
        verdict=verdict(worst, best, tolerance),
        share=1 / (1 + level),
        margin=worst - best,
        spread=max(chosen) - worst,
    )


def group_by_subset(outcomes: Iterable[Outcome], order: Iterable[str] = ()) -> dict[str, list[Outcome]]:
    """Outcomes per subset: first the subsets of `order` that occur, then the others as they come."""
    groups: dict[str, list[Outcome]] = {name: [] for name in order}
    for outcome in outcomes:
        groups.setdefault(outcome.contest.subset, []).append(outcome)
    return {name: group for name, group in groups.items() if group}
