"""Ways of training that change memory and speed give the losses of the plain way; those that can't be are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from rmkit.errors import DataError, JudgeError
from rmkit.judge import Judge
from rmkit.training.dry_run import describe_run
from rmkit.training.modes import check_mode
from rmkit.training.run import load_trainable, train_judge
from rmkit.training.settings import TrainingSettings
from rmkit.training.tiny_model import build_tiny_model

Settings = Callable[..., TrainingSettings]


@pytest.fixture
def losses(small_settings: Settings, tmp_path: Path) -> Callable[..., list[float]]:
    """`losses(*options)`: of six steps without validation."""

    def train(*options: str) -> list[float]:
        quick = ("--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false")
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        figures = train_judge(small_settings(*quick, "--output_dir", str(folder), *options))
        return [line["loss"] for line in figures["log"] if "loss" in line]

    return train


@pytest.mark.parametrize("lora", ["false", "true"])
def test_gradient_checkpointing_changes_no_loss(losses: Callable[..., list[float]], lora: str) -> None:
    plain = losses("--lora", lora)
    assert losses("--lora", lora, "--gradient_checkpointing", "true") == pytest.approx(plain, abs=1e-5)
    assert plain[-1] < plain[0] - 0.05


def test_attention_changes_no_loss(losses: Callable[..., list[float]]) -> None:
    assert losses("--attn_implementation", "eager") == pytest.approx(losses(), abs=1e-4)


def test_a_cap_on_attention_scores_is_trained_with_or_refused(
    small_settings: Settings, small_model: Path, tmp_path: Path
) -> None:
    model = tmp_path / "gemma2"
    tokenizer = AutoTokenizer.from_pretrained(small_model)
    tokenizer.save_pretrained(model)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": len(tokenizer), "pad_token_id": 0}
    AutoModelForCausalLM.from_config(AutoConfig.for_model("gemma2", **sizes, **heads)).save_pretrained(model)
    options = ("--model", str(model), "--max_steps", "2")
    for settings in (small_settings(*options), small_settings(*options, "--dry-run")):
        with pytest.raises(DataError, match="sdpa leaves out the cap .* that gemma2 is made with"):
            train_judge(settings) if settings.dry_run is None else describe_run(settings, settings.dry_run, model)
    train_judge(small_settings(*options, "--attn_implementation", "eager"))
    [judgment] = Judge.load(tmp_path / "judge").score(["Hi?"], ["Yes."])
    assert judgment.error is None


def test_bfloat16_trains_and_is_exported_as_the_weights_are(small_settings: Settings) -> None:
    settings = small_settings("--bf16", "true", "--dtype", "bfloat16")
    figures = train_judge(settings)
    found = [line["loss"] for line in figures["log"] if "loss" in line]
    assert found[-1] < found[0] - 0.05
    folder = Path(str(settings.training.output_dir))
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("options", "stage", "message"),
    [
        (("--dtype", "bf16"), 0, "dtype='bf16' is unknown; choose auto, float32, bfloat16"),
        (("--attn_implementation", "flash_attention_2"), 0, "'flash_attention_2' needs a GPU; on a CPU choose sdpa"),
        (("--load_in_4bit", "true"), 0, "only adapters on them; set lora: true"),
        (("--load_in_4bit", "true", "--lora", "true"), 3, "ZeRO-3 would split the packed 4-bit weights; use .*zero2"),
    ],
)
def test_what_does_not_go_together(
    small_settings: Settings, options: tuple[str, ...], stage: int, message: str
) -> None:
    settings = small_settings(*options)
    config = {"zero_optimization": {"stage": stage}} if stage else None
    with pytest.raises(DataError, match=message):
        check_mode(settings.model, settings.training, config)
    if not stage:
        with pytest.raises(DataError, match=message):
            train_judge(settings)
        assert not Path(str(settings.training.output_dir)).exists()


def test_4_bits_without_bitsandbytes(small_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmkit.training.modes.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"bitsandbytes, which is not installed: pip install '.\[qlora\]'"):
        train_judge(small_settings("--load_in_4bit", "true", "--lora", "true"))


def test_adapters_on_a_base_in_4_bits_are_merged_into_the_whole_one(
    small_settings: Settings, small_model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install '.[qlora]'")
    wide = tmp_path / "wide"  # on a CPU bitsandbytes takes whole blocks of 64 columns only
    tokenizer = AutoTokenizer.from_pretrained(small_model)
    build_tiny_model(tokenizer, layers=1, width=64).save_pretrained(wide)
    tokenizer.save_pretrained(wide)
    four = (
        "--model",
        str(wide),
        "--load_in_4bit",
        "true",
        "--lora",
        "true",
        "--lora_r",
        "4",
        "--learning_rate",
        "0.03",
    )
    settings = small_settings(*four, "--gradient_checkpointing", "true")
    model = load_trainable(settings.model, settings.training)
    packed = [parameter for parameter in model.parameters() if parameter.dtype == torch.uint8]
    assert packed and not any(parameter.requires_grad for parameter in packed)

    figures = train_judge(settings)
    found = [line["loss"] for line in figures["log"] if "loss" in line]
    assert found[-1] < found[0] - 0.05
    folder = Path(str(settings.training.output_dir))
    assert "quantization_config" not in json.loads((folder / "config.json").read_text("utf-8"))
    merged = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    base = AutoModelForCausalLM.from_pretrained(settings.model.model).state_dict()
    adapter = load_file(folder / "adapter/adapter_model.safetensors")
    changed = {name for name in base if not torch.equal(merged[name], base[name])}
    assert len(changed) == len(adapter) // 2  # a pair of matrices each
    for name in changed:
        a, b = (adapter[f"base_model.model.{name.removesuffix('.weight')}.lora_{side}.weight"] for side in "AB")
        assert torch.allclose(merged[name], base[name] + 32 / 4 * b @ a, atol=1e-5)
    assert Judge.load(folder).score(["Hello?"], ["Hello!"])[0].error is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--lora_target_modules", "q_proj, v_prj"), r"lora_target_modules names 'v_prj', .*; it has .*v_proj"),
        (("--lora_r", "0"), r"can't have such adapters: .*positive"),
    ],
)
def test_adapters_that_can_not_be_are_refused(
    small_settings: Settings, options: tuple[str, ...], message: str
) -> None:
    with pytest.raises(JudgeError, match=message):
        train_judge(small_settings("--lora", "true", *options))
