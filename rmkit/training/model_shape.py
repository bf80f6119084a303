"""A model's sizes without its weights: its config, and its parameters on torch's meta device, which holds nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from rmkit.errors import JudgeError
from rmkit.training.adapters import check_targets

_VARIANTS = ("-Instruct", "-Base")  # of one shape
_ADAPTER = "lora_"  # in the names of peft's parameters


@dataclass(frozen=True, slots=True)
class Weight:
    """One parameter.

    Args:
        name: As the model has it.
        numel: How many numbers it holds.
        is_trained: Whether it gets a gradient.
        is_packed: Whether it is held in 4 bits.
    """

    name: str
    numel: int
    is_trained: bool
    is_packed: bool = False

    @property
    def is_adapter(self) -> bool:
        """Whether peft added it."""
        return _ADAPTER in self.name


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a decoder and of all its parameters.

    Args:
        source: Where the sizes come from, in words.
        config: The whole config.
        weights: Its parameters, tied ones once, adapters included.
        lora_rank: Of the adapters; 0 for none.
    """

    source: str
    config: PreTrainedConfig
    weights: tuple[Weight, ...]
    lora_rank: int = 0

    @property
    def text(self) -> Any:
        """The config of the language model, which has hidden_size and the like."""
        return self.config.get_text_config()

    @property
    def query_size(self) -> int:
        """Width of all queries of a layer: heads times their size."""
        return self.text.num_attention_heads * self._head_size

    @property
    def key_size(self) -> int:
        """Width of all keys of a layer, and of all values."""
        return self.key_heads * self._head_size

    @property
    def key_heads(self) -> int:
        """Heads of keys and values."""
        return getattr(self.text, "num_key_value_heads", None) or self.text.num_attention_heads

    @property
    def _head_size(self) -> int:
        return getattr(self.text, "head_dim", None) or self.text.hidden_size // self.text.num_attention_heads

    @property
    def has_head_norms(self) -> bool:
        """Whether queries and keys are normalised, as in Qwen3."""
        return any(".q_norm." in weight.name for weight in self.weights)

    @property
    def dtype(self) -> torch.dtype:
        """That of the checkpoint, as its config has it; float32 where it says nothing."""
        dtype: Any = self.config.dtype or torch.float32
        return getattr(torch, dtype) if isinstance(dtype, str) else dtype

    @property
    def total(self) -> int:
        """All parameters."""
        return sum(weight.numel for weight in self.weights)

    @property
    def trained(self) -> int:
        """Parameters that get a gradient."""
        return sum(weight.numel for weight in self.weights if weight.is_trained)


def find_config(model: str, shapes: Path, revision: str | None = None) -> tuple[PreTrainedConfig, str]:
    """A model's config, and where it was found; nothing is downloaded.

    Args:
        model: A folder, which must have a config.json; or a hub id, which is looked for in the local cache, and then
            by its name in `shapes`.
        shapes: Folder of shape files, `NAME.json`: fields of a config.json.
        revision: Of a hub id.

    Raises:
        JudgeError: If it is nowhere.
    """
    if Path(model).is_dir():
        try:
            return AutoConfig.from_pretrained(model, trust_remote_code=False), f"{model}/config.json"
        except (OSError, ValueError) as error:
            raise JudgeError(f"the model folder {model}: its config can't be read: {error}") from error
    try:
        config = AutoConfig.from_pretrained(model, revision=revision, local_files_only=True, trust_remote_code=False)
        return config, "config.json in the hub's local cache"
    except (OSError, ValueError):  # not there
        pass
    files = {path.stem.lower(): path for path in shapes.glob("*.json")}
    names = [model.rpartition("/")[2]]
    names += [names[0].removesuffix(variant) for variant in _VARIANTS]
    for name in names:
        if name.lower() in files:
            return read_shape(files[name.lower()]), f"shape file {files[name.lower()].name}"
    known = ", ".join(sorted(path.stem for path in files.values()))
    raise JudgeError(
        f"the model {model} is no folder and not in the hub's local cache, and {shapes} has no shape of that name "
        f"(only {known}); save its config.json there as {names[0]}.json"
    )


def read_shape(path: Path) -> PreTrainedConfig:
    """The config in a shape file.

    Raises:
        JudgeError: If it is none.
    """
    try:
        return AutoConfig.for_model(**json.loads(path.read_text("utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise JudgeError(f"{path} is no shape of a model: {error}") from error


def measure_shape(
    config: PreTrainedConfig,
    source: str,
    lora_rank: int = 0,
    targets: str | Sequence[str] = "all-linear",
    packs: bool = False,
) -> ModelShape:
    """The parameters that a config gives, with LoRA adapters where a rank is given, and a base in 4 bits if it packs.

    Raises:
        JudgeError: If an adapter's target names no module.
        ValueError: If it is the config of no causal language model.
    """
    with torch.device("meta"):
        model: nn.Module = AutoModelForCausalLM.from_config(
            config, attn_implementation="sdpa", trust_remote_code=False
        )
        if lora_rank:
            from peft import LoraConfig, get_peft_model  # noqa: PLC0415 (only where LoRA is used)

            check_targets(model, targets)
            model = get_peft_model(model, LoraConfig(r=lora_rank, target_modules=targets, task_type="CAUSAL_LM"))  # type: ignore[arg-type]
        linear = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)} if packs else set()
        head = model.get_output_embeddings()  # type: ignore[operator]
    weights = tuple(
        Weight(name, p.numel(), p.requires_grad, id(p) in linear and p is not head.weight and _ADAPTER not in name)
        for name, p in model.named_parameters()
    )
    return ModelShape(source, config, weights, lora_rank)
