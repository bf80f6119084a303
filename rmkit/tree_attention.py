"""Attention over a `PrefixTree`: each token sees what stands before it in its sequences, wherever that lies.

It is an attention of transformers' `AttentionInterface`, so that the model's own forward runs. Without a tree it is
PyTorch's scaled dot-product attention, as `sdpa`.

Shapes: T tokens to compute, S segments, Q and K the query and key heads, D the head size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AttentionInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from rmkit.prefix_tree import PrefixTree

NAME = "rmkit_tree"
"""What transformers calls it: the model's `attn_implementation`."""

QUERIES = 128
"""Most queries of a segment behind others that are computed at a time, where there is no variable-length attention."""


def attend_tree(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    tree_keys: torch.Tensor | None = None,
    tree_query_ends: torch.Tensor | None = None,
    tree_key_ends: torch.Tensor | None = None,
    tree_longest: tuple[int, int] = (0, 0),
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one layer, as transformers calls it.

    Args:
        module: The attention layer.
        query: (1, Q, T, D).
        key: (1, K, P, D), of all P tokens that are laid down, those of a cache included.
        value: (1, K, P, D).
        attention_mask: Ignored with a tree, which says all.
        dropout: Share of attention weights to drop.
        scaling: What scores are multiplied by; by default 1 / sqrt(D).
        tree_keys: See `tree_inputs`.
        tree_query_ends: See `tree_inputs`.
        tree_key_ends: See `tree_inputs`.
        tree_longest: See `tree_inputs`.
        **kwargs: As for `sdpa`.

    Returns:
        What the layer's values come to, (1, T, Q, D), and None.

    Raises:
        ValueError: If the layer asks for more than the tree says, such as a sliding window.
    """
    if tree_keys is None or tree_query_ends is None or tree_key_ends is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    window = kwargs.get("sliding_window") or tree_longest[1]
    if window < tree_longest[1] or any(kwargs.get(name) is not None for name in ("position_bias", "s_aux", "softcap")):
        raise ValueError(f"{type(module).__name__} asks for a window, bias, sink or cap that a tree can't give")
    # The keys of all segments one after the other, each with those of its beginning before its own.
    keys, values = (tensor[0].transpose(0, 1).index_select(0, tree_keys) for tensor in (key, value))  # (.., K, D)
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and not dropout:
        from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415 (CUDA only)

        found: Any = varlen_attn(
            query[0].transpose(0, 1),
            keys,
            values,
            tree_query_ends,
            tree_key_ends,
            *tree_longest,
            scale=scaling,
            window_size=(-1, 0),
            enable_gqa=key.shape[1] != query.shape[1],
        )
        return found.unsqueeze(0), None
    groups = query.shape[1] // key.shape[1]
    lengths, key_counts = tree_query_ends.diff().tolist(), tree_key_ends.diff().tolist()
    parts = []
    for mine, *theirs in zip(query.split(lengths, 2), keys.split(key_counts), values.split(key_counts), strict=True):
        k, v = (repeat_kv(tensor.transpose(0, 1).unsqueeze(0), groups) for tensor in theirs)
        parts += [
            functional.scaled_dot_product_attention(
                some,
                k[:, :, :seen],
                v[:, :, :seen],
                attn_mask=mask,
                dropout_p=dropout,
                is_causal=mask is None,
                scale=scaling,
            )
            for some, seen, mask in _queries(mine, k.shape[2])
        ]
    return torch.cat(parts, dim=2).transpose(1, 2), None


def _queries(query: torch.Tensor, keys: int) -> Iterator[tuple[torch.Tensor, int, torch.Tensor | None]]:
    """Some of a segment's queries at a time, how many of its keys they see, and which: a bool mask, or None if causal.

    With a mask PyTorch computes all pairs of a query and a key, so few queries at a time leave out most of those that
    the first of a segment don't see.
    """
    before = keys - query.shape[2]
    if before == 0:
        yield query, keys, None
        return
    for some in query.split(QUERIES, 2):
        seen = before + some.shape[2]
        mask = torch.ones((some.shape[2], seen), dtype=torch.bool, device=query.device).tril(before)
        yield some, seen, mask
        before = seen


def tree_inputs(tree: PrefixTree, start: int = 0) -> dict[str, Any]:
    """What a model with this attention is given for a tree, beside its own options.

    Args:
        tree: A tree with at least one segment from `start` on.
        start: The first segment to compute; keys and values of those before it are in the cache that goes with it.

    Returns:
        - `input_ids`, `position_ids`: int64, (1, T).
        - `attention_mask`: (1, 1, 1, 1), a placeholder: transformers makes no mask of its own beside a 4-D one.
        - `tree_keys`: int64, for each segment the places of what its tokens see, themselves last.
        - `tree_query_ends`, `tree_key_ends`: int32, (S + 1,), where each segment's queries and keys end, from 0.
        - `tree_longest`: most queries and most keys of a segment.
    """
    segments = tree.segments[start:]
    first = segments[0].places[-segments[0].length]
    lengths = [segment.length for segment in segments]
    keys = [len(segment.places) for segment in segments]
    return {
        "input_ids": torch.tensor([tree.token_ids[first:]]),
        "position_ids": torch.tensor([tree.positions[first:]]),
        "attention_mask": torch.ones((1, 1, 1, 1), dtype=torch.bool),
        "tree_keys": torch.tensor([place for segment in segments for place in segment.places]),
        "tree_query_ends": torch.tensor([0, *accumulate(lengths)], dtype=torch.int32),
        "tree_key_ends": torch.tensor([0, *accumulate(keys)], dtype=torch.int32),
        "tree_longest": (max(lengths), max(keys)),
    }


def use_tree_attention(model: nn.Module) -> None:
    """Let a model take trees, also inside a wrapper such as peft's; see `find_obstacle` for whether it can."""
    next(part for part in model.modules() if isinstance(part, PreTrainedModel)).set_attn_implementation(NAME)


def find_obstacle(config: PreTrainedConfig, attention: str, max_length: int) -> str | None:
    """Why a model can't take trees, or None if it can.

    It is tried: a small random model of the same class must give a tree the same hidden states as its sequences.

    Args:
        config: Of the model.
        attention: The attention that was asked for.
        max_length: Most tokens of a sequence; a sliding window that is as wide cuts nothing off.
    """
    if attention != "sdpa":
        return f"attn_implementation is {attention}, and only sdpa has a form for shared prompts"
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    if rope.get("rope_type") in ("dynamic", "longrope"):
        return f"its rotary positions ({rope['rope_type']}) depend on the longest sequence of a batch"
    window = getattr(text, "sliding_window", None)
    if window and window < max_length and getattr(text, "use_sliding_window", True):
        return f"it attends within a window of {window} tokens, and rows may have {max_length}"
    chunk = getattr(text, "attention_chunk_size", None)
    if chunk and chunk < max_length:
        return f"it attends within chunks of {chunk} tokens, and rows may have {max_length}"
    if getattr(text, "attn_temperature_tuning", False):
        return "it scales attention by a token's place in the batch, and a tree's places are not its positions"
    try:
        difference = _try_tree(_shrink(text))
    except Exception as error:  # noqa: BLE001 - any class of model, any way to refuse
        return f"a small {text.model_type} model could not be tried: {type(error).__name__}: {str(error)[:200]}"
    if difference > 1e-4:
        return f"a small {text.model_type} model gave other hidden states (by {difference:.2g}) when it was tried"
    return None


def _shrink(config: PreTrainedConfig) -> PreTrainedConfig:
    """The same architecture with two layers and little width."""
    small = copy.deepcopy(config)
    layers = min(int(config.num_hidden_layers), 4)
    sizes = {
        **{"num_hidden_layers": layers, "hidden_size": 64, "intermediate_size": 64, "vocab_size": 64},
        **{"num_attention_heads": 4, "head_dim": 16, "max_position_embeddings": 64},
        **{"pad_token_id": None, "bos_token_id": None, "eos_token_id": None},
    }
    kept = getattr(config, "num_key_value_heads", None)
    if kept is not None:
        sizes["num_key_value_heads"] = 2 if kept != config.num_attention_heads else 4
    for name, value in sizes.items():
        if hasattr(small, name):
            setattr(small, name, value)
    if getattr(small, "layer_types", None):
        small.layer_types = small.layer_types[:layers]
    return small


@torch.no_grad()
def _try_tree(config: PreTrainedConfig) -> float:
    """Largest difference of logits between a tree and its sequences, relative to the largest logit."""
    sequences = [(1, 2, 3, 4, 5, 6), (1, 2, 3, 4, 7, 8, 9), (1, 2, 3, 10, 11), (12, 13)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # The class itself: from_config would split the weights over ranks where ZeRO-3 is on.
        model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        model = model_class(config).eval()
    model.set_attn_implementation("sdpa")
    expected = [model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0] for tokens in sequences]
    use_tree_attention(model)
    tree = PrefixTree()
    places = [tree.add(tokens) for tokens in sequences]
    logits = model(**tree_inputs(tree), use_cache=False).logits[0]
    scale = max(float(rows.abs().max()) for rows in expected)
    found = [logits[list(where)] for where in places]
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) / max(scale, 1e-9)


AttentionInterface.register(NAME, attend_tree)
AttentionMaskInterface.register(NAME, sdpa_mask)  # for batches without a tree
