"""A run that is killed goes on from its last whole checkpoint, with the same command, as if nothing had been."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rmkit.training.run import find_checkpoint

ZERO3 = ("--deepspeed", "train/deepspeed/zero3.json")


def assert_equal_runs(resumed: Any, whole: Any) -> None:
    assert resumed.losses == pytest.approx(whole.losses, abs=1e-4)
    assert resumed.record["metrics"] == pytest.approx(whole.record["metrics"], abs=1e-4)
    assert resumed.record["best_checkpoint"] == whole.record["best_checkpoint"]
    expected = load_file(whole.folder / "model.safetensors")
    for name, tensor in load_file(resumed.folder / "model.safetensors").items():
        assert torch.allclose(tensor, expected[name], atol=1e-4), name


@pytest.mark.parametrize(("whole_run", "options"), [("zero2_run", ()), ("zero3_run", ZERO3)])
def test_killed_after_a_checkpoint(
    request: pytest.FixtureRequest,
    kill_training: Callable[..., str],
    train: Callable[..., Any],
    tmp_path: Path,
    whole_run: str,
    options: tuple[str, ...],
) -> None:
    whole = request.getfixturevalue(whole_run)
    folder = tmp_path / "judge"
    log = kill_training(folder, lambda _: find_checkpoint(folder) is not None, *options)
    assert find_checkpoint(folder) == str(folder / "checkpoint-10")
    assert not (folder / "judge_config.json").exists()
    assert 10 <= log.count("'loss': ") < 20

    resumed = train(folder, *options)
    assert resumed.record["resumed_from"] == "checkpoint-10"
    assert resumed.printed_steps == 10  # steps 11 to 20, and none of those before
    assert_equal_runs(resumed, whole)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10))
def test_killed_at_any_step(
    zero2_run: Any, kill_training: Callable[..., str], train: Callable[..., Any], tmp_path: Path, seed: int
) -> None:
    """Also while a checkpoint is written: after each of the steps 5, 10, 15 and 20."""
    step = random.Random(seed).randint(1, 20)
    folder = tmp_path / "judge"
    often = ("--save_steps", "5", "--eval_steps", "5", "--save_total_limit", "4")
    kill_training(folder, lambda log: log.count("'loss': ") >= step, *often)
    start = find_checkpoint(folder)
    resumed = train(folder, *often)
    assert resumed.record["resumed_from"] == (None if start is None else Path(start).name)
    assert resumed.printed_steps == 20 - (0 if start is None else int(start.rpartition("-")[2]))
    assert resumed.losses == pytest.approx(zero2_run.losses, abs=1e-4)
