from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState

from rmkit.judge_config import FILE_NAME
from rmkit.training.checkpoints import find_checkpoint
from rmkit.training.early_stop import EarlyStop
from rmkit.training.run import train_judge
from rmkit.training.settings import JudgeTrainingArguments, TrainingSettings

Settings = Callable[..., TrainingSettings]
# Nothing is learnt at such a rate, so that no figure ever gets better.
STUCK = ("--learning_rate", "1e-12", "--max_steps", "20", "--early_stopping_patience", "2", "--save_total_limit", "9")


def evaluated(figures: dict[str, Any]) -> list[int]:
    return [line["step"] for line in figures["log"] if "eval_loss" in line]


def test_a_run_that_no_longer_improves_stops(small_settings: Settings) -> None:
    figures = train_judge(small_settings(*STUCK, "--early_stopping_threshold", "0.01"))
    # The first evaluation is the best so far, and the next two are no better.
    assert (figures["steps"], figures["stopped_early"]) == (6, True)
    assert evaluated(figures) == [2, 4, 6, 6]  # the last one is of the exported weights


def test_a_run_that_improves_does_not(small_settings: Settings) -> None:
    figures = train_judge(small_settings("--early_stopping_patience", "1"))
    assert (figures["steps"], figures["stopped_early"]) == (6, False)


def test_a_figure_of_scores_is_seen_too(small_settings: Settings) -> None:
    figures = train_judge(small_settings(*STUCK, "--metric_for_best_model", "eval_qwk_helpfulness"))
    assert (figures["steps"], figures["best_checkpoint"]) == (6, "checkpoint-2")


@pytest.mark.parametrize("removed", [(), (6,)])
def test_a_resumed_run_stops_where_a_whole_one_does(small_settings: Settings, removed: tuple[int, ...]) -> None:
    """Killed after the last checkpoint, or before it: the count goes on."""
    options = (*STUCK, "--early_stopping_threshold", "0.01")
    settings = small_settings(*options)
    folder = Path(str(settings.training.output_dir))
    whole = train_judge(settings)
    for name in (FILE_NAME, "run.json", "README.md", "model.safetensors"):
        (folder / name).unlink()
    for step in removed:
        (folder / f"checkpoint-{step}").rename(folder / f"lost-{step}")
    assert find_checkpoint(folder) == str(folder / ("checkpoint-4" if removed else "checkpoint-6"))
    again = train_judge(small_settings(*options))
    assert (again["steps"], again["stopped_early"]) == (6, True)
    assert again["best_checkpoint"] == whole["best_checkpoint"]
    assert again["metrics"] == pytest.approx(whole["metrics"], abs=1e-4)


def test_an_evaluation_without_the_figure_is_no_improvement(tmp_path: Path) -> None:
    args = JudgeTrainingArguments(str(tmp_path), use_cpu=True, metric_for_best_model="eval_spearman", report_to="none")
    stop, state, control = EarlyStop(2), TrainerState(), TrainerControl()
    state.best_metric = 0.5
    stop.on_evaluate(args, state, control, metrics={"eval_spearman": 0.6})
    stop.on_evaluate(args, state, control, metrics={"eval_loss": 1.0})
    assert not control.should_training_stop
    stop.on_evaluate(args, state, control, metrics={"eval_loss": 1.0})
    assert control.should_training_stop
