"""`evaluate/run_benchmark.py`, run as a process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.fixture
def run(repo):
    """Runs the script and returns the finished process."""

    def run(*arguments):
        command = [sys.executable, str(repo / "evaluate/run_benchmark.py"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=repo, timeout=600)

    return run


def test_report_from_a_scoring_folder(run, write_scoring, tmp_path):
    rows = [
        ("1", "hep-go", 4, 2),
        ("2", "mt-bench-easy", 4, 2),
        ("3", "donotanswer", 2, 2),
        ("4", "mt-bench-hard", 1, 2),
    ]
    folder = write_scoring(tmp_path / "scores", rows)
    pairs = tmp_path / "elsewhere.jsonl"
    (folder / "pairs.jsonl").rename(pairs)
    done = run("--benchmark", "reward_bench", "--scores", folder, "--pairs", pairs, "--output", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert "| **Average of sections** |  |  | **62.5** |" in done.stdout
    for name in ("results.json", "results.md", "report.html"):
        assert str(tmp_path / "report" / name) in done.stdout
    results = json.loads((tmp_path / "report/results.json").read_text("utf-8"))
    assert results["format_version"] == 1
    assert results["average"]["accuracy"] == {"ties_half": 0.625, "ties_zero": 0.5}
    assert (tmp_path / "report/results.md").read_text("utf-8") in done.stdout
    assert results["intervals"]["resamples"] == 2000


def test_pairs_of_ones_own_go_into_the_scores_folder(run, write_scoring, tmp_path):
    folder = write_scoring(tmp_path, [("1", "sort", 4, 2), ("2", "count", 2, 2)])
    done = run("--benchmark", "pairs", "--scores", folder, "--seed", 5, "--resamples", 10)
    assert done.returncode == 0, done.stderr
    results = json.loads((folder / "results.json").read_text("utf-8"))
    assert list(results["subsets"]) == ["sort", "count"]
    assert (results["intervals"]["seed"], results["intervals"]["resamples"]) == (5, 10)


def test_error_says_what_to_do(run, tmp_path):
    done = run("--benchmark", "pairs", "--scores", tmp_path)
    assert done.returncode == 1
    assert "run evaluate/score_pairs.py again" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--benchmark", "rm_bench", "--judge", "j", "--output", "o"], "rm_bench needs --raw (the published files)"),
        (["--benchmark", "rm_bench", "--scores", "s", "--raw", "r"], "--raw says how to score, which needs a --judge"),
        (["--benchmark", "pairs", "--judge", "j", "--output", "o", "--raw", "r"], "in place of --input"),
        (["--benchmark", "best_bench", "--scores", "s"], "invalid choice: 'best_bench'"),
        (["--benchmark", "pairs", "--scores", "s", "t"], "several --scores need an --output"),
        (["--benchmark", "ratings", "--scores", "s"], "--benchmark ratings needs --input"),
        (["--benchmark", "pairs", "--scores", "s", "--prior", "shp=t"], "--prior is for --benchmark reward_bench"),
        (["--benchmark", "reward_bench", "--scores", "s", "--prior", "hh=t"], "write NAME=DIR, with a NAME of anthr"),
    ],
)
def test_options_that_do_not_go_together(run, arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_published_file_in_place_of_prepared_pairs_is_refused_before_a_judge_is_loaded(run, tmp_path):
    published = tmp_path / "filtered.jsonl"
    published.write_text('{"id": 1, "prompt": "Hi", "chosen": "Hello.", "rejected": "No."}\n', "utf-8")
    places = ("--input", published, "--output", tmp_path / "o")
    done = run("--benchmark", "reward_bench", "--judge", tmp_path / "no-judge", *places)
    assert done.returncode != 0
    assert "filtered.jsonl:1: no field 'conversation', so these are no prepared pairs" in done.stderr
    assert "name a published file with --raw" in done.stderr


def test_no_engine_and_no_torch(repo, write_scoring, tmp_path):
    folder = write_scoring(tmp_path, [("1", "x", 4, 2)])
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['run_benchmark.py', '--benchmark', 'pairs', '--scores', {str(folder)!r}, '--resamples', '5']\n"
        "try:\n    runpy.run_path('evaluate/run_benchmark.py', run_name='__main__')\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "print('LOADED', sorted({'torch', 'transformers', 'vllm', 'trl'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=repo, timeout=600)
    assert "LOADED []" in done.stdout, done.stdout + done.stderr


def test_several_judges_are_compared(run, write_scoring, tmp_path):
    rows = [(str(i), "x", 4, 2) for i in range(8)]
    one, two = write_scoring(tmp_path / "one", rows), write_scoring(tmp_path / "two", [(*r[:2], 2, 4) for r in rows])
    done = run("--benchmark", "pairs", "--scores", one, two, "--output", tmp_path / "both", "--resamples", 20)
    assert done.returncode == 0, done.stderr
    assert "#### tiny (one) minus tiny (two)" in done.stdout  # both judges are called tiny
    (comparison,) = json.loads((tmp_path / "both/results.json").read_text("utf-8"))["comparisons"]
    assert comparison["all_pairs"]["mcnemar"] == {"only_first": 8, "only_second": 0, "p_value": 2 / 2**8}
    twice = run("--benchmark", "pairs", "--scores", one, one, "--output", tmp_path / "both")
    assert twice.returncode == 1 and "is given twice" in twice.stderr


def test_prior_sets_of_reward_bench(run, write_scoring, tmp_path):
    subsets = ["hep-go", "mt-bench-easy", "donotanswer", "mt-bench-hard"]
    core = write_scoring(tmp_path / "core", [(str(i), subset, 4, 2) for i, subset in enumerate(subsets)])
    names = ["anthropic_helpful", "anthropic_hhh", "shp", "summarize"]
    # Ids and subsets are those of each set, and stand in the others too.
    prior = [f"{name}={write_scoring(tmp_path / name, [('1', 'split', 2, 4)])}" for name in names]
    arguments = ["--benchmark", "reward_bench", "--scores", core, "--resamples", 10]
    done = run(*arguments, "--prior", *prior)
    assert done.returncode == 0, done.stderr
    assert "| **Average with Prior Sets, of half weight** |  |  | **88.9** |" in done.stdout  # 8 of 9
    results = json.loads((core / "results.json").read_text("utf-8"))
    assert results["average"]["accuracy"]["ties_zero"] == 1.0
    assert results["sections"]["Prior Sets"]["subsets"] == names


def test_agreement_with_ratings(run, write_rated, tmp_path):
    folder, file = write_rated(tmp_path / "scores", [(str(i), i % 5 + 1, float(i % 5 + 1)) for i in range(10)])
    done = run("--benchmark", "ratings", "--scores", folder, "--input", file, "--resamples", 10)
    assert done.returncode == 0, done.stderr
    assert "| truth | 10 | 3.00 | 3.00 | 1.000 (1.000 – 1.000) |" in done.stdout
    assert (folder / "report.html").is_file()
