"""DeepSpeed's configuration, checked before it is used, for DeepSpeed passes over keys that it does not know."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rmkit.errors import DataError

TOP_LEVEL = (
    *("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"),
    *("optimizer", "scheduler", "zero_optimization", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer"),
    *("bf16", "bfloat16", "fp16", "amp", "torch_autocast", "data_types", "communication_data_type"),
    *("seq_parallel_communication_data_type", "gradient_predivide_factor", "gradient_allreduce_op"),
    *("prescale_gradients", "managed_gradient_accumulation", "sparse_gradients", "disable_allgather"),
    *("activation_checkpointing", "sparse_attention", "checkpoint", "datastates_ckpt", "nebula", "aio", "compile"),
    *("tensor_parallel", "expert_parallel", "use_data_before_expert_parallelism", "pipeline", "hybrid_engine"),
    *("steps_per_print", "wall_clock_breakdown", "memory_breakdown", "dump_state", "log_level", "timers"),
    *("flops_profiler", "autotuning", "comms_logger", "tensorboard", "wandb", "comet", "csv_monitor"),
    *("elasticity", "eigenvalue", "progressive_layer_drop", "curriculum_learning", "data_efficiency"),
    *("compression_training", "weight_quantization", "quantize_training", "graph_harvesting"),
    *("dataloader_drop_last", "disable_python_gc", "vocabulary_size"),
)
"""What DeepSpeed 0.19 reads at the top of its file."""


def read_deepspeed_config(value: str | Mapping[str, Any]) -> dict[str, Any]:
    """The configuration that `--deepspeed` names, or holds: a file, a JSON text or a mapping.

    Raises:
        DataError: If it can't be read, or holds a key that DeepSpeed does not know (with the nearest one) or a
            value that it does not take.
    """
    where, config = "deepspeed", value
    if isinstance(value, str):
        text = value
        if not value.lstrip().startswith("{"):
            where, path = value, Path(value)
            try:
                text = path.read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"deepspeed={value!r} can't be read: {error}; see train/deepspeed/") from error
        try:
            config = json.loads(text)
        except ValueError as error:
            raise DataError(f"{where}: can't be read as JSON: {error}") from error
    if not isinstance(config, Mapping):
        raise DataError(f"{where}: expected a JSON object, found {type(config).__name__}")
    for key in config:
        if key not in TOP_LEVEL:
            raise DataError(f"{where}: unknown key {key!r}{_hint(key, TOP_LEVEL)}")
    for problem in _problems(config):
        raise DataError(f"{where}: {problem}")
    return dict(config)


def zero_stage(config: Mapping[str, Any] | None) -> int:
    """The ZeRO stage of a configuration; 0 without one."""
    return int((config or {}).get("zero_optimization", {}).get("stage", 0))


def _problems(config: Mapping[str, Any]) -> Iterator[str]:
    """What DeepSpeed's own classes say of the sections that they describe."""
    from deepspeed.runtime.precision_config import (  # noqa: PLC0415 (slow, and only where DeepSpeed is used)
        DeepSpeedBF16Config,
        DeepSpeedFP16Config,
    )
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig  # noqa: PLC0415
    from deepspeed.runtime.zero.offload_config import (  # noqa: PLC0415
        DeepSpeedZeroOffloadOptimizerConfig,
        DeepSpeedZeroOffloadParamConfig,
    )
    from pydantic import ValidationError  # noqa: PLC0415 (DeepSpeed's)

    offload = (*DeepSpeedZeroOffloadOptimizerConfig.model_fields, *DeepSpeedZeroOffloadParamConfig.model_fields)
    sections = {"zero_optimization": DeepSpeedZeroConfig, "bf16": DeepSpeedBF16Config, "fp16": DeepSpeedFP16Config}
    for name, model in sections.items():
        section = config.get(name, {})
        if not isinstance(section, Mapping):
            yield f"{name}: expected a JSON object, found {section!r}"
            continue
        try:
            model(**{key: value for key, value in section.items() if value != "auto"})
        except ValidationError as error:
            for problem in error.errors():
                *path, last = (str(part) for part in problem["loc"])
                place = ".".join((name, *path))
                if problem["type"] == "extra_forbidden":
                    yield f"{place}: unknown key {last!r}{_hint(last, offload if path else tuple(model.model_fields))}"
                else:
                    yield f"{place}.{last}: {problem['msg']}, found {problem['input']!r}"


def _hint(key: str, known: tuple[str, ...]) -> str:
    nearest = difflib.get_close_matches(str(key), known, n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
