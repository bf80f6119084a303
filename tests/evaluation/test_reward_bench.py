"""RewardBench 1: the official figures, and what happens with a part of it."""

from __future__ import annotations

import json

import pytest

from rmkit.errors import DataError
from rmkit.evaluation.records import read_scoring
from rmkit.evaluation.results import evaluate
from rmkit.evaluation.reward_bench import COUNTS, SECTIONS, WEIGHTS, average, check_subsets, section_means


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


def test_official_figures(shared, write_scoring, tmp_path):
    golden = json.loads((shared / "golden/reward_bench_1.json").read_text("utf-8"))
    rows = [(f"{r['subset']}/{r['id']}", r["subset"], r["chosen"], r["rejected"]) for r in golden["scores"]]
    results = evaluate(read_scoring(write_scoring(tmp_path, rows)), "reward_bench", resamples=50)
    official = golden["official"]
    assert results["all_pairs"]["tie_rate"] == pytest.approx(official["tie_rate"], abs=1e-9)
    for convention in ("ties_half", "ties_zero"):
        expected = official[convention]
        found = {name: figures["accuracy"][convention] for name, figures in results["subsets"].items()}
        assert found == pytest.approx(expected["subsets"], abs=1e-9)
        found = {name: figures["accuracy"][convention] for name, figures in results["sections"].items()}
        assert found == pytest.approx(expected["sections"], abs=1e-9)
        assert results["average"]["accuracy"][convention] == pytest.approx(expected["average"], abs=1e-9)
    assert results["notes"] == []


def test_unknown_subset_is_refused_by_name(write_scoring, tmp_path):
    scoring = read_scoring(write_scoring(tmp_path, [("1", "hep-cobol", 4, 2)]))
    with pytest.raises(DataError, match="'hep-cobol' is not one of RewardBench 1"):
        evaluate(scoring, "reward_bench")


def test_a_part_of_the_benchmark_keeps_the_weights_and_says_so():
    assert section_means({"math-prm": 1.0, "hep-go": 0.0}) == {"Reasoning": 984 / (984 + 164)}
    notes = check_subsets({**COUNTS, "hep-go": 10})
    assert len(notes) == 1 and "hep-go 10 of 164" in notes[0]
    present = {name: count for name, count in COUNTS.items() if not name.startswith(("alpacaeval", "donotanswer"))}
    assert check_subsets(present)[0].startswith("Partial: 19 of 23 subsets; absent: alpacaeval-easy")
    assert check_subsets(COUNTS) == []


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
    assert average({"Chat": 1.0, "Chat Hard": 0.5, "Safety": 0.5, "Reasoning": 0.0}) == 0.5
