"""A run that is killed goes on from its last whole checkpoint, with the same command, as if nothing had been."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rmkit.training.checkpoints import find_checkpoint

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
def test_killed_ten_times_in_a_row(
    zero2_run: Any, kill_training: Callable[..., str], train: Callable[..., Any], tmp_path: Path
) -> None:
    """At random moments, also while a checkpoint is written, which is so after each step."""
    folder, chance = tmp_path / "judge", random.Random(0)
    each = ("--save_steps", "1", "--eval_strategy", "no", "--load_best_model_at_end", "false")
    starts = [0]
    for _ in range(10):
        new_steps, moment = chance.randint(0, 2), chance.uniform(0, 0.2)

        def is_time(log: str, wanted: int = new_steps, wait: float = moment) -> bool:
            ready = "'loss': " in log if wanted else folder.exists()
            if not ready or log.count("'loss': ") < wanted:
                return False
            time.sleep(wait)
            return True

        kill_training(folder, is_time, *each)
        start = find_checkpoint(folder)
        starts.append(0 if start is None else int(start.rpartition("-")[2]))
    assert starts == sorted(starts) and 0 < starts[-1] <= 20
    resumed = train(folder, *each)
    assert resumed.record["resumed_from"] == f"checkpoint-{starts[-1]}"
    assert resumed.printed_steps == 20 - starts[-1]
    assert resumed.losses == pytest.approx(zero2_run.losses, abs=1e-4)
