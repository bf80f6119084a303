"""Trains one step under each setup and writes the bytes of the tensors that this rank held, by what they are for.

    torchrun --nproc_per_node 2 tests/training/zero_memory.py OUTPUT SETUP...

A setup is a stage of ZeRO (0 for none), a dtype, and words: `1-bfloat16`, `3-float32-lora`, `2-bfloat16-offload`. Each
rank writes `OUTPUT/rankR.json`. Moments: `backward`, the most between two micro-batches or before the step; `step`,
where the optimizer's own step begins; and for the optimizer, whose states come to be there, the end of it. `other` are
tensors of no kind.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from deepspeed import DeepSpeedEngine
from transformers import TrainerCallback

from rmkit.judge_encoder import JudgeEncoder
from rmkit.losses import PRESETS
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Message, RatedResponse
from rmkit.training.collation import JudgeCollator
from rmkit.training.examples import ExampleDataset
from rmkit.training.run import load_trainable
from rmkit.training.settings import read_settings
from rmkit.training.shutdown import end_process
from rmkit.training.tiny_model import save_tiny_model, train_tokenizer
from rmkit.training.trainer import JudgeTrainer

BUCKET = 100_000  # elements; the model has ten million
RANK = int(os.environ["RANK"])


def main() -> None:
    warnings.simplefilter("ignore")  # of DeepSpeed, about torch
    output, setups = Path(sys.argv[1]), sys.argv[2:]
    rows = [RatedResponse(str(n), "", (Message("user", "Hello? " * n),), "Well.", {"help": 5}) for n in range(8)]
    texts = [row.response + "Help: Hello? 0123456789" for row in rows]
    tokenizer = train_tokenizer(texts, 300)
    examples = ExampleDataset(JudgeEncoder(tokenizer, Rubric("one", (Attribute("help", "Help"),))), rows)
    model = output / f"model{RANK}"  # one for each rank, so that none waits for another
    save_tiny_model(texts, model, 300, layers=12, width=256, max_length=512)
    found = {setup: _train(setup, model, output, examples) for setup in setups}
    (output / f"rank{RANK}.json").write_text(json.dumps(found), "utf-8")
    end_process(0)


def _train(setup: str, model: Path, output: Path, examples: ExampleDataset) -> dict[str, dict[str, int]]:
    stage, dtype, *words = setup.split("-")
    options = ["--model", str(model), "--data", "none", "--output_dir", str(output / "out"), "--use_cpu", "true"]
    options += ["--max_steps", "1", "--save_strategy", "no", "--eval_strategy", "no", "--report_to", "none"]
    options += ["--load_best_model_at_end", "false", "--per_device_train_batch_size", "2"]
    options += ["--gradient_accumulation_steps", "2", "--dtype", dtype, "--bf16", str(dtype == "bfloat16")]
    options += ["--lora", str("lora" in words)]
    if stage != "0":
        options += ["--deepspeed", _write_config(int(stage), "offload" in words, output)]
    settings = read_settings(options)
    before = set(_storages(_all_tensors()))
    trained = load_trainable(settings.model, settings.training)
    ledger = Ledger(before)
    trainer = JudgeTrainer(
        model=trained,
        args=settings.training,
        train_dataset=examples,
        data_collator=JudgeCollator(0, PRESETS["paper"]),
        loss_settings=PRESETS["paper"],
        callbacks=[ledger],
    )
    own = DeepSpeedEngine.backward, DeepSpeedEngine.step
    DeepSpeedEngine.backward, DeepSpeedEngine.step = ledger.around(own[0]), ledger.around(own[1])
    trainer.train()
    DeepSpeedEngine.backward, DeepSpeedEngine.step = own
    AcceleratorState._reset_state(True)
    return ledger.found


class Ledger(TrainerCallback):
    """Counts bytes around DeepSpeed's passes, or at the events of a trainer without DeepSpeed."""

    def __init__(self, before: set[int]) -> None:
        self.before = before
        self.found: dict[str, dict[str, int]] = {"backward": {}, "step": {}}

    def around(self, inner: Any) -> Any:
        def pass_on(engine: Any, *args: Any, **kwargs: Any) -> Any:
            base = getattr(engine.optimizer, "optimizer", None)
            if inner.__name__ == "step" and base is not None:
                step = base.step
                base.step = lambda *a, **k: (self.note("step", engine.module, engine.optimizer), step(*a, **k))[1]
            result = inner(engine, *args, **kwargs)
            self.note("backward", engine.module, engine.optimizer)
            if inner.__name__ == "step" and base is not None:
                base.step = step
            return result

        return pass_on

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if "optimizer" in kwargs and args.deepspeed is None:
            self.note("step", kwargs["model"], kwargs["optimizer"])
            self.note("backward", kwargs["model"], kwargs["optimizer"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.deepspeed is None:
            self.note("backward", kwargs["model"], kwargs["optimizer"])

    def note(self, moment: str, model: torch.nn.Module, optimizer: Any) -> None:
        """Keep the most bytes of each kind that this moment has shown."""
        kinds = _sort(model, optimizer)
        sizes = {name: sum(tensors.values()) for name, tensors in kinds.items()}
        if moment == "step" and not self.found["step"]:  # once: to look at all objects there are takes a second
            known = self.before.union(*kinds.values())
            sizes["other"] = sum(size for key, size in _storages(_all_tensors()).items() if key not in known)
        for name, size in sizes.items():
            self.found[moment][name] = max(self.found[moment].get(name, 0), size)


def _sort(model: torch.nn.Module, optimizer: Any) -> dict[str, dict[int, int]]:
    """The tensors of a model and its optimizer: each storage once, in the first kind that has it."""
    parameters = list(model.parameters())
    inner = getattr(optimizer, "optimizer", optimizer)
    masters = getattr(optimizer, "single_partition_of_fp32_groups", None)
    masters = masters or getattr(optimizer, "fp32_partitioned_groups_flat", [])
    lists: dict[str, Any] = {
        "buckets": [bucket.buffer for bucket in getattr(optimizer, "ipg_buckets", {}).values()],
        "parameters": [[p.data, getattr(p, "ds_tensor", None)] for p in parameters],
        "optimizer": [
            *(masters, list(inner.state.values())),
            getattr(optimizer, "param_buffer_of_bit16_for_cpu_offload_groups", []),
            *(getattr(optimizer, f"temp_grad_buffer_for_{side}_offload", None) for side in ("cpu", "gpu")),
        ],
        "gradients": [
            [[p.grad, getattr(p, "grad_accum", None)] for p in parameters],
            [master.grad for master in masters],
            *(getattr(optimizer, name, None) for name in ("averaged_gradients", "all_grad_tensors")),
            *(getattr(optimizer, name, None) for name in ("grad_partitions_flat_buffer", "accumulated_grads_in_cpu")),
        ],
    }
    kinds: dict[str, dict[int, int]] = {}
    seen: set[int] = set()
    for name, tensors in lists.items():
        kinds[name] = {key: size for key, size in _storages(_walk(tensors)).items() if key not in seen}
        seen |= kinds[name].keys()
    return kinds


def _walk(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _walk(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _walk(item)


def _all_tensors() -> Iterator[torch.Tensor]:
    gc.collect()
    return (item for item in gc.get_objects() if isinstance(item, torch.Tensor))


def _storages(tensors: Iterable[torch.Tensor]) -> dict[int, int]:
    """Bytes of each storage, by its address."""
    storages = [tensor.untyped_storage() for tensor in tensors if tensor.device.type == "cpu"]
    return {storage.data_ptr(): storage.nbytes() for storage in storages if storage.nbytes()}


def _write_config(stage: int, offloads: bool, output: Path) -> str:
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": True, "reduce_bucket_size": BUCKET}
    if offloads:
        zero |= {
            "offload_optimizer": {"device": "cpu"},
            **({"offload_param": {"device": "cpu"}} if stage == 3 else {}),
        }
    names = ("gradient_accumulation_steps", "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_clipping")
    config = {name: "auto" for name in names}
    path = output / f"zero{RANK}.json"
    own = {"bf16": {"enabled": "auto"}, "zero_allow_untested_optimizer": True}
    path.write_text(json.dumps({"zero_optimization": zero, **own, **config}), "utf-8")
    return str(path)


if __name__ == "__main__":
    main()
