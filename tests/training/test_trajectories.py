"""ZeRO-2 and ZeRO-3 on two ranks train as one process does, step by step, and end in the same judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file


@pytest.fixture(params=["zero2_run", "zero3_run"])
def distributed_run(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def test_the_runs_are_what_they_say(zero2_run: Any, zero3_run: Any, single_run: Any) -> None:
    for run, stage, ranks in ((zero2_run, 2, 2), (zero3_run, 3, 2), (single_run, None, 1)):
        settings = run.record["settings"]
        config = settings["deepspeed_config"]
        assert (config and config["zero_optimization"]["stage"]) == stage
        assert settings["world_size"] == ranks
    assert any(argument.startswith("--local_rank") for argument in zero3_run.record["command"])  # DeepSpeed's launcher
    checkpoint = Path(zero3_run.folder) / "checkpoint-20/global_step20"
    assert len(list(checkpoint.glob("zero_pp_rank_*_model_states.pt"))) == 2  # weights split over both ranks


def test_the_loss_falls(distributed_run: Any, single_run: Any) -> None:
    for run in (distributed_run, single_run):
        losses = list(run.losses.values())
        assert len(losses) == 20
        assert max(losses[-5:]) < min(losses[:5]) - 0.3
        assert run.record["metrics"]["eval_loss"] < losses[0] - 0.3


def test_losses_agree_step_by_step(distributed_run: Any, single_run: Any) -> None:
    assert list(distributed_run.losses) == list(single_run.losses) == list(range(1, 21))
    assert distributed_run.losses == pytest.approx(single_run.losses, abs=1e-3)


def test_validation_agrees(distributed_run: Any, single_run: Any) -> None:
    # The validation rows make no whole number of batches of 7, so ranks are filled up: that must not count.
    assert single_run.record["rows"]["validation"] % 14 not in (0, 7)
    assert distributed_run.record["metrics"] == pytest.approx(single_run.record["metrics"], abs=1e-3)
    assert {"eval_loss", "eval_mae", "eval_outside_mass", "eval_errors"} <= set(single_run.record["metrics"])


def test_the_weights_agree(distributed_run: Any, single_run: Any) -> None:
    expected = load_file(single_run.folder / "model.safetensors")
    found = load_file(distributed_run.folder / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.allclose(tensor, expected[name], atol=1e-3), name
