from __future__ import annotations

import re
from pathlib import Path

import pytest

from rmkit.evaluation.agreement import measure_agreement
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Judgment, Message, PreferencePair, RatedResponse
from rmkit.scores import ScoreDistribution, aggregate
from rmkit.training.figures import (
    AGREEMENT,
    CHOOSING,
    describe_metrics,
    figure_names,
    find_figures,
    preferred_comparisons,
    rated_comparisons,
)

RUBRIC = Rubric(
    "two", (Attribute("helpfulness", "Helpfulness"), Attribute("verbosity", "Verbosity", weight=0.0, maximum=4))
)
FAILED = Judgment({}, None, error="JudgeError: too long")


def row(question: str, rubric: Rubric | None = None, derived: tuple[str, ...] = (), **scores: int) -> RatedResponse:
    return RatedResponse("row", "", (Message("user", question),), "words", scores, rubric=rubric, derived=derived)


def between(values: range, mean: float, outside: float = 0.0) -> ScoreDistribution:
    """A distribution with this mean, on the scores around it."""
    low = min(int(mean), values[-2])
    mass = {low: low + 1 - mean, low + 1: mean - low}
    return ScoreDistribution(tuple(values), tuple(mass.get(v, 0.0) for v in values), outside)


def judged(helpfulness: float, verbosity: float, outside: float = 0.0) -> Judgment:
    found = {"helpfulness": between(range(1, 6), helpfulness, outside), "verbosity": between(range(1, 5), verbosity)}
    return Judgment(found, aggregate(RUBRIC, found))


def figures_of(rows: list[RatedResponse], judgments: list[Judgment]) -> dict[str, float]:
    return find_figures(RUBRIC, rows, rated_comparisons(RUBRIC, rows), judgments).metrics


def test_errors_are_absolute_and_in_score_steps() -> None:
    rows = [row("a", helpfulness=5, verbosity=1), row("b", helpfulness=2, verbosity=4), row("c", helpfulness=3)]
    figures = figures_of(rows, [judged(4.5, 1.0, 0.25), judged(3.25, 2.0, 0.5), judged(3.0, 4.0, 0.75)])
    assert figures["mae_helpfulness"] == pytest.approx((0.5 + 1.25 + 0.0) / 3)
    assert figures["mae_verbosity"] == pytest.approx((0.0 + 2.0) / 2)  # the third row has no rating for it
    assert figures["mae"] == pytest.approx((1.75 / 3 + 1.0) / 2)
    assert figures["outside_mass"] == pytest.approx((0.25 + 0.5 + 0.75) / 6)
    assert figures["errors"] == 0
    assert "pair_accuracy" not in figures and "pairs" not in figures  # no two responses to one conversation


def test_each_attribute_has_its_agreement_and_its_bins() -> None:
    rows = [row("a", helpfulness=5, verbosity=1), row("b", helpfulness=2, verbosity=1), row("c", helpfulness=3)]
    judgments = [judged(4.5, 1.2), judged(3.25, 2.0), judged(3.1, 4.0)]
    found = find_figures(RUBRIC, rows, [], judgments)
    expected = measure_agreement([j.attributes["helpfulness"] for j in judgments], [5, 2, 3])
    assert [found.metrics[f"{name}_helpfulness"] for name in AGREEMENT] == [
        *(expected.mae, expected.qwk, expected.spearman, expected.calibration_error)
    ]
    assert expected.qwk == pytest.approx(1 - (2 / 3) / (2 / 9 + 14 / 9))  # modes 4 3 3 against 5 2 3
    assert found.reliability["helpfulness"] == expected.reliability
    # Both ratings of verbosity are 1: there is nothing to agree about, and its means do not enter those of the others.
    assert {name for name in found.metrics if name.endswith("verbosity")} == {
        *("mae_verbosity", "calibration_error_verbosity")
    }
    assert found.metrics["qwk"] == expected.qwk
    assert found.metrics["calibration_error_verbosity"] == pytest.approx((0.2 + 1.0) / 2)
    assert found.metrics["calibration_error"] == pytest.approx((expected.calibration_error + 0.6) / 2)


def test_pairs_are_those_of_one_conversation_with_different_ratings() -> None:
    rows = [
        row("a", helpfulness=5, verbosity=1),
        row("a", helpfulness=3, verbosity=1),
        row("a", helpfulness=3, verbosity=4),  # rated as the one before, as verbosity does not count
        row("b", helpfulness=1, verbosity=1),
        row("b", helpfulness=2, verbosity=1),
        row("c", helpfulness=4, verbosity=1),  # alone
    ]
    judgments = [judged(4, 1), judged(2, 1), judged(4, 3), judged(3, 1), judged(2, 1), judged(1, 1)]
    figures = figures_of(rows, judgments)
    # a: 5 against 3 is right, 5 against 3 is a tie that counts half; b: 1 against 2 is wrong.
    assert figures["pairs"] == 3
    assert figures["pair_accuracy"] == figures["pair_accuracy_mode"] == pytest.approx((1 + 0.5 + 0) / 3)


def test_means_and_modes_decide_pairs_apart() -> None:
    rows = [row("a", helpfulness=5), row("a", helpfulness=1), row("b", helpfulness=5), row("b", helpfulness=1)]
    judgments = [judged(3.4, 1), judged(3.2, 1), judged(3.4, 1), judged(3.6, 1)]
    figures = figures_of(rows, judgments)
    assert figures["pair_accuracy"] == 0.5  # 3.4 above 3.2 is right, 3.4 below 3.6 wrong
    assert figures["pair_accuracy_mode"] == 0.25  # 3 and 3 are a tie, 3 and 4 wrong


def test_a_row_without_its_ratings_makes_no_pair_and_a_failure_loses_its_pairs() -> None:
    rows = [row("a", helpfulness=5), row("a", verbosity=1), row("a", helpfulness=1), row("a", helpfulness=2)]
    figures = figures_of(rows, [judged(5, 1), judged(1, 1), FAILED, judged(1, 1)])
    assert figures["pairs"] == 3  # not the second row: helpfulness, which counts, is not rated there
    assert figures["pair_accuracy"] == figures["pair_accuracy_mode"] == pytest.approx(1 / 3)
    assert figures["errors"] == 1
    assert figures["mae_helpfulness"] == pytest.approx((0 + 1) / 2)


def test_pairs_without_ratings() -> None:
    pairs = [
        PreferencePair("p", "", (Message("user", "a"),), ("good",), ("bad",)),
        PreferencePair("q", "", (Message("user", "b"),), ("best",), ("bad", "worse")),
    ]
    comparisons = list(preferred_comparisons(RUBRIC, pairs, 1))
    assert [(c.better, c.worse) for c in comparisons] == [(1, 2), (3, 4), (3, 5)]
    judgments = [judged(2, 1), judged(4, 1), judged(2, 1), judged(3, 1), judged(3, 1, 0.75), judged(1, 1)]
    metrics = find_figures(RUBRIC, [row("c", helpfulness=3)], comparisons, judgments).metrics
    assert metrics["pairs"] == 3
    assert metrics["pair_accuracy"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert metrics["mae"] == 1  # of the one row with a rating
    assert metrics["outside_mass"] == pytest.approx(0.75 / 12)  # of all


def test_scales_of_other_rubrics_are_attributes_of_their_own() -> None:
    own = Rubric("own", (Attribute("tone", "Tone", maximum=3),))
    wide = Rubric("wide", (Attribute("helpfulness", "Helpfulness", minimum=0, maximum=10),))
    tone, ten = {"tone": between(range(1, 4), 2.5)}, {"helpfulness": between(range(0, 11), 9.5)}
    rows = [
        *(row("a", own, tone=2), row("a", helpfulness=2), row("a", helpfulness=1)),
        *(row("b", wide, helpfulness=8), row("b", wide, helpfulness=4)),
    ]
    judgments = [
        *(Judgment(tone, aggregate(own, tone)), judged(2, 1), judged(1.5, 1)),
        *(Judgment(ten, aggregate(wide, ten)), Judgment(ten, aggregate(wide, ten))),
    ]
    figures = figures_of(rows, judgments)
    assert figures["mae_tone"] == pytest.approx(0.5)
    assert figures["mae_helpfulness"] == pytest.approx(0.25)
    assert figures["mae_helpfulness.0-10"] == pytest.approx((1.5 + 5.5) / 2)
    assert figures["mae"] == pytest.approx((0.5 + 0.25 + 3.5) / 3)
    assert figures["pairs"] == 2  # two responses that are rated under one rubric
    assert figures["pair_accuracy"] == pytest.approx((1 + 0.5) / 2)
    absent = {"spearman_helpfulness.0-10"}  # both responses have one mean, which is known only when they are judged
    assert set(figures) | absent == figure_names(RUBRIC, rows, rated_comparisons(RUBRIC, rows))


def test_two_scales_that_the_run_does_not_have_are_both_named() -> None:
    short, long = (Rubric(str(most), (Attribute("tone", "Tone", maximum=most),)) for most in (3, 7))
    names = figure_names(RUBRIC, [row("a", short, tone=1), row("a", long, tone=1), row("a", helpfulness=1)], [])
    assert {name for name in names if name.startswith("mae_")} == {"mae_tone.1-3", "mae_tone.1-7", "mae_helpfulness"}


def test_scores_derived_from_a_preference_are_no_ratings() -> None:
    derived = ("helpfulness",)
    rows = [row("a", derived=derived, helpfulness=5), row("a", derived=derived, helpfulness=1), row("b", verbosity=2)]
    figures = figures_of(rows, [judged(3.5, 1), judged(3, 1), judged(3, 1)])
    assert figures["pair_accuracy"] == 1
    assert figures["mae"] == figures["mae_verbosity"] == 1
    assert "mae_helpfulness" not in figures


def test_nothing_but_failures() -> None:
    assert figures_of([row("a", helpfulness=1)], [FAILED]) == {"errors": 1.0}


def test_figure_names_are_those_that_come() -> None:
    rows = [row("a", helpfulness=5), row("b", helpfulness=1), row("a", helpfulness=4), row("c", verbosity=1)]
    judgments = [judged(5, 1), judged(1, 1), judged(4, 1), judged(1, 1)]
    for count in (1, 2, 3, 4):
        comparisons = rated_comparisons(RUBRIC, rows[:count])
        found = find_figures(RUBRIC, rows[:count], comparisons, judgments[:count]).metrics
        assert set(found) == figure_names(RUBRIC, rows[:count], comparisons)
    assert {"qwk_helpfulness", "pair_accuracy_mode", "mae_verbosity"} <= set(found)
    assert "qwk_verbosity" not in found  # one rating
    assert {name for name in found if "_helpfulness" not in name and "_verbosity" not in name} | {"loss"} == {
        *(CHOOSING.keys() | {"pairs"})
    }


def test_the_page_lists_every_figure(repo: Path) -> None:
    page = (repo / "docs/training.md").read_text("utf-8")
    listed = re.findall(r"^\| `eval_(\w+)` .*\| ?(higher|lower|) \|$", page, re.M)
    assert dict(listed) == {name: "higher" if up else "lower" for name, up in CHOOSING.items()} | {"pairs": ""}


def test_lines_for_people() -> None:
    metrics = {"eval_loss": 1.5, "eval_mae": 0.5, "eval_mae_a": 0.25, "eval_mae_b.0-10": 0.75, "eval_pair_accuracy": 1}
    assert describe_metrics(metrics) == [
        "loss: 1.5000",
        "mae: 0.5000 (a 0.250, b.0-10 0.750)",
        "pair_accuracy: 1.0000",
    ]
