"""RewardBench 1: the official figures, and what happens with a part of it."""

from __future__ import annotations

import json

import pytest

from rmkit.errors import DataError
from rmkit.evaluation.records import read_scoring
from rmkit.evaluation.results import evaluate
from rmkit.evaluation.reward_bench import COUNTS, REWARD_BENCH, SECTIONS, WEIGHTS


def test_constants_are_those_published():
    assert sum(COUNTS.values()) == 2985
    assert {section: sum(subsets.values()) for section, subsets in SECTIONS.items()} == {
        "Chat": 358,
        "Chat Hard": 456,
        "Safety": 740,
        "Reasoning": 1431,
    }
    assert {name for name in COUNTS if WEIGHTS[name] != COUNTS[name]} == {"math-prm"}
    assert WEIGHTS["math-prm"] == sum(count for name, count in COUNTS.items() if name.startswith("hep-"))


def test_unknown_subset_is_refused_by_name(write_scoring, tmp_path):
    scoring = read_scoring(write_scoring(tmp_path, [("1", "hep-cobol", 4, 2)]))
    with pytest.raises(DataError, match="'hep-cobol' is not one of RewardBench 1"):
        evaluate(scoring, "reward_bench")


def test_a_part_of_the_benchmark_keeps_the_weights_and_says_so():
    assert REWARD_BENCH.section_means({"math-prm": 1.0, "hep-go": 0.0}, {"math-prm": 5, "hep-go": 5}) == {
        "Reasoning": 984 / (984 + 164)
    }
    notes = REWARD_BENCH.check_subsets({**COUNTS, "hep-go": 10})
    assert len(notes) == 1 and "hep-go 10 of 164" in notes[0]
    present = {name: count for name, count in COUNTS.items() if not name.startswith(("alpacaeval", "donotanswer"))}
    assert REWARD_BENCH.check_subsets(present)[0].startswith("Partial: 19 of 23 subsets; absent: alpacaeval-easy")
    assert REWARD_BENCH.check_subsets(COUNTS) == []


def test_real_sample_is_reported_as_partial(shared, write_scoring, tmp_path):
    lines = (shared / "data/reward_bench_sample/filtered_sample.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    rows = [(f"{r['subset']}/{r['id']}", r["subset"], 1 + r["id"] % 5, 3) for r in records]
    results = evaluate(read_scoring(write_scoring(tmp_path, rows)), "reward_bench", resamples=50)
    assert results["all_pairs"]["n"] == 248
    assert {section: len(figures["subsets"]) for section, figures in results["sections"].items()} == {
        "Chat": 2,
        "Chat Hard": 6,
        "Safety": 4,
        "Reasoning": 7,
    }
    accuracies = [figures["accuracy"]["ties_half"] for figures in results["sections"].values()]
    assert results["average"]["accuracy"]["ties_half"] == pytest.approx(sum(accuracies) / 4)
    assert results["notes"][0].startswith("Partial: 19 of 23 subsets")
    assert "math-prm 40 of 447" in results["notes"][1]


def test_no_average_without_a_section(write_scoring, tmp_path):
    rows = [("1", "hep-go", 4, 2), ("2", "mt-bench-easy", 4, 2), ("3", "donotanswer", 4, 2)]
    results = evaluate(read_scoring(write_scoring(tmp_path, rows)), "reward_bench", resamples=10)
    assert list(results["sections"]) == ["Chat", "Safety", "Reasoning"]
    assert results["average"] is None
    assert "Chat Hard" in results["average_reason"]
    assert REWARD_BENCH.average({"Chat": 1.0, "Chat Hard": 0.5, "Safety": 0.5, "Reasoning": 0.0}) == 0.5


def test_prior_sets_give_a_second_average_of_half_weight(write_scoring, tmp_path):
    core = [
        ("1", "hep-go", 4, 2),
        ("2", "mt-bench-easy", 4, 2),
        ("3", "mt-bench-hard", 4, 2),
        ("4", "donotanswer", 1, 2),
    ]
    prior = [("5", "anthropic_helpful", 4, 2), ("6", "anthropic_helpful", 1, 2), ("7", "anthropic_hhh", 4, 2)]
    prior += [("8", "shp", 4, 2), ("9", "summarize", 1, 2)]
    results = evaluate(read_scoring(write_scoring(tmp_path / "all", core + prior)), "reward_bench", resamples=50)
    # The prior sets count the same each, whatever their size.
    assert results["sections"]["Prior Sets"]["accuracy"]["ties_zero"] == pytest.approx((0.5 + 1 + 1 + 0) / 4)
    assert results["average"]["accuracy"]["ties_zero"] == pytest.approx(3 / 4)
    assert results["average_with_prior"]["accuracy"]["ties_zero"] == pytest.approx((2 * 3 + 0.625) / 9)
    low, high = results["average_with_prior"]["interval"]["ties_zero"]
    assert low <= 6.625 / 9 <= high
    assert "shp 1 of 1741" in " ".join(results["notes"])
    part = evaluate(read_scoring(write_scoring(tmp_path / "part", core + prior[:-1])), "reward_bench", resamples=5)
    assert part["average_with_prior"] is None and "Prior Sets" not in part["sections"]
    assert part["average"] == {**results["average"], "interval": part["average"]["interval"]}
    assert "No figure with prior sets: absent are summarize." in part["notes"]
