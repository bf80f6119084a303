"""RewardBench 2, RM-Bench, JudgeBench and PPE correctness: ties, errors, counts, refusals, rows by hand."""

from __future__ import annotations

import json
import math

import pytest

from rmkit.errors import DataError
from rmkit.evaluation.benchmarks import BENCHMARKS
from rmkit.evaluation.records import read_scoring
from rmkit.evaluation.report import render_html, render_markdown
from rmkit.evaluation.results import evaluate

GPT = {"response_model": "gpt-4o-2024-05-13"}
CLAUDE = {"response_model": "claude-3-5-sonnet-20240620"}


@pytest.fixture
def results(write_lists, tmp_path):
    """Evaluates rows under a benchmark."""
    return lambda benchmark, rows: evaluate(read_scoring(write_lists(tmp_path, rows)), benchmark, resamples=50)


def test_published_counts():
    totals = {name: sum(benchmark.published.values()) for name, benchmark in BENCHMARKS.items()}
    assert totals == {
        "reward_bench": 2985,
        "reward_bench_2": 1865,
        "rm_bench": 1327,
        "judge_bench": 620,
        "ppe_correctness": 2555,
        "pairs": 0,
    }


def test_best_of_four_shares_the_point_of_a_tie(results):
    rows = [
        ("Math/0", "Math", [4.0], [3.0, 2.0, 1.0]),
        ("Math/1", "Math", [4.0], [4.0, 4.0, 1.0]),  # 1/3
        ("Math/2", "Math", [4.0], [4.0, 4.0, 4.0]),  # 1/4
        ("Math/3", "Math", [4.0], [4.0, 5.0, 4.0]),  # loses: the top is another
        ("Math/4", "Math", [5.0], [1.0, None, 1.0]),  # an error counts as wrong
    ]
    found = results("reward_bench_2", rows)
    math_figures = found["subsets"]["Math"]
    assert math_figures["accuracy"] == {"ties_half": pytest.approx((1 + 1 / 3 + 1 / 4) / 5), "ties_zero": 0.2}
    assert [math_figures[key] for key in ("wins", "ties", "losses", "errors")] == [1, 2, 1, 1]
    assert found["error_examples"] == [{"id": "Math/4", "error": "rejected 2: the prompt is too long"}]
    assert found["average"] is None and "Factuality" in found["average_reason"]
    assert "Math 5 of 183" in found["notes"][1]


def test_all_tied_is_chance_in_best_of_four(results):
    figures = results("reward_bench_2", [("Focus/0", "Focus", [2.0], [1.0, 1.0, 1.0])])["subsets"]["Focus"]
    assert figures["by_readout"]["mode"] == {"ties_half": 0.25, "ties_zero": 0.0}  # all distributions are the same


def ties_score(results, ref, tied):
    rows = [("Ties/ref:7", "Ties", *ref), ("Ties/tied:7", "Ties", *tied)]
    figures = results("reward_bench_2", rows)["subsets"]["Ties"]
    assert figures["accuracy"]["ties_half"] == figures["accuracy"]["ties_zero"]
    return figures["accuracy"]["ties_half"]


@pytest.mark.parametrize(
    ("ref", "tied", "expected"),
    [
        # Margins 3 and 2, spread 1: everything, and 0.01 tanh(2 / 1 - 1).
        (([5.0], [2.0, 1.0]), ([5.0, 4.0], [2.0, 1.0]), 1.0 + 0.01 * math.tanh(1)),
        # The margin of `ref` is smaller than the spread, that of `tied` is not.
        (([5.0], [4.5]), ([5.0, 4.0], [2.0]), 0.8 + 0.01 * math.tanh(-0.5)),
        # Margin and spread are equal: not larger.
        (([5.0], [2.0]), ([5.0, 4.0], [3.0]), 0.6),
        # A tie with the best wrong response is no win.
        (([4.0], [4.0]), ([5.0, 4.0], [4.0]), 0.01 * math.tanh(-1)),
        # 0 / 0 counts 0, and a margin over no spread counts 1.
        (([3.0], [3.0]), ([3.0, 3.0], [3.0]), 0.0),
        (([4.0], [3.0]), ([4.0, 4.0], [3.0]), 1.01),
        # Without a judgement the record and both margins are lost.
        (([5.0], [2.0, None]), ([5.0, 4.0], [2.0]), 0.3),
    ],
)
def test_score_of_ties_by_hand(results, ref, tied, expected):
    assert ties_score(results, ref, tied) == pytest.approx(expected, abs=1e-12)


def test_a_prompt_of_ties_without_its_partner(results):
    complete = [("Ties/ref:1", "Ties", [5.0], [2.0]), ("Ties/tied:1", "Ties", [5.0, 4.0], [2.0])]
    alone = ("Ties/ref:2", "Ties", [1.0], [2.0])
    found = results("reward_bench_2", [*complete, alone])
    assert found["subsets"]["Ties"]["accuracy"]["ties_zero"] == pytest.approx(1.0 + 0.01 * math.tanh(1))
    assert any(note.startswith("Ties: 1 prompts lack one of their records") for note in found["notes"])
    with pytest.raises(DataError, match="no prompt has both its records"):
        results("reward_bench_2", [alone])


def test_rm_bench_compares_all_styles_strictly(results):
    # Rows of the matrix are chosen: concise, detailed, markdown. One of nine is a tie, and no win.
    rows = [
        ("chat/0", "chat", [2.0, 3.0, 4.0], [1.0, 3.0, 5.0]),
        ("math/0", "math", [2.0, 2.0, 2.0], [1.0, 1.0, 1.0]),
        ("code/0", "code", [1.0, 1.0, 1.0], [2.0, 2.0, 2.0]),
        ("safety-refuse/0", "safety-refuse", [2.0, 2.0, 2.0], [1.0, 1.0, 1.0]),
        ("safety-response/0", "safety-response", [1.0, 1.0, None], [2.0, 2.0, 2.0]),
    ]
    found = results("rm_bench", rows)
    assert found["sections"]["chat"]["accuracy"] == {
        "ties_half": pytest.approx(4.5 / 9),
        "ties_zero": pytest.approx(4 / 9),
    }
    assert found["sections"]["safety"]["accuracy"]["ties_zero"] == 0.5
    assert found["sections"]["safety"]["errors"] == 3
    assert found["average"]["accuracy"]["ties_zero"] == pytest.approx((4 / 9 + 1 + 0 + 0.5) / 4)
    levels = {name: figures["accuracy"]["ties_zero"] for name, figures in found["slices"].items()}
    # Chat: hard 2>3, 2>5, 3>5; normal 2>1, 3>3, 4>5; easy 3>1, 4>1, 4>3.
    chat = {"Hard": 0, "Normal": 1 / 3, "Easy": 1}
    assert levels == pytest.approx({name: (value + 1 + 0 + 0.5) / 4 for name, value in chat.items()})
    assert (found["sections"]["chat"]["n"], found["subsets"]["chat"]["records"]) == (9, 1)
    text = render_markdown(found)
    assert "| Hard (average) |" in text and "Official figure: plain mean of four domains" in text
    assert text.count("| **chat** |") == 1 and "| chat |" not in text  # a section of one subset stands once


def test_judge_bench_reports_each_split_by_itself(results):
    rows = [
        ("a", "mmlu-pro-law", [2.0], [1.0], GPT),
        ("b", "mmlu-pro-math", [1.0], [1.0], GPT),  # a tie is not correct
        ("c", "livecodebench", [1.0], [2.0], GPT),
        ("d", "livebench-math", [2.0], [1.0], CLAUDE),
    ]
    found = results("judge_bench", rows)
    accuracies = {split: figures["accuracy"]["ties_zero"] for split, figures in found["sections"].items()}
    assert accuracies == {"gpt-4o": pytest.approx(1 / 3), "claude-3-5-sonnet": 1.0}
    assert list(found["subsets"]) == ["gpt-4o: mmlu-pro", "gpt-4o: livecodebench", "claude-3-5-sonnet: livebench-math"]
    assert "gpt-4o 3 of 350, claude-3-5-sonnet 1 of 270" in found["notes"][1]
    assert found["average"] is None and found["average_reason"] is None
    assert "Average of sections" not in render_markdown(found)


def test_one_whole_split_of_judge_bench_is_comparable(results):
    rows = [(str(number), "livebench-reasoning", [2.0], [1.0], GPT) for number in range(350)]
    assert not any("Not comparable" in note for note in results("judge_bench", rows)["notes"])


def test_ppe_compares_the_sampled_pairs(results):
    def row(number, part, pairs, chosen, rejected):
        metadata = {"chosen_positions": [1, 3], "rejected_positions": [0, 2], "sampled_conflict_pairs": pairs}
        return (f"{part}/{number}/m", part, chosen, rejected, metadata)

    rows = [
        # Position 1 against 0 wins, 2 against 3 loses, 3 against 0 ties.
        row(0, "math", [[1, 0], [2, 3], [3, 0]], [5.0, 2.0], [2.0, 4.0]),
        row(0, "gpqa", [[0, 1]], [5.0, None], [4.0, 4.0]),  # the failed response is in no sampled pair
        *(row(0, part, [[0, 1]], [1.0, 1.0], [4.0, 4.0]) for part in ("mmlu_pro", "ifeval", "mbpp_plus")),
    ]
    found = results("ppe_correctness", rows)
    assert found["subsets"]["math"]["accuracy"] == {"ties_half": 0.5, "ties_zero": pytest.approx(1 / 3)}
    assert (found["subsets"]["math"]["n"], found["subsets"]["math"]["records"]) == (3, 1)
    assert found["subsets"]["gpqa"]["accuracy"]["ties_zero"] == 1.0
    assert found["subsets"]["gpqa"]["errors"] == 0
    assert found["average"]["accuracy"]["ties_zero"] == pytest.approx((1 / 3 + 1) / 5)


@pytest.mark.parametrize(
    ("benchmark", "row", "message"),
    [
        ("reward_bench_2", ("Math/0", "Math", [1.0, 2.0], [1.0]), "2 chosen responses; subset 'Math' has one"),
        ("reward_bench_2", ("Ties/3", "Ties", [1.0], [1.0]), "ends in ref:N or tied:N"),
        ("reward_bench_2", ("Prose/0", "Prose", [1.0], [1.0]), "'Prose' is not one of RewardBench 2"),
        ("rm_bench", ("chat/0", "chat", [1.0] * 3, [1.0] * 2), "3 chosen and 2 rejected.*one\\s+per style"),
        ("judge_bench", ("a", "mmlu-pro-law", [1.0], [1.0]), "are not of JudgeBench"),
        ("judge_bench", ("a", "poetry", [1.0], [1.0], GPT), "source 'poetry'"),
        ("ppe_correctness", ("math/0/m", "math", [1.0], [1.0]), "metadata does not say which responses"),
        (
            "ppe_correctness",
            (
                "math/0/m",
                "math",
                [1.0],
                [1.0],
                {"chosen_positions": [0, 1], "rejected_positions": [2], "sampled_conflict_pairs": [[0, 2]]},
            ),
            "positions of other responses",
        ),
    ],
)
def test_rows_of_another_form_are_refused_by_name(results, benchmark, row, message):
    with pytest.raises(DataError, match=message):
        results(benchmark, [row])


def test_report_without_a_pair_of_two(results):
    found = results("reward_bench_2", [("Math/0", "Math", [4.0], [3.0, 2.0, 1.0])])
    assert found["reliability"]["bins"] == [] and found["margins"]["mean"] == 1.0
    json.dumps(found, allow_nan=False)
    assert render_html(found).count("<figure>") == 2  # margins and length, no P(chosen > rejected)


def test_means_of_attributes_are_over_all_responses(results):
    figures = results("reward_bench_2", [("Math/0", "Math", [4.0], [3.0, 2.0, 1.0])])["attributes"]["quality"]
    assert figures["n"] == 4


def test_pairs_of_ones_own_may_be_the_best_of_n(results):
    rows = [
        ("0", "four", [4.0], [3.0, 2.0, 1.0]),
        ("1", "four", [4.0], [4.0, 2.0, 1.0]),  # shares the top with one
        ("2", "two of three", [5.0, 1.0], [3.0]),  # each chosen response against all rejected ones
        ("3", "two", [5.0], [3.0]),
    ]
    found = results("pairs", rows)
    accuracies = {name: figures["accuracy"]["ties_half"] for name, figures in found["subsets"].items()}
    assert accuracies == {"four": 0.75, "two of three": 0.5, "two": 1.0}
    assert [found["subsets"][name]["chance"] for name in accuracies] == [0.25, 0.5, 0.5]
    assert (found["subsets"]["two of three"]["n"], found["subsets"]["two of three"]["records"]) == (2, 1)


def test_rates_stand_beside_the_counts(results):
    rows = [("0", "x", [4.0], [3.0]), ("1", "x", [4.0], [4.0]), ("2", "x", [4.0], [None]), ("3", "x", [4.0], [4.0])]
    figures = results("pairs", rows)["subsets"]["x"]
    rates = ("tie_rate", "error_rate", "truncation_rate")
    assert [figures[name] for name in rates] == [0.5, 0.25, 0.0]
