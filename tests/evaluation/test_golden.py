"""The numbers of the official scorers, through the script that a real run uses: scores.jsonl to results.json."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.fixture
def golden(shared):
    """Reads a file of scores and of what the official code makes of them."""
    return lambda name: json.loads((shared / f"golden/{name}.json").read_text("utf-8"))


@pytest.fixture
def run(repo):
    """Runs the benchmark script on a scoring folder and returns its results."""

    def run(benchmark, folder):
        command = [sys.executable, "evaluate/run_benchmark.py", "--benchmark", benchmark, "--scores", str(folder)]
        done = subprocess.run([*command, "--resamples", "50"], capture_output=True, text=True, cwd=repo, timeout=600)
        assert done.returncode == 0, done.stderr
        return json.loads((folder / "results.json").read_text("utf-8"))

    return run


def test_reward_bench_1(golden, run, write_lists, tmp_path):
    data = golden("reward_bench_1")
    rows = [(f"{r['subset']}/{r['id']}", r["subset"], [r["chosen"]], [r["rejected"]]) for r in data["scores"]]
    results = run("reward_bench", write_lists(tmp_path, rows))
    assert results["notes"] == []
    assert results["all_pairs"]["tie_rate"] == pytest.approx(data["official"]["tie_rate"], abs=1e-9)
    for convention in ("ties_half", "ties_zero"):
        official = data["official"][convention]
        for level in ("subsets", "sections"):
            found = {name: figures["accuracy"][convention] for name, figures in results[level].items()}
            assert found == pytest.approx(official[level], abs=1e-9)
        assert results["average"]["accuracy"][convention] == pytest.approx(official["average"], abs=1e-9)


def test_reward_bench_2(golden, run, write_lists, tmp_path):
    data = golden("reward_bench_2")
    rows = [
        (f"{r['subset']}/{r['id']}", r["subset"], r["scores"][: r["num_correct"]], r["scores"][r["num_correct"] :])
        for r in data["scores"]
    ]
    results = run("reward_bench_2", write_lists(tmp_path, rows))
    assert results["notes"] == []
    found = {name: figures["accuracy"]["ties_half"] for name, figures in results["subsets"].items()}
    assert found == pytest.approx(data["official"]["subsets"], abs=1e-9)
    assert results["average"]["accuracy"]["ties_half"] == pytest.approx(data["official"]["average"], abs=1e-9)
    low, high = results["average"]["interval"]["ties_half"]
    assert low < data["official"]["average"] < high
    assert sum(figures["ties"] for figures in results["subsets"].values()) > 0


def test_rm_bench(golden, run, write_lists, tmp_path):
    data = golden("rm_bench")
    rows = [(f"{r['domain']}/{r['id']}", r["domain"], r["score_chosen"], r["score_rejected"]) for r in data["scores"]]
    results = run("rm_bench", write_lists(tmp_path, rows))
    official = data["official"]
    assert results["notes"] == []
    for domain in ("chat", "math", "code", "safety"):
        assert results["sections"][domain]["accuracy"]["ties_zero"] == pytest.approx(official[domain], abs=1e-9)
    for level in ("Hard", "Normal", "Easy"):
        found = results["slices"][level]["accuracy"]["ties_zero"]
        assert found == pytest.approx(official[f"{level.lower()}_acc"], abs=1e-9)
    assert results["average"]["accuracy"]["ties_zero"] == pytest.approx(official["total_avg_acc"], abs=1e-9)
    assert (results["all_pairs"]["n"], results["all_pairs"]["records"]) == (9 * 1327, 1327)


def test_judge_bench(golden, run, write_lists, tmp_path):
    # The golden judge reads two responses at once and votes in both orders. A judge that scores each by itself
    # has one standing per pair, so the sum of the votes for the right response becomes its lead.
    data = golden("judge_bench")
    rows = []
    for number, row in enumerate(data["judgments"]):
        first, second = (judgment["decision"] for judgment in row["judgments"])
        flipped = {"A>B": "B>A", "B>A": "A>B", "A=B": "A=B"}
        lead = sum((vote == row["label"]) - (vote == flipped[row["label"]]) for vote in (first, flipped[second]))
        metadata = {"label": row["label"], "response_model": "gpt-4o-2024-05-13"}
        rows.append((str(number), "mmlu-pro-law", [float(lead)], [0.0], metadata))
    results = run("judge_bench", write_lists(tmp_path, rows))
    found = results["sections"]["gpt-4o"]["accuracy"]["ties_zero"]
    assert 100 * found == pytest.approx(data["official"]["accuracy_percent"], abs=1e-9)
    assert results["average"] is None
    assert [note.partition(";")[0] for note in results["notes"]] == ["Partial: 1 of 8 subsets"]
