"""Rules from preferences to scores, each on cases worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import pytest

from rmkit.data.dataset import Dataset, RawComparison, RecordError
from rmkit.data.shares import share_label, share_margin, share_rank, share_severity, take_majority
from rmkit.errors import DataError, RubricError
from rmkit.preparation.conversion import Refusal, convert_records, rescale
from rmkit.preparation.preferences import pair_comparison, score_comparison
from rmkit.raw.files import RawRecord
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Message

RUBRIC = Rubric("overall", (Attribute("overall", "Overall"),))
SCALE = RUBRIC["overall"]
HELLO = (Message("user", "Hello"),)


def on_scale(shares: tuple[Fraction, ...]) -> list[int]:
    return [rescale(share, (0, 1), SCALE) for share in shares]


@pytest.mark.parametrize(
    ("ranks", "scores"),
    [
        ([0, 1], [5, 1]),
        ([2, 1], [1, 5]),
        ([1, 1], [3, 3]),
        ([1, 2, 3, 4, 5], [5, 4, 3, 2, 1]),
        ([3, 1, 3], [2, 5, 2]),
        ([1, 2, 3, 4, 5, 6, 7], [5, 4, 4, 3, 2, 2, 1]),
    ],
)
def test_ranks(ranks: list[int], scores: list[int]) -> None:
    assert on_scale(share_rank(ranks)) == scores


@pytest.mark.parametrize(
    ("strength", "scores"),
    [(0, [3, 3]), (Fraction(1, 3), [4, 2]), (Fraction(2, 3), [4, 2]), (1, [5, 1]), (0.5, [4, 2])],
)
def test_margins(strength: float, scores: list[int]) -> None:
    assert on_scale(share_margin(strength)) == scores


@pytest.mark.parametrize("strength", [-0.1, 1.01, float("nan")])
def test_a_strength_outside_its_range_is_refused(strength: float) -> None:
    with pytest.raises(ValueError, match="strength"):
        share_margin(strength)


def test_labels_and_levels() -> None:
    assert on_scale((share_label(True), share_label(False))) == [5, 1]
    assert on_scale(tuple(share_severity(level, 3) for level in range(4))) == [5, 4, 2, 1]
    with pytest.raises(ValueError, match="0-3"):
        share_severity(4, 3)


@pytest.mark.parametrize(
    ("votes", "choice", "strength"),
    [
        ([1, 1, 1], 1, 1),
        ([2, 1, 2], 2, Fraction(1, 3)),
        ([2, 2, 0], 2, Fraction(1, 3)),
        ([0, 0, 1], 0, 0),
        ([0, 1, 2], 0, 0),
        ([1, 2], 0, 0),
        ([2], 2, 1),
    ],
)
def test_majorities(votes: list[int], choice: int, strength: Fraction) -> None:
    assert take_majority(votes) == (choice, strength)


def test_scores_are_marked_as_derived() -> None:
    found = RawComparison(HELLO, ("good", "bad"), (1, 2), strength=Fraction(1, 3), metadata={"votes": [1, 1, 2]})
    first, second = score_comparison(found, "margin")
    assert (first.ratings, second.ratings) == ({"overall": Fraction(2, 3)}, {"overall": Fraction(1, 3)})
    assert first.derived == second.derived == ("overall",)
    assert first.metadata == {"votes": [1, 1, 2]}
    worse_first = RawComparison(HELLO, ("bad", "good"), (2, 1), strength=Fraction(1, 3))
    assert [row.ratings["overall"] for row in score_comparison(worse_first, "margin")] == [
        Fraction(1, 3),
        Fraction(2, 3),
    ]


def test_a_margin_needs_two_responses() -> None:
    with pytest.raises(RecordError, match="'rank'"):
        score_comparison(RawComparison(HELLO, ("a", "b", "c"), (1, 2, 3)), "margin")


def test_one_text_gets_one_score() -> None:
    assert len(score_comparison(RawComparison(HELLO, ("a", "a"), (1, 1)), "rank")) == 2
    for rule in ("rank", "margin", "label"):
        with pytest.raises(RecordError) as same:
            score_comparison(RawComparison(HELLO, ("a", "a"), (1, 2)), rule)
        assert same.value.reason == "same_response"


@pytest.mark.parametrize(
    ("ranks", "scores"), [((2, 1), [1, 5]), ((1, 1), [3, 3]), ((2, 1, 1, 3), [1, 5, 5, 1]), ((4, 4, 4), [3, 3, 3])]
)
def test_the_best_are_labelled_good_and_all_others_bad(ranks: tuple[int, ...], scores: list[int]) -> None:
    rows = score_comparison(RawComparison(HELLO, tuple("abcd"[: len(ranks)]), ranks, strength=0.2), "label")
    assert on_scale(tuple(row.ratings["overall"] for row in rows)) == scores
    assert all(row.derived == ("overall",) for row in rows)


def test_ranks_of_very_many_responses() -> None:
    shares = share_rank(range(100_000))
    assert (shares[0], shares[-1]) == (Fraction(1), Fraction(0))


def test_pairs() -> None:
    found = RawComparison(HELLO, ("a", "b", "c"), (2, 1, 1), id="x/7", subset="x")
    pair = pair_comparison(found, "mine/0")
    assert (pair.id, pair.subset, pair.chosen, pair.rejected) == ("x/7", "x", ("b", "c"), ("a",))
    with pytest.raises(RecordError) as tie:
        pair_comparison(RawComparison(HELLO, ("a", "b"), (1, 1)), "mine/0")
    assert tie.value.reason == "tie"
    with pytest.raises(RecordError) as same:
        pair_comparison(RawComparison(HELLO, ("a", "a"), (1, 2)), "mine/0")
    assert same.value.reason == "same_response"


def read(record: Mapping[str, Any]) -> Iterator[RawComparison]:
    yield RawComparison(HELLO, (record["a"], record["b"]), record["ranks"])


COMPARED = Dataset("compared", "me/compared", "0" * 40, "train", read, rubric="overall", rule="rank")
RECORDS = [
    RawRecord(1, {"a": "yes", "b": "no", "ranks": (1, 2)}),
    RawRecord(2, {"a": "so", "b": "la", "ranks": (1, 1)}),
]


def test_a_comparison_becomes_rows_or_a_pair() -> None:
    rows = [row for outcome in convert_records(COMPARED, RUBRIC, RECORDS, "f") for row in outcome]  # type: ignore[union-attr]
    assert [(row.id, row.scores, row.derived) for row in rows] == [  # type: ignore[union-attr]
        ("compared/000000a", {"overall": 5}, ("overall",)),
        ("compared/000000b", {"overall": 1}, ("overall",)),
        ("compared/000001a", {"overall": 3}, ("overall",)),
        ("compared/000001b", {"overall": 3}, ("overall",)),
    ]
    pair, tie = convert_records(COMPARED, None, RECORDS, "f", rule="pairs")
    assert isinstance(pair, tuple) and (pair[0].id, pair[0].chosen) == ("compared/000000a", ("yes",))  # type: ignore[union-attr]
    assert isinstance(tie, Refusal) and tie.reason == "tie"


def test_derived_scores_can_be_left_out() -> None:
    outcomes = list(convert_records(COMPARED, RUBRIC, RECORDS, "f", keep_derived=False))
    assert [outcome.reason for outcome in outcomes if isinstance(outcome, Refusal)] == ["only_derived"] * 2


def test_rules_are_checked() -> None:
    with pytest.raises(DataError, match="choose rank, margin, label, pairs"):
        convert_records(COMPARED, RUBRIC, [], "f", rule="guess")
    with pytest.raises(RubricError, match="needs a rubric"):
        convert_records(COMPARED, None, [], "f")
    with pytest.raises(RubricError, match="leave the rubric out"):
        convert_records(COMPARED, RUBRIC, [], "f", rule="pairs")
    rated = Dataset("rated", "me/rated", "0" * 40, "train", read, rubric="overall", scales={"overall": (0, 4)})
    with pytest.raises(DataError, match="holds no comparisons"):
        convert_records(rated, RUBRIC, [], "f", rule="rank")
