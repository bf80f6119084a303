"""LoRA adapters on a model."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedModel

from rmkit.errors import JudgeError
from rmkit.training.settings import ModelArguments


def choose_targets(names: str) -> str | list[str]:
    """What peft is told of `lora_target_modules`: `all-linear` as it is, else a list of names."""
    return names if names == "all-linear" else [name.strip() for name in names.split(",")]


def add_adapters(model: PreTrainedModel, settings: ModelArguments) -> nn.Module:
    """The model with adapters, which alone are trained.

    Raises:
        JudgeError: If a target names no module, of which peft is silent where another one does, or peft can't make
            adapters as told.
    """
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415 (only where LoRA is used)

    targets = choose_targets(settings.lora_target_modules)
    check_targets(model, targets)
    lora = LoraConfig(
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, lora)
    except ValueError as error:
        raise JudgeError(f"the model {settings.model} can't have such adapters: {error}") from error


def check_targets(model: nn.Module, targets: str | Sequence[str]) -> None:
    """Make sure that each name is that of a module, or the end of one.

    Raises:
        JudgeError: For a name that is not.
    """
    known = [name for name, _ in model.named_modules()]
    for target in () if isinstance(targets, str) else targets:
        if not any(name == target or name.endswith(f".{target}") for name in known):
            ends = sorted(
                {name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, nn.Linear)}
            )
            raise JudgeError(
                f"lora_target_modules names {target!r}, which the model has not; it has {', '.join(ends)}"
            )
