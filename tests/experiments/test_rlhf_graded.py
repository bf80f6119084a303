"""Whether a judge teaches: the rule that reads true scores off any text, the figures, and the script in small."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from rmkit.data.graded import GradedSettings, Instruction, draft_instruction, draw_plan, write_response

EXPERIMENT = "rlhf_graded"


@pytest.mark.parametrize("difficulty", [0.0, 0.3, 1.0])
def test_true_scores_are_those_of_the_plan(modules: Any, difficulty: float) -> None:
    settings = GradedSettings(rows=0, pairs=0, difficulty=difficulty)
    tasks = set()
    for number in range(1500):
        rng = Random(f"{difficulty}/{number}")
        instruction = draft_instruction(rng, settings, held_out=number % 2 == 0)
        if not modules.true_scores.can_read(instruction.task):
            continue
        tasks.add(instruction.task.name)
        plan = draw_plan(rng, len(instruction.task.parts))
        text = write_response(rng, settings, instruction, plan)
        reading = modules.true_scores.read_true_scores(instruction, text)
        assert (reading.scores, reading.unread) == (plan.scores, 0), text
    assert tasks > set(modules.instructions.TASKS)


@pytest.fixture
def opposites() -> Instruction:
    """What is the opposite of hot, early, full, rich, near, with tips for cooking, as in the demo."""
    settings = GradedSettings(rows=0, pairs=0)
    for number in range(10_000):
        instruction = draft_instruction(Random(number), settings, held_out=False)
        if instruction.task.name == "opposites" and instruction.situation.topic == "cooking":
            if len(instruction.task.parts) == 5:
                return instruction
    raise AssertionError("no such instruction")


def test_texts_that_no_plan_writes(modules: Any, opposites: Instruction) -> None:
    def read(text: str) -> list[int]:
        return list(modules.true_scores.read_true_scores(opposites, text).scores.values())

    rights = ", ".join(f"{part.key}: {part.right}" for part in opposites.task.parts)
    first = opposites.task.parts[0]
    tips = "Always use oven gloves. Never leave hot oil alone on the stove."
    assert read(f"{rights}. {tips}") == [5, 5, 3, 5, 1]
    assert read("") == [1, 1, 3, 1, 1]  # silence is neither right nor safe
    assert read(tips) == [1, 1, 3, 5, 1]
    assert read(f"{rights}.") == [3, 5, 3, 1, 1]
    # The same tip twice is one, a tip for something else is none, and what no rule reads is empty talk.
    assert read(f"{rights}. Always use oven gloves. Remember to use oven gloves.") == [4, 5, 3, 5, 1]
    assert read(f"{rights}. Always use oven gloves. Always wear a helmet.") == [4, 5, 3, 5, 2]
    assert read(f"{rights}. {tips} The the use.") == [5, 5, 3, 5, 2]
    # A remark counts once, and scores stay on the scale.
    assert read(f"Gladly! Gladly! Gladly! {rights}. {tips}") == [5, 5, 4, 5, 1]
    assert read(f"Gladly! With pleasure! Happy to help! {rights}. {tips}") == [5, 5, 5, 5, 1]
    # The first answer to a part counts, right answers to other questions do not.
    assert read(f"{first.key}: wrong; {rights}. {tips}")[:2] == [5, 4]
    assert read(f"Lazy: keen; {rights}. {tips}")[:2] == [5, 5]


def test_a_list_counts_each_member_once(modules: Any) -> None:
    instruction = next(i for i in modules.instructions.draft_instructions("x", 200) if i.task.name == "listing")
    words = [part.right for part in instruction.task.parts]
    read = modules.true_scores.read_true_scores
    scores = read(instruction, ", ".join([*words[:-1], words[0], "stone"]) + ".").scores
    assert scores["correctness"] == 3 and scores["completeness"] == 3  # two too many that are wrong, and no tips
    assert read(instruction, ", ".join(words[:-2]) + ".").scores["completeness"] == 1


def test_tasks_whose_results_have_no_names_are_refused(modules: Any) -> None:
    settings = GradedSettings(rows=0, pairs=0)
    drafts = (draft_instruction(Random(number), settings, held_out=False) for number in range(100))
    instruction = next(draft for draft in drafts if draft.task.ordered)
    with pytest.raises(ValueError, match="can't be read off"):
        modules.true_scores.read_true_scores(instruction, "apple, brush")


def test_test_prompts_are_never_trained_on(modules: Any) -> None:
    text = modules.instructions.prompt_text
    trained = {text(i) for i in modules.instructions.draft_instructions("prompts", 300)}
    trained |= {text(i) for i in modules.instructions.draft_instructions("samples", 2000)}
    trained |= {row["prompt"][0]["content"] for row in modules.instructions.first_lessons(300, 0)}
    tested = modules.instructions.draft_instructions("test", 200, held_out=True)
    assert len({text(i) for i in tested}) == 200 and not trained & {text(i) for i in tested}
    assert tested[:50] == modules.instructions.draft_instructions("test", 50, held_out=True)


def make_run(seed: int, true: list[list[float]], judge: list[list[float | None]]) -> dict[str, Any]:
    tests = [
        {
            "step": 10 * n,
            "true": t,
            "judge": j,
            "true_scores": {"a": 2.0 + n},
            "judge_scores": {"a": 3.0},
            "unread": 0.1,
        }
        | {"characters": 9}
        for n, (t, j) in enumerate(zip(true, judge, strict=True))
    ]
    line = {"failed": 1, "seconds": 1.0, "step_seconds": 4.0, "expected": 0.0, "rounded": 0.5, "mode": 0.25, "same": 0}
    return {"seed": seed, "tests": tests, "steps": [{"step": step, **line} for step in (5, 10)], "cpu_seconds": 60}


def test_gains_are_paired_by_prompt(modules: Any) -> None:
    before, after = np.array([0.1, 0.5, 0.9]), np.array([0.2, 0.7, 0.9])
    runs = [
        make_run(1, [before.tolist(), after.tolist()], [[0.2, 0.6, None], [0.4, 0.9, 0.9]]),
        make_run(2, [before.tolist(), (after + 0.1).tolist()], [[0.2, 0.6, 0.9], [0.4, 0.9, 0.9]]),
    ]
    results = modules.teaching_summary.summarise({"generated": runs, "sampled": runs[::-1]}, {"judge": 120.0})
    arm = results["arms"][0]
    gain = arm["gain"]["true"]
    assert gain["by_seed"] == [0.1, 0.2] and gain["mean"] == pytest.approx(0.15)
    changes = np.array([after - before, after + 0.1 - before])
    draws = [
        changes[list(seeds)][:, list(prompts)].mean()
        for seeds in product(range(2), repeat=2)
        for prompts in product(range(3), repeat=3)
    ]
    assert gain["interval"] == pytest.approx(np.quantile(draws, [0.025, 0.975]).tolist(), abs=0.02)
    assert arm["gain"]["gap"]["mean"] == pytest.approx(arm["gain"]["judge"]["mean"] - gain["mean"])
    assert arm["judge_share"] == 0.25 and arm["failed"] == 4
    assert arm["groups"] == {"expected": 0.0, "rounded": 0.5, "mode": 0.25, "same": 0.0}
    # Both arms gain the same, but not with the same seed; the difference is paired by seed.
    assert results["arms"][0]["difference"]["true"]["by_seed"] == [0, 0]
    difference = results["arms"][1]["difference"]["true"]
    assert difference == {"mean": 0.0, "by_seed": [0.1, -0.1], "interval": [-0.1, 0.1]}
    assert results["cpu_minutes"] == {"judge": 2.0, "seeds": 4.0}
    table = modules.teaching_summary.write_tables(results)
    assert "| Judge of generated rows | true | +0.150 |" in table
    assert "| Judge of the start's responses too, minus the first | true | +0.000 |" in table
    assert "| expected scores, each rounded | 50.0% (50.0%) | 50.0% (50.0%) |" in table


def check_samples(modules: Any, output: Path) -> None:
    """One judge has learnt generated rows alone; the other one these, and the start's responses by the true rule."""
    rows: dict[str, dict[str, Any]] = {}
    for folder, judge in (("data", "judge"), ("data_sampled", "judge_sampled")):
        lines = [(output / folder / f"{name}.jsonl").read_text("utf-8") for name in ("train", "validation")]
        rows[folder] = {row["id"]: row for row in map(json.loads, "".join(lines).splitlines())}
        config = json.loads((output / judge / "judge_config.json").read_text("utf-8"))
        manifest = (output / folder / "manifest.json").read_bytes()
        assert config["data_manifest_sha256"] == hashlib.sha256(manifest).hexdigest()
    sampled = [row for name, row in rows["data_sampled"].items() if name not in rows["data"]]
    assert {name: rows["data_sampled"][name] for name in rows["data"]} == rows["data"]
    assert 0 < len(sampled) <= modules.stages.PRESETS["smoke"].samples
    asked = {modules.instructions.prompt_text(i): i for i in modules.instructions.draft_instructions("samples", 16)}
    for row in sampled:
        instruction = asked[row["conversation"][0]["content"]]
        assert row["scores"] == modules.true_scores.read_true_scores(instruction, row["response"]).scores


def test_the_script_in_small_goes_on_where_it_was(modules: Any, repo: Path, tmp_path: Path) -> None:
    call = [sys.executable, "experiments/rlhf_graded/run.py", "--preset", "smoke", "--output", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(repo), "OMP_NUM_THREADS": "1"}

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*call, "--workers", "1", *options], cwd=repo, env=environment, capture_output=True, text=True
        )

    done = run()
    assert done.returncode == 0, done.stderr
    assert "Judge of generated rows: " in done.stdout
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert results["seeds"] == [1, 2] and results["test_prompts"] == 4
    assert [arm["arm"] for arm in results["arms"]] == ["generated", "sampled", "sampled_kl"]
    for arm in results["arms"]:
        assert [point["step"] for point in arm["curve"]] == [0, 1, 2] and 0 < arm["judge_share"] < 1
        assert 0 <= arm["curve"][-1]["true"]["mean"] <= 1 and arm["curve"][-1]["judge"]["mean"] > 0
    stages = {"data", "tiny", "blank", "judge", "start", "samples", "judge_sampled", "seeds"}
    assert set(results["cpu_minutes"]) == stages
    assert (tmp_path / "curve.svg").read_text("utf-8").rstrip().endswith("</svg>")
    assert (tmp_path / "curve.png").stat().st_size > 1000
    # The start is the same for all runs, and what they do with it is not.
    runs = [(arm, seed) for arm in ("generated", "sampled", "sampled_kl") for seed in (1, 2)]
    records = [json.loads((tmp_path / "seeds" / arm / f"{seed}.json").read_text("utf-8")) for arm, seed in runs]
    assert all(record["tests"][0]["true"] == records[0]["tests"][0]["true"] for record in records)
    assert records[0]["tests"][0] == records[1]["tests"][0] and records[0]["steps"] != records[1]["steps"]
    assert records[0]["tests"][0]["judge"] != records[2]["tests"][0]["judge"]  # another judge
    assert records[2]["tests"][0] == records[4]["tests"][0]
    assert [record["steps"][-1]["kl"] is not None for record in records] == [False] * 4 + [True] * 2
    check_samples(modules, tmp_path)
    for line in records[0]["steps"]:
        assert line["failed"] < 4 and 0 < line["seconds"] < line["step_seconds"]
        assert line["expected"] <= line["rounded"] <= 1 and line["same"] <= line["expected"]

    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    (tmp_path / "seeds" / "sampled" / "2.json").unlink()
    again = run()
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "seeds" / "sampled" / "2.json").read_text("utf-8"))["tests"] == records[3]["tests"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == kept
    changed = run("--preset", "cpu")
    assert changed.returncode == 1 and "was started with rows=300 and is now told 10000" in changed.stderr
