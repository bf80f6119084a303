from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rmkit.judge import Judge
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Judgment, Message, RatedResponse
from rmkit.scores import ScoreDistribution, aggregate
from rmkit.training.validation import agreement, figure_names, validate

RUBRIC = Rubric(
    "two", (Attribute("helpfulness", "Helpfulness"), Attribute("verbosity", "Verbosity", weight=0.0, maximum=4))
)


@pytest.fixture(scope="module")
def judge(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_tokenizer: Callable[..., Any],
    save_tiny_judge: Callable[..., Path],
) -> Judge:
    return Judge.load(save_tiny_judge(tmp_path_factory.mktemp("judge"), tiny_tokenizer("split_digits"), RUBRIC))


def row(question: str, rubric: Rubric | None = None, **scores: int) -> RatedResponse:
    return RatedResponse("row", "", (Message("user", question),), "words", scores, rubric=rubric)


def between(values: range, mean: float, outside: float = 0.0) -> ScoreDistribution:
    """A distribution with this mean, on the scores around it."""
    low = min(int(mean), values[-2])
    mass = {low: low + 1 - mean, low + 1: mean - low}
    return ScoreDistribution(tuple(values), tuple(mass.get(v, 0.0) for v in values), outside)


def judged(helpfulness: float, verbosity: float, outside: float = 0.0) -> Judgment:
    found = {"helpfulness": between(range(1, 6), helpfulness, outside), "verbosity": between(range(1, 5), verbosity)}
    return Judgment(found, aggregate(RUBRIC, found))


FAILED = Judgment({}, None, error="JudgeError: too long")


def test_errors_are_absolute_and_in_score_steps(judge: Judge) -> None:
    rows = [row("a", helpfulness=5, verbosity=1), row("b", helpfulness=2, verbosity=4), row("c", helpfulness=3)]
    figures = agreement(judge, rows, [judged(4.5, 1.0, 0.25), judged(3.25, 2.0, 0.5), judged(3.0, 4.0, 0.75)])
    assert figures["mae_helpfulness"] == pytest.approx((0.5 + 1.25 + 0.0) / 3)
    assert figures["mae_verbosity"] == pytest.approx((0.0 + 2.0) / 2)  # the third row has no rating for it
    assert figures["mae"] == pytest.approx((1.75 / 3 + 1.0) / 2)
    assert figures["outside_mass"] == pytest.approx((0.25 + 0.5 + 0.75) / 6)
    assert figures["errors"] == 0
    assert "pair_accuracy" not in figures and "pairs" not in figures  # no two responses to one conversation


def test_pairs_are_those_of_one_conversation_with_different_ratings(judge: Judge) -> None:
    rows = [
        row("a", helpfulness=5, verbosity=1),
        row("a", helpfulness=3, verbosity=1),
        row("a", helpfulness=3, verbosity=4),  # rated as the one before, as verbosity does not count
        row("b", helpfulness=1, verbosity=1),
        row("b", helpfulness=2, verbosity=1),
        row("c", helpfulness=4, verbosity=1),  # alone
    ]
    judgments = [judged(4, 1), judged(2, 1), judged(4, 3), judged(3, 1), judged(2, 1), judged(1, 1)]
    figures = agreement(judge, rows, judgments)
    # a: 5 against 3 is right, 5 against 3 is a tie that counts half; b: 1 against 2 is wrong.
    assert figures["pairs"] == 3
    assert figures["pair_accuracy"] == pytest.approx((1 + 0.5 + 0) / 3)


def test_what_has_no_rating_or_no_judgement_makes_no_pair(judge: Judge) -> None:
    rows = [row("a", helpfulness=5), row("a", verbosity=1), row("a", helpfulness=1), row("a", helpfulness=2)]
    figures = agreement(judge, rows, [judged(5, 1), judged(1, 1), FAILED, judged(1, 1)])
    assert figures["pairs"] == 1  # 5 against 2; helpfulness, which counts, is not rated in the second row
    assert figures["pair_accuracy"] == 1
    assert figures["errors"] == 1
    assert figures["mae_helpfulness"] == pytest.approx((0 + 1) / 2)


def test_a_rubric_of_its_own(judge: Judge) -> None:
    own = Rubric("own", (Attribute("tone", "Tone", maximum=3),))
    tone = {"tone": between(range(1, 4), 2.5)}
    rows = [row("a", own, tone=2), row("a", helpfulness=2), row("a", helpfulness=1)]
    figures = agreement(judge, rows, [Judgment(tone, aggregate(own, tone)), judged(2, 1), judged(1, 1)])
    assert figures["mae_tone"] == pytest.approx(0.5)
    assert figures["pairs"] == 1  # aggregates of two rubrics are not compared


def test_nothing_but_failures(judge: Judge) -> None:
    assert agreement(judge, [row("a", helpfulness=1)], [FAILED]) == {"errors": 1.0}


def test_figure_names_are_those_that_agreement_gives(judge: Judge) -> None:
    rows = [row("a", helpfulness=5), row("b", helpfulness=1), row("a", helpfulness=4)]
    judgments = [judged(5, 1), judged(1, 1), judged(4, 1)]
    for count in (2, 3):
        assert set(agreement(judge, rows[:count], judgments[:count])) == figure_names(RUBRIC, rows[:count])
    assert "pair_accuracy" in figure_names(RUBRIC, rows)
    assert "mae_verbosity" not in figure_names(RUBRIC, rows)


def test_validate_scores_with_the_judge(judge: Judge) -> None:
    rows = [row("a", helpfulness=5), row("a", helpfulness=1), row("b", helpfulness=3, verbosity=2)]
    judgments = judge.score([r.conversation for r in rows], [r.response for r in rows])
    assert validate(judge, rows, shard=True) == agreement(judge, rows, judgments)
