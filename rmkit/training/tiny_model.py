"""A small random model with a tokenizer of its own: for the demo, the tests and small experiments.

No hub is needed: the tokenizer is trained on the texts it will read.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
_SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"]
_INITIALIZER_RANGE = 0.06  # at this width the usual 0.02 leaves attention flat for most of a short run
_HEAD_SIZE = 32  # the smallest that vLLM's CPU attention takes


def train_tokenizer(texts: Iterable[str], vocab_size: int = 2048) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with single digits and a short chat template.

    Args:
        texts: What it will read.
        vocab_size: Number of tokens, at least 263 (all bytes and the special tokens).
    """
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<|pad|>", eos_token="<|end|>", chat_template=_TEMPLATE
    )


def build_tiny_model(
    tokenizer: PreTrainedTokenizerFast, layers: int = 4, width: int = 128, max_length: int = 4096, seed: int = 0
) -> Qwen3ForCausalLM:
    """A randomly initialised decoder of the Qwen3 architecture.

    Args:
        tokenizer: Gives the size of the vocabulary.
        layers: Number of layers.
        width: Hidden size, a multiple of 32.
        max_length: Most tokens of a sequence.
        seed: Of the weights.

    Raises:
        ValueError: If `width` is no multiple of 32.
    """
    if width % _HEAD_SIZE:
        raise ValueError(f"width={width} must be a multiple of {_HEAD_SIZE}, the size of one attention head")
    heads = width // _HEAD_SIZE
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=_HEAD_SIZE,
        max_position_embeddings=max_length,
        initializer_range=_INITIALIZER_RANGE,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config)


def save_tiny_model(texts: Iterable[str], folder: Path, vocab_size: int = 2048, **options: int) -> None:
    """Train a tokenizer on texts, build a model for it, and write both as a model folder.

    Args:
        texts: What the model will read.
        folder: Where it goes.
        vocab_size: As in `train_tokenizer`.
        **options: As in `build_tiny_model`.
    """
    tokenizer = train_tokenizer(texts, vocab_size)
    model = build_tiny_model(tokenizer, **options)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
