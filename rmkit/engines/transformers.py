"""The reference engine: plain transformers, on CPU or GPU, also on a model that is being trained."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.integrations import deepspeed

from rmkit.engines import Query
from rmkit.errors import JudgeError


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
    missing = sorted(report["missing_keys"])
    if missing:  # transformers fills them with random numbers, and a judge would score with those
        raise JudgeError(
            f"the model {path} can't be loaded: {len(missing)} weights of its config are not in its safetensors, such "
            f"as {missing[0]}; the files are incomplete or do not belong together: copy or train the model anew"
        )
    try:
        return model.to(device).eval()
    except (AssertionError, RuntimeError) as error:  # torch asserts that it was built for the device
        raise JudgeError(f"the model {path} can't be put on device {device!r}: {error}") from error


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

    Queries whose prefix is the beginning of another's are answered by one forward pass.

    Args:
        model: The model, on its device.
        batch_tokens: Most tokens of one forward pass, padding included.
        max_length: Most tokens of a sequence; by default what the model's config says.
    """

    name = "transformers"
    merges_prefixes = True

    def __init__(self, model: nn.Module, batch_tokens: int = 16_384, max_length: int | None = None) -> None:
        self.model = model
        self.batch_tokens = batch_tokens
        config = model.config.get_text_config()  # type: ignore[union-attr, operator]
        longest = int(getattr(config, "max_position_embeddings", 0) or 2**31)
        self.max_length = min(max_length or longest, longest)
        self.vocab_size = int(config.vocab_size)

    @torch.no_grad()
    def logprobs(self, queries: Sequence[Query]) -> list[np.ndarray]:
        """See `Engine.logprobs`."""
        training = self.model.training
        self.model.eval()
        answers: list[np.ndarray] = [np.empty(0)] * len(queries)
        try:
            for batch in self._batches(_merge_prefixes(queries)):
                self._answer(batch, queries, answers)
        finally:
            self.model.train(training)
        return answers

    def _batches(self, chains: list[list[tuple[int, int]]]) -> Iterator[list[list[tuple[int, int]]]]:
        """Chains by length, as many at a time as fit into `batch_tokens`."""
        batch: list[list[tuple[int, int]]] = []
        for chain in sorted(chains, key=lambda chain: -chain[-1][1]):
            width = batch[0][-1][1] if batch else chain[-1][1]
            if batch and (len(batch) + 1) * width > self.batch_tokens:
                yield batch
                batch = []
            batch.append(chain)
        if batch:
            yield batch

    def _answer(self, batch: list[list[tuple[int, int]]], queries: Sequence[Query], answers: list[np.ndarray]) -> None:
        width = max(chain[-1][1] for chain in batch)
        device = next(self.model.parameters()).device
        input_ids = torch.zeros((len(batch), width), dtype=torch.long)
        attention_mask = torch.zeros_like(input_ids)
        for b, chain in enumerate(batch):
            index, length = chain[-1]
            input_ids[b, width - length :] = torch.tensor(queries[index].prefix)
            attention_mask[b, width - length :] = 1
        keep = max(chain[-1][1] - length + 1 for chain in batch for _, length in chain)
        logits = self.model(
            input_ids=input_ids.to(device),
            attention_mask=attention_mask.to(device),
            position_ids=(attention_mask.cumsum(-1) - 1).clamp(min=0).to(device),
            logits_to_keep=keep,
            use_cache=False,
        ).logits  # (B, keep, V)
        for b, chain in enumerate(batch):
            last = chain[-1][1]
            for index, length in chain:
                row = logits[b, keep - 1 - (last - length)].float()
                chosen = row[torch.tensor(queries[index].token_ids, device=device)] - row.logsumexp(-1)
                answers[index] = chosen.double().cpu().numpy()


def _merge_prefixes(queries: Sequence[Query]) -> list[list[tuple[int, int]]]:
    """Chains of (query index, prefix length), each prefix the beginning of the next one in its chain."""
    chains: list[list[tuple[int, int]]] = []
    previous: tuple[int, ...] = ()
    for index in sorted(range(len(queries)), key=lambda i: queries[i].prefix):
        prefix = queries[index].prefix
        if chains and prefix[: len(previous)] == previous:
            chains[-1].append((index, len(prefix)))
        else:
            chains.append([(index, len(prefix))])
        previous = prefix
    return chains
