"""How long a training step takes on a named GPU, if it reaches an assumed share of its published rate."""

from __future__ import annotations

from rmkit.training.gpus import Gpu
from rmkit.training.model_shape import ModelShape


def count_operations(shape: ModelShape, tokens: float, pairs: float, labels: float, checkpointing: bool) -> float:
    """Floating-point operations of forward and backward passes over a number of tokens.

    For P weights of the layers' linear modules, of which D are trained, T tokens and R of them with a label, H the
    hidden size, F the intermediate size, V the vocabulary, Q the width of all queries and L the layers:

    - Linear modules: `2 P T` forward, `2 P T` for the gradients of their inputs, `2 D T` for those of weights.
    - Attention: `4 Q L` forward for each pair of query and key, twice that backward.
    - Head: `2 R H V` for logits, made twice, as much for hidden states, and for its weight if that is trained.
    - Gradient checkpointing makes the forward pass of the layers a second time, but for the last product of each,
      which torch leaves out where nothing trained follows it: `2 H F T L`.

    Args:
        shape: The model.
        tokens: T.
        pairs: Pairs of query and key that attention computes in each layer.
        labels: R.
        checkpointing: Whether layers are computed a second time.
    """
    text = shape.text
    head = text.vocab_size * text.hidden_size
    linear = [weight for weight in shape.weights if weight.numel > 8 * text.hidden_size and weight.numel != head]
    total = sum(weight.numel for weight in linear)
    trained = sum(weight.numel for weight in linear if weight.is_trained)
    forward = 2 * total * tokens + 4 * shape.query_size * text.num_hidden_layers * pairs
    attention = 8 * shape.query_size * text.num_hidden_layers * pairs
    backward = 2 * (total + trained) * tokens + attention
    rounds = 4 if shape.lora_rank == 0 else 3
    again = 0.0
    if checkpointing:
        last = 0 if shape.lora_rank else 2 * text.hidden_size * text.intermediate_size * text.num_hidden_layers
        again = forward - last * tokens
    return forward + again + backward + rounds * 2 * labels * head


def step_seconds(operations: float, ranks: int, gpu: Gpu, share: float) -> float:
    """Seconds of a step of all ranks together; no communication, no offload, no reading of data.

    Args:
        operations: Of the step, on all ranks.
        ranks: GPUs.
        gpu: Which.
        share: Of its published rate, in (0, 1].
    """
    return operations / (ranks * gpu.rate * share)
