"""Where judge and truth are furthest apart, with the texts, for a person to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rmkit.evaluation.outcomes import Outcome
from rmkit.evaluation.rated import RatedScoring
from rmkit.evaluation.records import Scoring
from rmkit.evaluation.texts import make_printable, shorten
from rmkit.schema import Conversation, Judgment

MOST = 10
"""Disagreements that a report shows."""

MOST_CHARACTERS = 2_000
"""Of each text; longer ones lose their middle."""


def worst_pairs(scoring: Scoring, outcomes: Sequence[Outcome], most: int = MOST) -> list[dict[str, Any]]:
    """The lost comparisons with the largest margins, one per record, the worst first.

    Args:
        scoring: Pairs with their judgements.
        outcomes: What became of each comparison.
        most: How many to list.

    Returns:
        For each: `id`, `subset`, `margin` (below 0), `probability`, the `conversation`, and of the worst `chosen` and
        the best `rejected` response the `text`, the `aggregate` and the mean `scores` per attribute.
    """
    pairs = {pair.id: pair for pair in scoring.pairs}
    found: list[dict[str, Any]] = []
    seen = set()
    lost = [(o.margin, number, o) for number, o in enumerate(outcomes) if o.verdict == -1 and o.margin is not None]
    for margin, _, outcome in sorted(lost):
        if outcome.id in seen:
            continue
        seen.add(outcome.id)
        pair = pairs[outcome.id]
        chosen = min(outcome.contest.chosen, key=lambda i: _aggregate(scoring, (outcome.id, "chosen", i)))
        rejected = max(outcome.contest.rejected, key=lambda i: _aggregate(scoring, (outcome.id, "rejected", i)))
        found.append(
            {
                "id": pair.id,
                "subset": outcome.contest.subset,
                "margin": margin,
                "probability": outcome.probability,
                "conversation": write_conversation(pair.conversation),
                "chosen": describe_response(pair.chosen[chosen], scoring.judgments[pair.id, "chosen", chosen]),
                "rejected": describe_response(
                    pair.rejected[rejected], scoring.judgments[pair.id, "rejected", rejected]
                ),
            }
        )
        if len(found) == most:
            break
    return found


def _aggregate(scoring: Scoring, key: tuple[str, str, int]) -> float:
    aggregate = scoring.judgments[key].aggregate
    assert aggregate is not None  # a comparison with a verdict has judged responses
    return aggregate


def worst_ratings(scoring: RatedScoring) -> list[dict[str, Any]]:
    """The `MOST` responses whose judged scores are furthest from the ratings, the worst first.

    Args:
        scoring: Rated responses with their judgements.

    Returns:
        For each: `id`, `difference` (aggregate of the judge's expected scores minus that of the ratings, over the
        attributes that are rated), the `conversation`, the `response` as `describe_response` gives it, and `ratings`.
    """
    found = []
    for number, (row, judgment) in enumerate(scoring.pairs()):
        aggregates = scoring.aggregate(row, judgment)
        if aggregates is not None and aggregates[0] != aggregates[1]:
            difference = aggregates[0] - aggregates[1]
            found.append((-abs(difference), number, difference, row, judgment))
    return [
        {
            "id": row.id,
            "difference": difference,
            "conversation": write_conversation(row.conversation),
            "response": describe_response(row.response, judgment),
            "ratings": {key: row.scores[key] for key in row.scores if key in judgment.attributes},
        }
        for _, _, difference, row, judgment in sorted(found, key=lambda item: item[:2])[:MOST]
    ]


def describe_response(text: str, judgment: Judgment) -> Mapping[str, Any]:
    """A response's text as it may be printed, its aggregate, and its mean score per attribute."""
    return {
        "text": shorten(make_printable(text), MOST_CHARACTERS),
        "aggregate": judgment.aggregate,
        "scores": {key: distribution.mean for key, distribution in judgment.attributes.items()},
    }


def write_conversation(conversation: Conversation) -> str:
    """A conversation as it may be printed; roles are named where there are several turns."""
    turns = [m.content if len(conversation) == 1 else f"[{m.role}]\n{m.content}" for m in conversation]
    return shorten(make_printable("\n\n".join(turns)), MOST_CHARACTERS)
