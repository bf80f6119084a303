"""Options of transformers that a judge's training would pass over, or that would spoil it; they are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OWN_SUMS = "the validation loss is made of the sums of all rows at once"
_REFUSED: Mapping[str, tuple[Any, str]] = {
    "label_smoothing_factor": (0.0, "the loss is the judge's own; loss: label_smoothing smooths over scores"),
    "train_sampling_strategy": (
        ("random", "sequential"),
        "responses to one conversation come together; batch_tokens puts rows of similar length into a batch",
    ),
    "remove_unused_columns": (False, "a batch has columns of its own"),
    "eval_do_concat_batches": (True, _OWN_SUMS),
    "batch_eval_metrics": (False, _OWN_SUMS),
    "bf16_full_eval": (False, "it would round the weights that are exported; bf16 trains and validates in 16 bits"),
    "fp16_full_eval": (False, "it would round the weights that are exported; fp16 trains and validates in 16 bits"),
    "enable_jit_checkpoint": (False, "SIGTERM saves a checkpoint and stops in any case"),
}
"""What each must be, and why it can't be anything else."""


def check_options(options: object) -> None:
    """Do nothing for options that a judge's training follows.

    Args:
        options: transformers' TrainingArguments.

    Raises:
        ValueError: For one that it does not, with what to use in its place.
    """
    for name, (harmless, reason) in _REFUSED.items():
        value = getattr(options, name)
        if value not in (harmless if isinstance(harmless, tuple) else (harmless,)):
            raise ValueError(f"{name}={value!r} has no place here: {reason}; leave it out")
