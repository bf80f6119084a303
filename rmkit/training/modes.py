"""Which ways of training go together; those that don't are refused before a model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.utils import is_flash_attn_2_available

from rmkit.engines import DTYPES
from rmkit.errors import DataError
from rmkit.training.deepspeed_config import zero_stage
from rmkit.training.settings import ModelArguments


def check_mode(model: ModelArguments, args: TrainingArguments, deepspeed: Mapping[str, Any] | None) -> None:
    """Make sure that the settings go together on this machine.

    Args:
        model: What is trained, and how.
        args: transformers' arguments, resolved.
        deepspeed: DeepSpeed's configuration; None without it.

    Raises:
        DataError: Naming the setting, why it can't be, and what to set instead.
    """
    check_anywhere(model, deepspeed)
    if model.load_in_4bit and find_spec("bitsandbytes") is None:
        raise DataError("load_in_4bit needs bitsandbytes, which is not installed: pip install '.[qlora]'")
    if model.attn_implementation.startswith("flash_attention"):
        _check_flash(model, args)


def check_anywhere(model: ModelArguments, deepspeed: Mapping[str, Any] | None) -> None:
    """Make sure of what does not depend on this machine; a dry run asks no more.

    Raises:
        DataError: As `check_mode`.
    """
    if model.dtype not in DTYPES:
        raise DataError(f"dtype={model.dtype!r} is unknown; choose {', '.join(DTYPES)}")
    if not model.load_in_4bit:
        return
    if not model.lora:
        raise DataError("load_in_4bit: 4-bit weights can't be trained, only adapters on them; set lora: true")
    if zero_stage(deepspeed) == 3:
        raise DataError(
            "load_in_4bit: ZeRO-3 would split the packed 4-bit weights; use train/deepspeed/zero2.json, under which "
            "each GPU holds the whole base, at about half a byte a weight"
        )


def _check_flash(model: ModelArguments, args: TrainingArguments) -> None:
    name = model.attn_implementation
    if args.device.type == "cpu":
        raise DataError(f"attn_implementation={name!r} needs a GPU; on a CPU choose sdpa")
    if name == "flash_attention_2" and not is_flash_attn_2_available():
        raise DataError(
            f"attn_implementation={name!r} needs the package flash-attn >= 2.3.3; install it, or choose sdpa"
        )
    if model.dtype == "float32" and not (args.bf16 or args.fp16):
        raise DataError(f"attn_implementation={name!r} computes in 16 bits only; set bf16: true, or choose sdpa")


def quantization(args: TrainingArguments) -> Any:
    """Settings of a base in 4 bits: NF4 with its constants quantised too, as QLoRA was published."""
    from transformers import BitsAndBytesConfig  # noqa: PLC0415 (only where it is used)

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if args.bf16 else torch.float32,
    )
