"""The memory of each stage of ZeRO, against the tensors that two ranks hold while they train."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from rmkit.training.memory import Term, ZeroLayout, read_layout, state_terms
from rmkit.training.model_shape import ModelShape, measure_shape

REPO = Path(__file__).resolve().parents[2]
SETUPS = ("1-bfloat16", "2-bfloat16", "3-bfloat16", "3-bfloat16-offload")
MORE = ("0-float32", "1-float32", "2-bfloat16-lora", "2-bfloat16-offload", "3-bfloat16-lora", "3-float32")
BUCKET = 100_000  # as in zero_memory.py


@pytest.fixture(scope="module")
def held(
    tmp_path_factory: pytest.TempPathFactory,
    run_command: Callable[..., tuple[int, str]],
    launch: Callable[[str, int], list[str]],
) -> Callable[[tuple[str, ...]], Path]:
    """`held(setups)`: the folder where both ranks wrote what they held; one run for all of them."""
    folders: dict[tuple[str, ...], Path] = {}

    def find(setups: tuple[str, ...]) -> Path:
        if setups not in folders:
            output = tmp_path_factory.mktemp("memory")
            command = [*launch("torchrun", 2), str(REPO / "tests/training/zero_memory.py"), str(output), *setups]
            status, text = run_command(command, output / "log")
            assert status == 0, text[-4000:]
            folders[setups] = output
        return folders[setups]

    return find


def estimate(setup: str, shape: ModelShape) -> tuple[Term, ...]:
    """The terms of a setup of zero_memory.py."""
    stage, dtype, *words = setup.split("-")
    device = {"device": "cpu" if "offload" in words else "none"}
    zero = {"stage": int(stage), "overlap_comm": True, "reduce_bucket_size": BUCKET}
    config = {"zero_optimization": {**zero, "offload_optimizer": device, "offload_param": device}}
    layout = read_layout(config, shape, ranks=2, itemsize=2 if dtype == "bfloat16" else 4, accumulation=2)
    return state_terms(shape, layout)


@pytest.mark.parametrize("setup", SETUPS)
def test_terms_are_within_five_percent_of_the_tensors_held(
    setup: str, held: Callable[[tuple[str, ...]], Path]
) -> None:
    check_terms(setup, held(SETUPS))


@pytest.mark.long
@pytest.mark.parametrize("setup", MORE)
def test_so_are_those_of_other_setups(setup: str, held: Callable[[tuple[str, ...]], Path]) -> None:
    check_terms(setup, held(MORE))


def check_terms(setup: str, held: Path) -> None:
    config = AutoConfig.from_pretrained(str(held / "model0"))
    shape = measure_shape(config, "", lora_rank=16 if "lora" in setup else 0)
    terms = {term.name.split()[0]: term for term in estimate(setup, shape)}
    for rank in range(2):
        found: dict[str, dict[str, int]] = json.loads((held / f"rank{rank}.json").read_text("utf-8"))[setup]
        backward, step = found["backward"], found["step"]
        for name in ("parameters", "gradients", "optimizer"):
            assert terms[name].backward + terms[name].cpu == pytest.approx(backward[name], rel=0.05), name
        for name in ("parameters", "gradients"):
            assert terms[name].step + terms[name].cpu == pytest.approx(step[name], rel=0.05), name
        # Nothing else was held, for batches take a few kilobytes.
        assert step["other"] < 0.02 * step["parameters"] + 4 * BUCKET
        if setup.startswith("3"):
            assert step["buckets"] == BUCKET * (2 if "bfloat16" in setup else 4)


def test_the_benchmark_measures_what_is_estimated(run_command: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    size = ("--shape", "Qwen3-0.6B", "--layers", "2", "--vocabulary", "1000", "--tokens", "512", "--rows", "4")
    command = [sys.executable, "benchmarks/memory.py", "--device", "cpu", *size, "--packing", "none"]
    status, text = run_command(command, tmp_path / "log")
    assert status == 0, text
    cells = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| full")]
    ratios = {(mode.strip(), part.strip()): float(ratio) for mode, part, _, _, ratio in cells if ratio.strip()}
    assert len(ratios) == 8
    for (_, part), ratio in ratios.items():
        assert ratio == pytest.approx(1, abs=0.15 if part.startswith("peak") else 0.01), part


def shape_of(**sizes: Any) -> ModelShape:
    """A small decoder."""
    given = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = AutoConfig.for_model("llama", **{**given, "num_key_value_heads": 2, "vocab_size": 100, **sizes})
    return measure_shape(config, "test")


@pytest.mark.parametrize(("stage", "expected"), [(1, 16), (2, 16), (3, 16)])
def test_a_parameter_costs_sixteen_bytes_in_all_on_one_rank(stage: int, expected: int) -> None:
    shape = shape_of()
    layout = ZeroLayout(stage, 1, 2, 2)
    terms = {term.name.split()[0]: term for term in state_terms(shape, layout)}
    total = sum(terms[name].backward for name in ("parameters", "gradients", "optimizer"))
    assert total == expected * shape.total


def test_values_left_to_transformers_follow_the_hidden_size() -> None:
    shape = shape_of()
    zero = {"stage": 3, "reduce_bucket_size": "auto", "stage3_param_persistence_threshold": "auto"}
    layout = read_layout({"zero_optimization": zero}, shape, 8, 2)
    assert (layout.bucket, layout.persistence, layout.buckets) == (64 * 64, 640, 1)
    assert read_layout({"zero_optimization": {"stage": 2, "overlap_comm": True}}, shape, 8, 2).buckets == 3
    assert read_layout({"zero_optimization": {"stage": 2}}, shape, 8, 2).buckets == 2


def test_offloaded_parameters_leave_the_gpu_but_for_the_small_ones() -> None:
    shape = shape_of()
    zero = {"stage": 3, "offload_param": {"device": "cpu"}, "stage3_param_persistence_threshold": 64}
    term = state_terms(shape, read_layout({"zero_optimization": zero}, shape, 2, 2))[0]
    norms = 64 * 5  # two in each layer, and the last
    assert (term.backward, term.step, term.cpu) == (2 * norms, 0, shape.total)


def test_other_optimizers_hold_other_states() -> None:
    shape = shape_of()
    zero = {"zero_optimization": {"stage": 2}}
    held = [
        state_terms(shape, read_layout(zero, shape, 1, 2, optimizer=name))[2].step / shape.total
        for name in ("adamw_torch_fused", "adamw_bnb_8bit", "sgd")
    ]
    assert held == [12, 6, 4]
