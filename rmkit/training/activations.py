"""How much memory a micro-batch takes beside parameters, gradients and optimizer: activations, head and loss.

The formulas are those of a dense decoder of transformers (Llama, Mistral, Qwen2, Qwen3), whose layers keep for the
backward pass what autograd keeps of these operations, with sdpa, varlen or flash attention, which keep no scores. The
loss at the head keeps no logits: see `rmkit.training.fused_head`.

Symbols: T tokens computed, K keys (T, or more where segments of shared prompts read those before them), R tokens with
a label; H the hidden size, F the intermediate size, Q and G the widths of all queries and of all keys, A the heads,
V the vocabulary, L the layers; b the bytes of the training dtype.
"""

from __future__ import annotations

from dataclasses import dataclass

from rmkit.training.fused_head import tile_columns
from rmkit.training.memory import Term, ZeroLayout
from rmkit.training.model_shape import ModelShape

_FLOAT32 = 4


@dataclass(frozen=True, slots=True)
class BatchSize:
    """The sizes of a micro-batch.

    Args:
        tokens: T, what the model computes, padding included.
        keys: K, what attention reads; `tokens` where nothing is shared.
        labels: R, tokens with a label.
        mask: Elements of a mask over rows, queries and keys, where rows are padded; else 0.
    """

    tokens: int
    keys: int
    labels: int
    mask: int = 0


def activation_terms(
    shape: ModelShape, layout: ZeroLayout, batch: BatchSize, checkpointing: bool
) -> tuple[Term, Term, Term]:
    """What a micro-batch adds on one GPU, at the moment in the backward pass when it is most.

    - Activations: with gradient checkpointing the input of each layer, `b T H L`, and the last norm's, else what each
      layer keeps (`layer_bytes`), L times.
    - Working memory: the gradients that pass through a layer, `b T (2 F + 2 H)`, and with gradient checkpointing what
      one layer keeps.
    - Head and loss: R hidden states with their gradients, `(8 + 2 b) R H`; logits of a tile; the gradient of all
      hidden states, `b T H`; and that of the head's weight, `b V H` if it is trained, which is there before the
      backward pass begins and beside what has been accumulated.
    """
    text, b = shape.text, layout.itemsize
    layers, hidden = text.num_hidden_layers, text.hidden_size
    layer = layer_bytes(shape, layout, batch)
    last_norm = batch.tokens * hidden * ((b if _trains_all(shape) else 0) + _FLOAT32)
    masks = batch.mask  # a byte each
    if checkpointing:
        kept = b * batch.tokens * hidden * layers + last_norm + masks
    else:
        kept = layer * layers + last_norm + masks
    working = b * batch.tokens * (2 * text.intermediate_size + 2 * hidden) + (layer if checkpointing else 0)
    return (
        Term("activations", kept, 0),
        Term("working memory of a layer", working, 0),
        Term("head and loss", _head_bytes(shape, layout, batch), 0),
    )


def layer_bytes(shape: ModelShape, layout: ZeroLayout, batch: BatchSize) -> int:
    """What one layer keeps for its backward pass.

    Without adapters, for each token: two norms, each with its input in float32 and its output, `2 (4 + b) H`; the
    inputs of attention and MLP, `2 b H`; queries and what attention gives, `2 b Q`; four tensors of the MLP, `4 b F`;
    and a float32 number for each head. For each key: keys and values, `2 b G`. Models that normalise queries and keys
    add `(4 + b) (Q + G)`. Padded rows have keys and values repeated for each query head, `2 b Q`, and a mask in the
    training dtype.

    With LoRA, frozen layers and norms keep no outputs and no inputs (`2 b H` for each norm and input is not kept), but
    each adapter keeps its input: as float32 where that is its dtype, three times H for attention, twice for the MLP,
    Q, and F; and its own r float32 numbers.
    """
    text, b, h, f = shape.text, layout.itemsize, shape.text.hidden_size, shape.text.intermediate_size
    q, g, heads = shape.query_size, shape.key_size, text.num_attention_heads
    token = 2 * _FLOAT32 * h + 2 * b * q + 3 * b * f + _FLOAT32 * (heads + 2)
    if _trains_all(shape):
        token += 2 * b * h + 2 * b * h + b * f
    elif layout.adapter_itemsize == b:
        token += 2 * b * h + b * f + 7 * b * shape.lora_rank
    else:
        token += layout.adapter_itemsize * (5 * h + q + f + 7 * shape.lora_rank)
    if shape.has_head_norms:
        token += _FLOAT32 * (q + g + heads + shape.key_heads) + (b * (q + g) if _trains_all(shape) else 0)
    keys = 2 * b * (batch.tokens * q if batch.mask else batch.keys * g)
    return batch.tokens * token + keys + b * batch.mask


def _head_bytes(shape: ModelShape, layout: ZeroLayout, batch: BatchSize) -> int:
    b, hidden, size = layout.itemsize, shape.text.hidden_size, shape.text.vocab_size
    rows = max(batch.labels, 1)
    columns = tile_columns(rows, size, hidden)
    # Few logits are all kept from the loss to its gradient, beside a copy; else a tile is there in two dtypes.
    tile = rows * columns * (2 * _FLOAT32 if columns == size else _FLOAT32 + b)
    weight = 0
    if _trains_all(shape) and (layout.stage > 0 or layout.accumulation > 1):
        weight = b * size * hidden
    return tile + (8 + 2 * b) * rows * hidden + b * batch.tokens * hidden + weight


def _trains_all(shape: ModelShape) -> bool:
    return shape.lora_rank == 0
