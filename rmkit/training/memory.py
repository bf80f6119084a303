"""How much memory a training step takes on each rank: what ZeRO holds, by its stage.

What is said of ZeRO is that of DeepSpeed 0.19.8, read in its source and counted in runs of two ranks. All sizes are
bytes on one rank. The formulas below write N for all parameters, M for those that are trained, R for the ranks, and b
for the bytes of the training dtype: 2 for bfloat16, 4 for float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rmkit.training.model_shape import ModelShape, Weight

MASTER, STATES = 4, 8
"""Bytes of a float32 master weight, and of AdamW's two float32 moments."""

PACKED = 0.5 + (1 + 4 / 256) / 64
"""Bytes of a weight in 4 bits: NF4, a byte for the largest of each 64, and a float32 for each 256 of those bytes."""

_OPTIMIZER_STATES = {"sgd": 0, "adafactor": 0, "adamw_8bit": 2, "adamw_bnb_8bit": 2, "paged_adamw_8bit": 2}
"""Bytes of states for each parameter where the optimizer is not AdamW; adafactor's rows and columns count as none."""


@dataclass(frozen=True, slots=True)
class Term:
    """One part of the memory of a rank.

    Args:
        name: What it is.
        backward: Bytes on the GPU while the backward pass runs.
        step: Bytes on the GPU while the optimizer steps.
        cpu: Bytes in the CPU's memory, where it is offloaded.
    """

    name: str
    backward: float
    step: float
    cpu: float = 0.0


@dataclass(frozen=True, slots=True)
class ZeroLayout:
    """How parameters, gradients and optimizer states lie on the ranks.

    Args:
        stage: 0 is without DeepSpeed: every rank holds everything.
        ranks: GPUs.
        itemsize: Bytes of the training dtype.
        adapter_itemsize: Bytes of a LoRA parameter's dtype.
        accumulation: Micro-batches of a step.
        state_bytes: Optimizer states of one parameter in float32.
        offloads_optimizer: Whether the optimizer and its states are in the CPU's memory.
        offloads_parameters: Whether the parameters are, under stage 3.
        bucket: Elements of a bucket of gradients.
        buckets: How many of them there are in the backward pass.
        persistence: Largest parameter that stage 3 keeps whole, in elements.
        live: Most elements that stage 3 gathers ahead and keeps.
        sub_group: Elements that stage 3 steps at a time.
    """

    stage: int
    ranks: int
    itemsize: int
    adapter_itemsize: int
    accumulation: int = 1
    state_bytes: int = STATES
    offloads_optimizer: bool = False
    offloads_parameters: bool = False
    bucket: int = 0
    buckets: int = 0
    persistence: int = 0
    live: int = 0
    sub_group: int = 0

    @property
    def share(self) -> int:
        """Over how many ranks stage 3 splits parameters."""
        return self.ranks if self.stage == 3 else 1


def read_layout(
    config: Mapping[str, Any] | None,
    shape: ModelShape,
    ranks: int,
    itemsize: int,
    accumulation: int = 1,
    optimizer: str = "adamw_torch",
) -> ZeroLayout:
    """The layout that a DeepSpeed config gives, with DeepSpeed's defaults, and transformers' values for `auto`.

    Args:
        config: The config; None for no DeepSpeed.
        shape: The model.
        ranks: GPUs.
        itemsize: Bytes of the training dtype.
        accumulation: Micro-batches of a step.
        optimizer: transformers' name of it; what is not known counts as AdamW.
    """
    states = _OPTIMIZER_STATES.get(optimizer, STATES)
    zero = dict((config or {}).get("zero_optimization") or {})
    stage = int(zero.get("stage", 0))
    if stage == 0:  # peft keeps adapters in float32
        return ZeroLayout(0, ranks, itemsize, 4, accumulation, states)
    hidden = shape.text.hidden_size
    automatic = {
        "reduce_bucket_size": hidden * hidden,
        "stage3_param_persistence_threshold": 10 * hidden,
    }

    def number(name: str, default: float) -> int:
        value = zero.get(name, default)
        return int(automatic.get(name, default) if value == "auto" else value)

    overlaps = zero.get("overlap_comm")
    overlaps = stage == 3 if overlaps in (None, "auto") else bool(overlaps)
    offloads = {name: (zero.get(f"offload_{name}") or {}).get("device", "none") for name in ("optimizer", "param")}
    # Stages 1 and 2 fill one bucket, or two by turns, and reduce a copy; stage 3 has one.
    return ZeroLayout(
        stage=stage,
        ranks=ranks,
        itemsize=itemsize,
        adapter_itemsize=4 if stage == 3 else itemsize,  # the engine casts what zero.Init has not made
        accumulation=accumulation,
        state_bytes=states,
        offloads_optimizer=offloads["optimizer"] != "none",
        offloads_parameters=stage == 3 and offloads["param"] != "none",
        bucket=number("reduce_bucket_size", 5e8),
        buckets=1 if stage == 3 else 2 + overlaps,
        persistence=number("stage3_param_persistence_threshold", 1e5),
        live=number("stage3_max_live_parameters", 1e9),
        sub_group=number("sub_group_size", 1e9),
    )


def state_terms(shape: ModelShape, layout: ZeroLayout) -> tuple[Term, ...]:
    """Parameters, gradients, optimizer states and their buffers on one rank.

    - Parameters: `b N`; under stage 3 `b N / R`, and whole those of at most `stage3_param_persistence_threshold`
      elements. Adapters are float32 without DeepSpeed and under stage 3. A base in 4 bits: `PACKED N`.
    - Gathered parameters, stage 3: at most `b` times `stage3_max_live_parameters` and the largest parameter, or the
      whole model where that is smaller. An upper bound.
    - Gradients: without DeepSpeed `b M`. Under ZeRO `b M / R`; stage 1 holds `b M` while it accumulates. Beside it, at
      the step, a float32 copy of what is stepped: `4 M / R`, under stage 3 at most `4 sub_group_size`. Under
      stages 1 and 2 adapters, one group of the optimizer, have the copy alone.
    - Optimizer: master weights in float32 and AdamW's moments, `(4 + 8) M / R`, in float32 training as well; without
      DeepSpeed only the moments, in the parameters' own dtype, `2 b M`.
    - Gradient buckets: `b` times `reduce_bucket_size`, however small the model, times 2 under stages 1 and 2 and times
      3 with `overlap_comm`, there while the backward pass runs. Without DeepSpeed, DistributedDataParallel's: `b M`.
    - Offloaded optimizer: optimizer, float32 gradients and what accumulates, `(12 + 4 + b) M / R`, move to the CPU;
      under stages 1 and 2 with a copy of the parameters, `b M / R`, and a buffer on both sides of the largest one.
    - Offloaded parameters: `b N / R` move to the CPU.
    """
    terms = [_parameters(shape.weights, layout)]
    if layout.stage == 3:
        terms.append(_gathered(shape.weights, layout))
    trained = [weight for weight in shape.weights if weight.is_trained]
    return (*terms, _gradients(trained, layout), _optimizer(trained, layout), _buckets(trained, layout))


def _parameters(weights: Iterable[Weight], layout: ZeroLayout) -> Term:
    weights = list(weights)
    split = sum(_split(weight, layout.share) * _itemsize(weight, layout) for weight in weights)
    if layout.stage < 3:
        return Term("parameters", split, split)
    kept = sum(weight.numel * _itemsize(weight, layout) for weight in weights if _persists(weight, layout))
    on_gpu = 0 if layout.offloads_parameters else split
    return Term("parameters", on_gpu + kept, on_gpu, split - on_gpu)


def _gathered(weights: Iterable[Weight], layout: ZeroLayout) -> Term:
    sizes = [weight.numel for weight in weights if not _persists(weight, layout)]
    elements = min(sum(sizes), layout.live + max(sizes, default=0))
    return Term("gathered parameters, at most", elements * layout.itemsize, 0)


def _gradients(trained: Iterable[Weight], layout: ZeroLayout) -> Term:
    trained = list(trained)
    if layout.stage == 0:
        whole = sum(weight.numel * _itemsize(weight, layout) for weight in trained)
        return Term("gradients", whole, whole)
    part = sum(_split(weight, layout.ranks) for weight in trained)
    held, precise = part * layout.itemsize, part * MASTER
    if layout.offloads_optimizer:
        accumulated = held if layout.stage == 3 or layout.accumulation > 1 else 0
        return Term("gradients", 0, 0, precise + accumulated)
    backward = held
    if layout.stage == 1 and layout.accumulation > 1:
        backward = sum(weight.numel for weight in trained) * layout.itemsize
    if layout.stage == 3:
        precise = min(precise, layout.sub_group * MASTER)
    if layout.stage < 3 and all(weight.is_adapter for weight in trained):
        return Term("gradients", backward, precise)
    return Term("gradients", backward, held + precise)


def _optimizer(trained: Iterable[Weight], layout: ZeroLayout) -> Term:
    trained = list(trained)
    if layout.stage == 0:
        states = sum(weight.numel * _itemsize(weight, layout) for weight in trained) * layout.state_bytes / MASTER
        return Term("optimizer states", states, states)
    part = sum(_split(weight, layout.ranks) for weight in trained)
    held = part * (MASTER + layout.state_bytes)
    if not layout.offloads_optimizer:
        return Term("optimizer and master weights", held, held)
    largest = max((weight.numel for weight in trained), default=0) * layout.itemsize if layout.stage < 3 else 0
    copies = part * layout.itemsize if layout.stage < 3 else 0
    return Term("optimizer and master weights", largest, largest, held + copies + largest)


def _buckets(trained: Iterable[Weight], layout: ZeroLayout) -> Term:
    if layout.stage == 0:
        size = sum(weight.numel * _itemsize(weight, layout) for weight in trained) if layout.ranks > 1 else 0
        return Term("gradient buckets", size, size)
    size = layout.bucket * layout.buckets * layout.itemsize
    return Term("gradient buckets", size, size if layout.stage == 3 else 0)


def _split(weight: Weight, ranks: int) -> int:
    return math.ceil(weight.numel / ranks)


def _itemsize(weight: Weight, layout: ZeroLayout) -> float:
    if weight.is_packed:
        return PACKED
    return layout.adapter_itemsize if weight.is_adapter else layout.itemsize


def _persists(weight: Weight, layout: ZeroLayout) -> bool:
    return weight.numel <= layout.persistence
