"""Each mode trains as one process does, step by step, and ends in the same judge; also one that was killed midway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from rmkit.engines.transformers import TransformersEngine
from rmkit.jsonl import read_jsonl
from rmkit.judge import Judge
from rmkit.schema import RatedResponse
from rmkit.training.figures import CHOOSING

# Name of the run's fixture -> ZeRO stage and ranks. Those that were killed were so after step 10, and resumed.
RUNS = {
    "single_run": (None, 1),
    "zero2_run": (2, 2),
    "zero3_run": (3, 2),
    "killed_single_run": (None, 1),
    "killed_zero1_run": (1, 2),
    "killed_offload_run": (3, 2),
}
EXACT = ("killed_single_run", "killed_zero1_run", "killed_offload_run")


@pytest.fixture(params=[name for name in RUNS if name != "single_run"])
def named_run(request: pytest.FixtureRequest) -> tuple[str, Any]:
    return request.param, request.getfixturevalue(request.param)


@pytest.fixture
def other_run(named_run: tuple[str, Any]) -> Any:
    return named_run[1]


@pytest.mark.parametrize("name", RUNS)
def test_the_runs_are_what_they_say(request: pytest.FixtureRequest, name: str) -> None:
    settings = request.getfixturevalue(name).record["settings"]
    config = settings["deepspeed_config"]
    assert ((config and config["zero_optimization"]["stage"]), settings["world_size"]) == RUNS[name]


def test_zero3_splits_the_weights_and_offloads_them(zero3_run: Any, killed_offload_run: Any) -> None:
    assert any(argument.startswith("--local_rank") for argument in zero3_run.record["command"])  # DeepSpeed's launcher
    for run in (zero3_run, killed_offload_run):
        checkpoint = Path(run.folder) / "checkpoint-20/global_step20"
        assert len(list(checkpoint.glob("zero_pp_rank_*_model_states.pt"))) == 2  # weights split over both ranks
    zero = killed_offload_run.record["settings"]["deepspeed_config"]["zero_optimization"]
    assert zero["offload_optimizer"]["device"] == zero["offload_param"]["device"] == "cpu"


def test_the_loss_falls(other_run: Any, single_run: Any) -> None:
    for run in (other_run, single_run):
        losses = list(run.losses.values())
        assert len(losses) == 20
        assert max(losses[-5:]) < min(losses[:5]) - 0.3
        assert run.record["metrics"]["eval_loss"] < losses[0] - 0.3


def test_losses_agree_step_by_step(named_run: tuple[str, Any], single_run: Any) -> None:
    """Those that were killed are held to the bound of resuming."""
    name, run = named_run
    assert list(run.losses) == list(single_run.losses) == list(range(1, 21))
    assert run.losses == pytest.approx(single_run.losses, abs=1e-4 if name in EXACT else 1e-3)


def test_validation_agrees(other_run: Any, single_run: Any) -> None:
    # The validation rows make no whole number of batches of 7, so ranks are filled up: that must not count.
    assert single_run.record["rows"]["validation"] % 14 not in (0, 7)
    assert other_run.record["metrics"] == pytest.approx(single_run.record["metrics"], abs=1e-3)
    assert {f"eval_{name}" for name in CHOOSING} <= set(single_run.record["metrics"])


def test_the_weights_agree(other_run: Any, single_run: Any) -> None:
    assert_equal_weights(other_run.folder, single_run.folder)


def test_adapters_train_as_in_one_process_also_after_a_kill(killed_lora_run: Any, lora_single_run: Any) -> None:
    assert killed_lora_run.record["settings"]["world_size"] == 2
    assert list(killed_lora_run.losses) == list(range(1, 21))
    assert killed_lora_run.losses == pytest.approx(lora_single_run.losses, abs=1e-4)
    losses = list(killed_lora_run.losses.values())
    assert max(losses[-5:]) < min(losses[:5]) - 0.3
    assert killed_lora_run.record["metrics"] == pytest.approx(lora_single_run.record["metrics"], abs=1e-3)
    assert_equal_weights(killed_lora_run.folder, lora_single_run.folder)


def test_adapters_score_the_same_merged_and_beside_the_base(
    killed_lora_run: Any, training_model: Path, training_data: Path
) -> None:
    folder = killed_lora_run.folder
    rows = [RatedResponse.from_dict(row) for _, row in read_jsonl(training_data / "validation.jsonl")][:8]
    conversations, responses = [row.conversation for row in rows], [row.response for row in rows]
    merged = Judge.load(folder, truncate=True)
    base = AutoModelForCausalLM.from_pretrained(training_model, dtype=torch.float32).eval()
    before = Judge(merged.encoder, TransformersEngine(base), truncate=True, max_length=merged.max_length)
    untrained = before.score(conversations, responses)
    adapted = PeftModel.from_pretrained(base, str(folder / "adapter")).eval()
    beside = Judge(merged.encoder, TransformersEngine(adapted), truncate=True, max_length=merged.max_length)
    pairs = zip(merged.score(conversations, responses), beside.score(conversations, responses), untrained, strict=True)
    for one, other, plain in pairs:
        assert one.error is None
        for key, found in one.attributes.items():
            assert found.probabilities == pytest.approx(other.attributes[key].probabilities, abs=1e-5)
            assert found.outside_mass == pytest.approx(other.attributes[key].outside_mass, abs=1e-5)
            assert found.mean == pytest.approx(other.attributes[key].mean, abs=1e-5)
            assert found.outside_mass < plain.attributes[key].outside_mass - 1e-3  # the adapters have learnt


def assert_equal_weights(found_in: Path, expected_in: Path) -> None:
    expected = load_file(expected_in / "model.safetensors")
    found = load_file(found_in / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.allclose(tensor, expected[name], atol=1e-3), name
