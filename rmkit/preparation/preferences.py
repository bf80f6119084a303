"""From preferences to scores: each rule by name, from what people said to shares of a scale.

A share is a number in [0, 1], kept exact: 0 is the worst score of the scale and 1 the best. `rescale` puts it onto an
attribute's scale, halves rounded up. What a rule made is marked as derived in its row.

| rule | from | shares | on 1-5 |
|---|---|---|---|
| `rank` | rank r of n, 1 the best; ties share their mean rank | 1 - (r - 1) / (n - 1) | of two: 5, 1; tie: 3, 3 |
| `margin` | a strength s in [0, 1] | better (1 + s) / 2, worse (1 - s) / 2 | s = 1/3: 4, 2; s = 1: 5, 1; tie: 3, 3 |
| `label` | good or bad; in a comparison, the best are good, all others bad | 1, 0; tie 1/2 | 5, 1; tie: 3, 3 |
| `severity` | a level from 0, harmless, to m | 1 - level / m | of 0-3: 5, 4, 2, 1 |
| `majority` | votes | `margin` with s = (most - second most votes) / votes | of three, 3:0: 5, 1; 2:1: 4, 2 |

`pairs` makes no scores: it keeps the comparison as a pair of chosen and rejected responses, and refuses ties by name.
"""

from __future__ import annotations

from rmkit.data.dataset import RawComparison, RawResponse, RecordError
from rmkit.data.shares import share_label, share_margin, share_rank
from rmkit.schema import PreferencePair

RULES = ("rank", "margin", "label", "pairs")
"""Rules that a comparison can be read by; the others serve adapters whose records have levels or votes."""


def score_comparison(found: RawComparison, rule: str) -> tuple[RawResponse, ...]:
    """The rated responses that a comparison becomes, in its order; each rating is a share, marked as derived.

    Args:
        found: The comparison.
        rule: `rank`, `margin` or `label`. For `margin`, two responses without a stated strength have the full one, or
            that of a tie.

    Raises:
        RecordError: `not_a_pair` if `margin` meets other than two responses; `same_response` if the same text would
            get two different scores.
    """
    if len(set(zip(found.responses, found.ranks, strict=True))) > len(set(found.responses)):
        raise RecordError("same_response", "the same text stands on two ranks, so neither is better")
    shares = share_rank(found.ranks)
    if rule == "label" and len(set(found.ranks)) > 1:  # a tie of all stays in the middle
        shares = tuple(share_label(rank == min(found.ranks)) for rank in found.ranks)
    if rule == "margin":
        if len(found.responses) != 2:
            message = f"the rule 'margin' reads two responses, found {len(found.responses)}; use the rule 'rank'"
            raise RecordError("not_a_pair", message)
        if found.strength is not None and shares[0] != shares[1]:
            better, worse = share_margin(found.strength)
            shares = (better, worse) if shares[0] > shares[1] else (worse, better)
    return tuple(
        RawResponse(
            conversation=found.conversation,
            response=response,
            ratings={found.attribute: share},
            reference=found.reference,
            derived=(found.attribute,),
            metadata=found.metadata,
        )
        for response, share in zip(found.responses, shares, strict=True)
    )


def pair_comparison(found: RawComparison, default_id: str) -> PreferencePair:
    """The comparison as a pair: the best responses against all others.

    Args:
        found: The comparison.
        default_id: The id where the comparison has none of its own.

    Raises:
        RecordError: `tie` if all responses are equally good, `same_response` if the same text stands on both sides.
    """
    best = min(found.ranks)
    sides = [
        tuple(r for r, rank in zip(found.responses, found.ranks, strict=True) if (rank == best) is wanted)
        for wanted in (True, False)
    ]
    if not sides[1]:
        raise RecordError("tie", "no response is better than another, which a pair can't say; a rule of scores can")
    both = set(sides[0]) & set(sides[1])
    if both:
        raise RecordError("same_response", "the same text stands on both sides, so neither is better")
    return PreferencePair(
        id=found.id or default_id,
        subset=found.subset,
        conversation=found.conversation,
        chosen=sides[0],
        rejected=sides[1],
        metadata=found.metadata,
    )
