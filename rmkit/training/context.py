"""What the config of the model that is trained asks of the settings."""

from __future__ import annotations

import logging

from transformers import AutoConfig, PreTrainedConfig

from rmkit.engines.transformers import caps_attention, context_length
from rmkit.errors import DataError, JudgeError
from rmkit.training.settings import DataArguments, ModelArguments

logger = logging.getLogger(__name__)


def read_config(settings: ModelArguments) -> PreTrainedConfig:
    """The config of the model to train.

    Raises:
        JudgeError: If it can't be read.
    """
    try:
        return AutoConfig.from_pretrained(settings.model, revision=settings.revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise JudgeError(f"the model {settings.model}: its config can't be read: {error}") from error


def check_attention(settings: ModelArguments, config: PreTrainedConfig) -> None:
    """Do nothing where the attention that was asked for is the model's own.

    Raises:
        DataError: If it would leave out the cap on the model's attention scores.
    """
    if settings.attn_implementation == "sdpa" and caps_attention(config):
        raise DataError(
            f"attn_implementation=sdpa leaves out the cap on attention scores that {config.model_type} is made with, "
            "and scoring keeps it; set attn_implementation: eager, or flash_attention_2 on a GPU"
        )


def keep_within_context(data: DataArguments, config: PreTrainedConfig) -> None:
    """Lower `max_length` to what the model is made for, and say so: the judge could not read longer rows."""
    longest = context_length(config)
    if data.max_length <= longest:
        return
    logger.warning("max_length=%d is more than the model takes; it is lowered to %d tokens", data.max_length, longest)
    data.max_length = longest
