"""The reference engine: plain transformers, on CPU or GPU, also on a model that is being trained."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os.path import commonprefix
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.integrations import deepspeed

from rmkit.engines import Query, Reading, follow_in_rounds
from rmkit.engines.growing_tree import GrowingTree, takes_trees
from rmkit.engines.padded import answer_padded
from rmkit.errors import JudgeError
from rmkit.tree_attention import find_obstacle, use_tree_attention

logger = logging.getLogger(__name__)

_KEYS = (
    8  # that attention copies for each token of a batch, at most: responses of a pair see two, branching scores more
)


def load_model(path: str, dtype: str = "auto", device: str | None = None) -> nn.Module:
    """Load a causal language model from safetensors, whole, also in a process that trains under ZeRO-3.

    Args:
        path: Folder or hub id.
        dtype: `auto` takes the checkpoint's own on a GPU and float32 on a CPU; or `float32`, `bfloat16`, ...
        device: `cuda`, `cpu`, ...; by default a GPU where there is one.

    Raises:
        JudgeError: If the model can't be loaded, for example because it has no safetensors, or they lack a weight.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    chosen = "float32" if dtype == "auto" and device == "cpu" else dtype
    try:
        with _zero3_set_aside():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                path, dtype=chosen, use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
    except (OSError, RuntimeError, SafetensorError, ValueError) as error:  # RuntimeError: weights of another shape
        raise JudgeError(f"the model {path} can't be loaded: {error}") from error
    model, report = loaded
    if caps_attention(model.config):
        model.set_attn_implementation("eager")
    missing = sorted(report["missing_keys"])
    if missing:  # transformers fills them with random numbers, and a judge would score with those
        raise JudgeError(
            f"the model {path} can't be loaded: {len(missing)} weights of its config are not in its safetensors, such "
            f"as {missing[0]}; the files are incomplete or do not belong together: copy or train the model anew"
        )
    obstacle = find_obstacle(model.config, str(model.config._attn_implementation), context_length(model.config))
    if obstacle is None:
        use_tree_attention(model)
    else:
        logger.warning("batches are padded, and prompts that begin alike are computed anew for each: %s", obstacle)
    try:
        return model.to(device).eval()
    except (AssertionError, RuntimeError) as error:  # torch asserts that it was built for the device
        raise JudgeError(f"the model {path} can't be put on device {device!r}: {error}") from error


def context_length(config: Any) -> int:
    """Most tokens of a sequence that a model of transformers with this config takes; 2**31 where it does not say."""
    return int(getattr(config.get_text_config(), "max_position_embeddings", 0) or 2**31)


def caps_attention(config: Any) -> bool:
    """Whether a model of transformers caps its attention scores, as Gemma 2 does: `sdpa` leaves that out silently."""
    return getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None


@contextmanager
def _zero3_set_aside() -> Iterator[None]:
    """Hide a ZeRO-3 training's config, by which transformers would split every model that is loaded meanwhile."""
    # transformers has a setter for it, but no getter.
    reference: weakref.ref[Any] | None = deepspeed._hf_deepspeed_config_weak_ref
    config = reference() if reference is not None else None
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if config is not None:
            deepspeed.set_hf_deepspeed_config(config)


class TransformersEngine:
    """Runs a transformers causal language model.

    What prompts begin with in common is computed once, and what was computed for one question is kept for the next
    ones about the same response. A model whose attention can't do that (see `rmkit.tree_attention`) gets padded
    batches, in which queries whose prefix is the beginning of another's are answered by one forward pass.

    Args:
        model: The model, on its device.
        batch_tokens: Most tokens of prompts in one forward pass, padding included.
        max_length: Most tokens of a sequence; by default what the model's config says.
    """

    name = "transformers"
    merges_prefixes = True

    def __init__(self, model: nn.Module, batch_tokens: int = 16_384, max_length: int | None = None) -> None:
        self.model = model
        self.batch_tokens = batch_tokens
        longest = context_length(model.config)
        self.max_length = min(max_length or longest, longest)
        self.vocab_size = int(model.config.get_text_config().vocab_size)  # type: ignore[union-attr, operator]

    @torch.no_grad()
    def logprobs(self, queries: Sequence[Query]) -> list[np.ndarray]:
        """See `Engine.logprobs`."""
        with _evaluating(self.model):
            if not takes_trees(self.model):
                return answer_padded(self.model, queries, self.batch_tokens)
            answers: list[np.ndarray] = [np.empty(0)] * len(queries)
            for batch in _fill([query.prefix for query in queries], self.batch_tokens):
                found = self._grow().answer([queries[index] for index in batch])
                for index, answer in zip(batch, found, strict=True):
                    answers[index] = answer
            return answers

    @torch.no_grad()
    def follow(self, readings: Sequence[Reading]) -> None:
        """See `FollowingEngine.follow`."""
        if not takes_trees(self.model):
            return follow_in_rounds(self, readings)
        asked = [(reading, queries) for reading in readings if (queries := reading.ask(ahead=True))]
        with _evaluating(self.model):
            for batch in _fill([queries[-1].prefix for _, queries in asked], self.batch_tokens):
                tree, now = self._grow(), [asked[index] for index in batch]
                while now:
                    answers = iter(tree.answer([query for _, queries in now for query in queries]))
                    for reading, queries in now:
                        reading.take([next(answers) for _ in queries])
                    now = [(reading, more) for reading, _ in now if (more := reading.ask(ahead=True))]

    def _grow(self) -> GrowingTree:
        return GrowingTree(self.model, _KEYS * self.batch_tokens)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """No dropout meanwhile, also where the model is being trained."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _fill(prefixes: Sequence[tuple[int, ...]], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of prefixes, as many at a time as fit; those that begin alike together, and counted so."""
    batch: list[int] = []
    size = 0
    for index in sorted(range(len(prefixes)), key=lambda index: prefixes[index]):
        shared = len(commonprefix([prefixes[batch[-1]], prefixes[index]])) if batch else 0
        new = len(prefixes[index]) - shared
        if batch and size + new > batch_tokens:
            yield batch
            batch, size, new = [], 0, len(prefixes[index])
        batch.append(index)
        size += new
    if batch:
        yield batch
