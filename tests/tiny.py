"""Small tokenizers of each kind, and small random models, built from nothing: what the suite runs on.

Tests reach these through the fixtures of the same names in `conftest.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from rmkit.judge_config import JudgeConfig
from rmkit.judge_encoder import JudgeEncoder
from rmkit.rubric import Rubric

TOKENIZER_KINDS = ("byte_level", "sentencepiece", "split_digits", "three_digits")
"""How each writes ` 4`, ` 14` and ` 100`:

- `byte_level`, as GPT-2: ` 4` is one token; ` 10`, ` 50` and ` 100` too, but ` 14` is ` 1` and `4`.
- `sentencepiece`, as Llama-2 and Mistral: `▁` and then digits, whose ids are not in numeric order.
- `split_digits`, as Qwen: a space and then digits.
- `three_digits`, as Llama-3: a space and then one token, which exists for `007` as well.
"""

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
"""A chat template in the manner of Qwen3."""

_INST = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
"""A chat template in the manner of Mistral."""

_WORDS = (
    "Help fulness Cor rect ness Co her ence Comp lex ity Ver bos Over all Rate the response to conversation below on "
    "each attribute Attributes User Response Reply with scores of only and is a in for with not are list write words"
).split()


def build_tokenizer(kind: str, chat: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer of a few hundred tokens; see `TOKENIZER_KINDS`.

    It covers every text, byte by byte where it has no word. `<think>` and `</think>` are added tokens that
    are not marked special, as in Qwen3.

    Args:
        kind: One of `TOKENIZER_KINDS`.
        chat: Whether it has a chat template, its tokens and a pad token, or is a base model's tokenizer.
    """
    backend, special = {
        "byte_level": _byte_level,
        "sentencepiece": _sentencepiece,
        "split_digits": _split_digits,
        "three_digits": _three_digits,
    }[kind]()
    names: dict[str, Any] = dict(special)
    if chat:
        template, markers = (
            (_INST, ["[INST]", "[/INST]"])
            if "bos_token" in special
            else (
                CHATML,
                ["<|im_start|>", "<|im_end|>"],
            )
        )
        backend.add_special_tokens(markers)
        names |= {"chat_template": template, "pad_token": special.get("unk_token", special["eos_token"])}
    backend.add_tokens([AddedToken(text, normalized=False) for text in ("<think>", "</think>")])
    return PreTrainedTokenizerFast(tokenizer_object=backend, name_or_path=f"tiny-{kind}", **names)


def build_model(
    vocab_size: int,
    family: str = "llama",
    hidden: int = 64,
    layers: int = 2,
    max_length: int = 2048,
    initializer_range: float = 0.1,
    seed: int = 0,
) -> PreTrainedModel:
    """A random causal language model in float32, in evaluation mode; the caller's random state is kept.

    Args:
        vocab_size: Token ids that it knows.
        family: `llama` or `qwen3`.
        hidden: Width, a multiple of 32, the head dimension (vLLM takes none below that on a CPU).
        layers: Number of layers.
        max_length: Most tokens of a sequence.
        initializer_range: Standard deviation of the weights; 0.1 gives distributions that are not flat.
        seed: Seed of the weights.
    """
    config_class, model_class = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen3": (Qwen3Config, Qwen3ForCausalLM)}[
        family
    ]
    config = config_class(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 32,
        head_dim=32,
        max_position_embeddings=max_length,
        initializer_range=initializer_range,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return model_class(config).float().eval()


def save_model(folder: Path, tokenizer: PreTrainedTokenizerFast, **options: Any) -> Path:
    """Write a random model and its tokenizer as a model folder, and return the folder.

    Args:
        folder: Where to; it is made.
        tokenizer: Written beside the model, which gets as many token ids.
        **options: As for `build_model`.
    """
    build_model(**{"vocab_size": len(tokenizer), **options}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_judge(folder: Path, tokenizer: PreTrainedTokenizerFast, rubric: Rubric, **options: Any) -> Path:
    """Write a random judge: the model folder of `save_model` with a `judge_config.json`; returns the folder."""
    save_model(folder, tokenizer, **options)
    encoder = JudgeEncoder(tokenizer, rubric)
    JudgeConfig(
        rubric=rubric,
        chat_template=encoder.prompts.chat_template,
        score_token_ids=encoder.score_tokens().to_dict(),
        end_of_turn_id=encoder.prompts.end_of_turn_id,
        example_sha256=encoder.hash_example(),
    ).save(folder)
    return folder


def _byte_level() -> tuple[Tokenizer, dict[str, str]]:
    merges = [*_numbers("Ġ", ["10", "50", "100"]), *(("Ġ", digit) for digit in "23467890"), *_spell("Ġ", _WORDS)]
    backend = _bpe([*sorted(pre_tokenizers.ByteLevel.alphabet())], dict.fromkeys(merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>"])
    return backend, {"eos_token": "<|endoftext|>"}


def _split_digits() -> tuple[Tokenizer, dict[str, str]]:
    backend = _bpe([*sorted(pre_tokenizers.ByteLevel.alphabet())], dict.fromkeys(_spell("Ġ", _WORDS)))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>"])
    return backend, {"eos_token": "<|endoftext|>"}


def _three_digits() -> tuple[Tokenizer, dict[str, str]]:
    numbers = [f"{n:0{width}d}" for width in (2, 3) for n in range(10**width)]
    backend = _bpe(
        [*sorted(pre_tokenizers.ByteLevel.alphabet()), *numbers], dict.fromkeys(_spell("Ġ", _WORDS)), whole=True
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}{1,3}| ?\p{L}+|\s+(?!\S)|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>"])
    return backend, {"eos_token": "<|endoftext|>"}


def _sentencepiece() -> tuple[Tokenizer, dict[str, str]]:
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    printable = [chr(code) for code in range(33, 127) if not chr(code).isdigit()]
    alphabet = ["<unk>", "<s>", "</s>", *bytes_, "▁", *printable, *"3170528496"]
    backend = _bpe(alphabet, dict.fromkeys(_spell("▁", _WORDS)), unk_token="<unk>", byte_fallback=True)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return backend, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def _bpe(alphabet: list[str], merges: dict[tuple[str, str], None], whole: bool = False, **options: Any) -> Tokenizer:
    pieces = dict.fromkeys([*alphabet, *("".join(pair) for pair in merges)])
    vocab = {piece: index for index, piece in enumerate(pieces)}
    return Tokenizer(models.BPE(vocab=vocab, merges=list(merges), ignore_merges=whole, **options))


def _spell(space: str, words: list[str]) -> Iterator[tuple[str, str]]:
    """Merges that build words from their letters, with and without a space before."""
    for word in words:
        for end in range(1, len(word)):
            yield word[:end], word[end]
        yield space, word


def _numbers(space: str, numbers: list[str]) -> Iterator[tuple[str, str]]:
    """Merges that make a number and the space before it one token."""
    for number in numbers:
        for end in range(len(number)):
            yield space + number[:end], number[end]
