"""Shapes of models without their weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from rmkit.errors import JudgeError
from rmkit.training.activations import BatchSize, activation_terms, layer_bytes
from rmkit.training.memory import ZeroLayout
from rmkit.training.model_shape import find_config, measure_shape, read_shape
from rmkit.training.step_time import count_operations

SHAPES = Path(__file__).resolve().parents[2] / "train/configs/shapes"
PARAMETERS = {  # as their makers' weights have
    "Llama-3.1-70B": 70_553_706_496,
    "Llama-3.1-8B": 8_030_261_248,
    "Llama-3.2-1B": 1_235_814_400,
    "Llama-3.2-3B": 3_212_749_824,
    "Mistral-7B-v0.3": 7_248_023_552,
    "Qwen2.5-7B": 7_615_616_512,
    "Qwen3-0.6B": 596_049_920,
    "Qwen3-1.7B": 1_720_574_976,
    "Qwen3-14B": 14_768_307_200,
    "Qwen3-32B": 32_762_123_264,
    "Qwen3-4B": 4_022_468_096,
    "Qwen3-8B": 8_190_735_360,
}
SIZES = {
    **{"hidden_size": 256, "intermediate_size": 896, "num_hidden_layers": 4, "num_attention_heads": 8},
    **{"num_key_value_heads": 2, "head_dim": 32, "vocab_size": 500, "tie_word_embeddings": False},
}


def test_shape_files_give_the_published_numbers_of_parameters() -> None:
    found = {path.stem: measure_shape(read_shape(path), "").total for path in SHAPES.glob("*.json")}
    assert found == PARAMETERS


def test_a_config_is_looked_for_in_a_folder_and_then_by_name(tmp_path: Path) -> None:
    AutoConfig.for_model("llama", **SIZES).save_pretrained(str(tmp_path / "own"))
    config, source = find_config(str(tmp_path / "own"), SHAPES)
    assert config.get_text_config().hidden_size == 256 and source.endswith("own/config.json")
    config, source = find_config("meta-llama/Llama-3.1-8B-Instruct", SHAPES)
    assert config.get_text_config().hidden_size == 4096 and source == "shape file Llama-3.1-8B.json"
    with pytest.raises(JudgeError, match="its config can't be read"):
        find_config(str(tmp_path), SHAPES)


def test_adapters_and_a_packed_base_are_told_apart() -> None:
    shape = measure_shape(AutoConfig.for_model("qwen3", **SIZES), "", lora_rank=4, packs=True)
    adapters = [weight for weight in shape.weights if weight.is_adapter]
    assert len(adapters) == 2 * 7 * 4 and all(weight.is_trained for weight in adapters)
    assert shape.trained == sum(weight.numel for weight in adapters)
    assert sum(weight.is_packed for weight in shape.weights) == 7 * 4  # not embedding, head and norms
    assert shape.has_head_norms


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("setup", ["full", "checkpointing", "lora", "padded"])
def test_activations_are_what_autograd_keeps(kind: str, dtype: torch.dtype, setup: str) -> None:
    rows, length = 4, 128
    config = AutoConfig.for_model(kind, **SIZES)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa").train()
    if setup == "lora":
        from peft import LoraConfig, get_peft_model  # noqa: PLC0415 (only where LoRA is used)

        model.enable_input_require_grads()
        model = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    if setup == "checkpointing":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    ids, mask = torch.randint(500, (rows, length)), torch.ones((rows, length), dtype=torch.long)
    if setup == "padded":
        mask[1:, :20] = 0
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model.get_decoder()(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    assert hidden.requires_grad
    shape = measure_shape(config, "", lora_rank=16 if setup == "lora" else 0)
    elements = rows * length * length if setup == "padded" else 0
    layout = ZeroLayout(0, 1, dtype.itemsize, 4)
    batch = BatchSize(rows * length, rows * length, 0, elements)
    term = activation_terms(shape, layout, batch, checkpointing=setup == "checkpointing")[0]
    assert term.backward == pytest.approx(sum(storage.nbytes() for storage in kept.values()), rel=0.06)


def test_shared_keys_cost_memory_of_their_own() -> None:
    shape = measure_shape(AutoConfig.for_model("llama", **SIZES), "")
    layout = ZeroLayout(0, 1, 2, 4)
    alone, shared = (layer_bytes(shape, layout, BatchSize(100, keys, 0)) for keys in (100, 150))
    assert shared - alone == 50 * 2 * 2 * shape.key_size


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("lora", [False, True])
def test_operations_are_those_that_torch_counts(checkpointing: bool, lora: bool) -> None:
    config = AutoConfig.for_model("llama", **SIZES)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").train()
    if lora:
        from peft import LoraConfig, get_peft_model  # noqa: PLC0415 (only where LoRA is used)

        model.enable_input_require_grads()
        model = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    with FlopCounterMode(display=False) as counter:
        ids = torch.randint(500, (2, 64))
        model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state.sum().backward()
    shape = measure_shape(config, "", lora_rank=16 if lora else 0)
    expected = count_operations(shape, 128, 2 * 64 * 64, 0, checkpointing)  # eager attention computes all pairs
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.03)
