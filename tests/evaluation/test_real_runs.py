"""Each benchmark from its published columns to its report: prepared, scored by a tiny judge, and computed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from rmkit.evaluation.benchmarks import BENCHMARKS
from rmkit.jsonl import read_jsonl
from rmkit.rubric import Attribute, Rubric

NAMES = [name for name in BENCHMARKS if name != "pairs"]


@pytest.fixture(scope="module")
def reports(repo, save_tiny_judge, tiny_tokenizer, tmp_path_factory):
    """The output folder of `run_benchmark.py --raw --judge` for each benchmark; one process runs them all."""
    folder = tmp_path_factory.mktemp("runs")
    rubric = Rubric("two", (Attribute("helpfulness", "Helpfulness"), Attribute("truth", "Truth", minimum=0)))
    judge = save_tiny_judge(folder / "judge", tiny_tokenizer("split_digits"), rubric)
    commands = []
    for name in NAMES:
        text = (repo / f"tests/data/golden/{name}/input.jsonl").read_text("utf-8")
        raw = folder / f"{name}.jsonl"
        raw.write_text(text.replace('"able-20b"', '"gpt-4o-2024-05-13"'), "utf-8")
        commands.append(
            ["--benchmark", name, "--judge", str(judge), "--engine", "transformers", "--resamples", "20"]
            + ["--raw", str(raw), "--output", str(folder / name)]
        )
    code = (
        "import json, runpy, sys\n"
        "for arguments in json.loads(sys.argv[1]):\n"
        "    sys.argv = ['run_benchmark.py', *arguments]\n"
        "    try:\n        runpy.run_path('evaluate/run_benchmark.py', run_name='__main__')\n"
        "    except SystemExit as end:\n        assert end.code == 0, arguments\n"
    )
    command = [sys.executable, "-c", code, json.dumps(commands)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=repo, timeout=600)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_every_response_is_scored_once_and_counted(reports, name):
    pairs = [record for _, record in read_jsonl(reports / name / "data/pairs.jsonl")]
    records = [record for _, record in read_jsonl(reports / name / "scores.jsonl")]
    wanted = [(p["id"], side, i) for p in pairs for side in ("chosen", "rejected") for i in range(len(p[side]))]
    assert [(record["id"], record["side"], record["index"]) for record in records] == wanted
    assert all(record["error"] is None for record in records)
    results = json.loads((reports / name / "results.json").read_text("utf-8"))
    assert results["all_pairs"]["records"] == len(pairs)
    assert results["all_pairs"]["errors"] == 0
    assert sum(figures["n"] for figures in results["subsets"].values()) == results["all_pairs"]["n"]
    assert all(figures["n"] for figures in results["attributes"].values())
    assert any(note.startswith("Not comparable with published figures") for note in results["notes"])
    for file in ("results.md", "report.html"):
        assert BENCHMARKS[name].title in (reports / name / file).read_text("utf-8")


def test_comparisons_per_record(reports):
    found = {}
    for name in NAMES:
        results = json.loads((reports / name / "results.json").read_text("utf-8"))
        found[name] = results["all_pairs"]["n"] / results["all_pairs"]["records"]
    assert found["reward_bench"] == found["reward_bench_2"] == found["judge_bench"] == 1
    assert found["rm_bench"] == 9
    assert found["ppe_correctness"] == pytest.approx(4 / 3)  # two, one and one sampled pairs


def test_a_judge_is_scored_and_compared_with_other_scores(reports, repo):
    for name in ("again", "other"):  # what is scored already is not scored anew
        shutil.copytree(reports / "judge_bench", reports / name)
    judge = ["--judge", reports / "judge", "--engine", "transformers", "--raw", reports / "judge_bench.jsonl"]
    folders = ["--output", reports / "again", "--scores", reports / "other"]
    options = ["--benchmark", "judge_bench", "--resamples", 20, *judge, *folders]
    command = [sys.executable, "evaluate/run_benchmark.py", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=repo, timeout=600)
    assert done.returncode == 0, done.stderr
    (comparison,) = json.loads((reports / "again/results.json").read_text("utf-8"))["comparisons"]
    assert (comparison["first"], comparison["second"]) == ("judge (again)", "judge (other)")
    assert comparison["all_pairs"]["difference"] == {"ties_half": 0.0, "ties_zero": 0.0}


def test_no_judge_scores_where_another_one_lacks_a_rubric(reports, repo):
    plain = shutil.copytree(reports / "judge", reports / "plain")
    (plain / "judge_config.json").unlink()
    judges = ["--judge", reports / "judge", "--judge", plain, "--engine", "transformers"]
    options = ["--benchmark", "pairs", *judges, "--input", reports / "judge_bench", "--output", reports / "two"]
    command = [sys.executable, "evaluate/run_benchmark.py", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=repo, timeout=600)
    assert done.returncode == 1
    assert "plain has no judge_config.json" in done.stderr
    assert not (reports / "two/judges").exists()
