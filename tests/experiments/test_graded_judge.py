"""The losses on generated rows: the design, what is measured, and the script as a user runs it."""

from __future__ import annotations

import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from rmkit.distances import MetricSpace
from rmkit.losses import SCORE_LOSSES, LossSettings, distance_target
from rmkit.schema import Judgment, RatedResponse
from rmkit.scores import ScoreDistribution

EXPERIMENT = "graded_judge"


def test_the_soft_label_is_as_soft_as_the_target_of_dist2(modules: Any) -> None:
    distances = MetricSpace(torch.arange(5), torch.arange(5).float(), LossSettings("dist2").metric).distances(
        torch.arange(5)
    )
    kept = distance_target(distances, tau=1.0).diagonal().mean()
    smoothing = modules.design.LOSSES["label_smoothing_soft"].smoothing
    assert 1 - smoothing + smoothing / 5 == pytest.approx(float(kept))
    assert modules.design.LOSSES["label_smoothing"].smoothing == 0.1


def test_every_loss_is_run_at_every_size_noise_and_seed(modules: Any) -> None:
    design = modules.design
    preset = design.PRESETS["cpu"]
    runs = design.plan_runs(preset, 3)
    assert len(runs) == len(set(runs)) == 9 * 4 * 2 * 3
    assert {run.rows for run in runs} == {250, 1000, 4000, 16000}
    assert {run.loss for run in runs} - {"ce", "label_smoothing_soft"} < set(SCORE_LOSSES)
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)
    assert {run.loss for run in design.plan_runs(preset, 1, ["dist2"])} == {"ce", "dist2"}
    with pytest.raises(ValueError, match="unknown loss 'dist3'; choose ce, label_smoothing"):
        design.plan_runs(preset, 1, ["dist3"])


def test_fewer_rows_are_the_first_of_more_and_losses_share_them(modules: Any) -> None:
    recipe = modules.design.PRESETS["smoke"].recipe
    few, many = (modules.judge_run.encode_rows(recipe, 0.3, 1, rows) for rows in (16, 24))
    assert [example.token_ids for example in few] == [example.token_ids for example in many[:16]]
    clean = modules.judge_run.encode_rows(recipe, 0.0, 1, 16)
    assert [example.prompt_ids for example in clean] == [example.prompt_ids for example in few]
    assert [example.token_ids for example in clean] != [example.token_ids for example in few]


def test_no_instruction_of_the_test_is_trained_on(modules: Any) -> None:
    recipe = modules.design.PRESETS["cpu"].recipe
    pairs, rows = modules.judge_run.test_set(recipe, 0.2, 1)
    assert (len(pairs), len(rows)) == (300, 500)
    trained = {e.group for e in modules.judge_run.encode_rows(recipe, 0.2, 1, 1000)}
    name_group = importlib.import_module("rmkit.training.examples").name_group
    assert trained.isdisjoint(name_group(item.conversation) for item in [*pairs, *rows])


def test_figures_are_those_of_the_true_scores_and_of_the_noisy_ones(modules: Any) -> None:
    def row(true: int, rated: int) -> RatedResponse:
        return RatedResponse(
            id="x",
            source="graded",
            conversation=(),
            response="r",
            scores={"k": rated},
            metadata={"true_scores": {"k": true}},
        )

    def judged(*probabilities: float) -> Judgment:
        return Judgment(attributes={"k": ScoreDistribution((1, 2, 3), probabilities)}, aggregate=None)

    rows = [row(1, 2), row(3, 3)]
    found = modules.judge_run.measure_scores([judged(0.6, 0.4, 0.0), judged(0.0, 0.2, 0.8)], rows, ["k"])
    assert found["mae"] == pytest.approx((0.4 + 0.2) / 2)
    assert found["mae_mode"] == 0
    assert (found["qwk"], found["qwk_mode"]) == (1, 1)
    # Said with 0.6 and 0.8: both modes are true, and the first is not what the rater gave.
    assert found["calibration_true"] == pytest.approx((0.4 + 0.2) / 2)
    assert found["calibration"] == pytest.approx((0.6 + 0.2) / 2)


def test_differences_are_paired_by_seed(modules: Any) -> None:
    def row(loss: str, seed: int, value: float) -> dict[str, Any]:
        figures = dict.fromkeys(modules.judge_summary.METRICS, value)
        return {"noise": 0.0, "loss": loss, "rows": 10, "seed": seed, "error": None, "figures": figures}

    values = {"ce": (0.5, 0.7, 0.9), "label_smoothing": (0.6, 0.7, 0.8), "dist2": (0.61, 0.81, 1.01)}
    rows = [row(loss, seed, value) for loss, found in values.items() for seed, value in enumerate(found)]
    rows.append({**row("raft", 0, 0.0), "error": "step 3: the loss is nan", "figures": {}})
    found = modules.judge_summary.summarise(rows)
    cells = {cell["loss"]: cell for cell in found["cells"]}
    assert cells["dist2"]["mae"]["from_ce"]["mean"] == pytest.approx(0.11)
    low, high = cells["dist2"]["mae"]["from_ce"]["interval"]
    assert high - low < 1e-6 < cells["dist2"]["mae"]["interval"][1] - cells["dist2"]["mae"]["interval"][0]
    assert (cells["raft"]["n"], cells["raft"]["errors"], cells["raft"]["mae"]["mean"]) == (0, 1, None)
    [over] = [c for c in found["contrasts"] if (c["loss"], c["against"]) == ("dist2", "label_smoothing")]
    assert over["mae"]["all"]["mean"] == over["mae"]["by_rows"][10]["mean"] == pytest.approx(0.11)
    # 0.01, 0.11, 0.21: sd 0.1, t of 2 degrees 4.303
    assert over["mae"]["all"]["interval"][1] - 0.11 == pytest.approx(4.303 * 0.1 / math.sqrt(3), rel=1e-3)


def test_a_plot_without_label_smoothing_is_empty(modules: Any, tmp_path: Path) -> None:
    modules.judge_plots.plot_differences([], tmp_path / "differences")
    assert "minus label_smoothing" in (tmp_path / "differences.svg").read_text("utf-8")


def test_the_script_goes_on_where_it_was_killed(repo: Path, tmp_path: Path) -> None:
    script = str(repo / "experiments" / "graded_judge" / "run.py")
    options = ["--losses", "dist2", "label_smoothing", "--seeds", "2", "--workers", "1"]
    command = [sys.executable, script, "--preset", "smoke", *options, "--output", str(tmp_path / "out")]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    runs = tmp_path / "out" / "runs.jsonl"
    deadline = time.monotonic() + 300
    while not runs.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    before = runs.read_text("utf-8").splitlines()
    assert 1 <= len(before) < 24
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"{24 - len(before)} runs done, {len(before)} were there, 0 diverged" in done.stdout
    rows = [json.loads(line) for line in runs.read_text("utf-8").splitlines()]
    assert len({(row["noise"], row["loss"], row["rows"], row["seed"]) for row in rows}) == len(rows) == 24
    results = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    assert len(results["cells"]) == 12
    # Losses of one seed start from the same weights and rows, and end elsewhere.
    [ce, dist2] = [
        row["figures"]["mae"]
        for row in rows
        if row["loss"] in ("ce", "dist2") and (row["seed"], row["rows"], row["noise"]) == (1, 24, 0.0)
    ]
    assert ce != dist2
    assert "| `dist2` |" in (tmp_path / "out" / "results.md").read_text("utf-8")
    assert all((tmp_path / "out" / name).stat().st_size > 5000 for name in ("curves.png", "differences.svg"))
    other = subprocess.run([*command, "--losses", "dist3"], capture_output=True, text=True, timeout=600)
    assert other.returncode == 2 and "unknown loss 'dist3'" in other.stderr
