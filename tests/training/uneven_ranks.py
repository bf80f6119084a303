"""Trains by SGD on examples of which every second one has no score position; writes what was logged, and the weights.

    torchrun --nproc_per_node 2 tests/training/uneven_ranks.py zero3 OUTPUT

With two ranks and batches of one, in order, the second rank never sees a score token; the last steps have none on
either rank. In place of `zero3`: `zero1`, `zero2`, `ddp` without DeepSpeed, or `none`, one process that takes two rows
a time. A third argument, `wide`, makes batches of eight in one step: eight rows, or four on each of two ranks.
"""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from deepspeed import zero
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from rmkit.judge_encoder import JudgeEncoder
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Message, RatedResponse
from rmkit.training.collation import JudgeCollator
from rmkit.training.examples import Example, ExampleDataset
from rmkit.training.run import load_trainable
from rmkit.training.settings import read_settings
from rmkit.training.shutdown import end_process
from rmkit.training.tiny_model import save_tiny_model, train_tokenizer
from rmkit.training.trainer import JudgeTrainer

RUBRIC = Rubric("two", (Attribute("helpfulness", "Helpfulness"), Attribute("overall", "Overall", "", 0, 20)))
STEPS, ACCUMULATION = 4, 2


def main() -> None:
    setup, output = sys.argv[1], Path(sys.argv[2])
    wide = sys.argv[3:] == ["wide"]
    ranks = 1 if setup == "none" else 2
    rows = [
        RatedResponse(
            f"r/{n}a",
            "",
            (Message("user", "Hello? " * n),),
            "Well. " * (9 - n % 9),
            {"helpfulness": 5, "overall": n},
            derived=("helpfulness",) if n % 4 == 2 else (),
        )
        for n in range(2 * STEPS * ACCUMULATION)
    ]
    texts = [row.response + "Helpfulness: Overall: Hello? 0123456789" for row in rows]
    if not (output / "model").exists():  # the other setups come after this one, and find its model
        save_tiny_model(texts, output / "model", 300, layers=1, width=64, max_length=1024)
    options = ["--model", str(output / "model"), "--data", "none", "--output_dir", str(output / setup)]
    options += ["--max_steps", str(STEPS), "--learning_rate", "0.01", "--logging_steps", "1", "--max_grad_norm", "0"]
    options += ["--train_sampling_strategy", "sequential", "--use_cpu", "true", "--save_strategy", "no"]
    options += ["--eval_strategy", "no", "--load_best_model_at_end", "false", "--preset", "released"]
    options += ["--preference_loss", "oprm"]
    batch, accumulation = (8, 1) if wide else (2, ACCUMULATION)
    options += ["--per_device_train_batch_size", str(batch // ranks)]
    options += ["--gradient_accumulation_steps", str(accumulation), "--optim", "sgd"]
    if setup.startswith("zero"):
        options += ["--deepspeed", _write_zero(setup, output)]
    settings = read_settings(options)
    encoder = JudgeEncoder(train_tokenizer(texts, 300), RUBRIC)
    examples = ExampleDataset(encoder, rows).examples
    last = 2 * ACCUMULATION * (STEPS - 1)
    # Every fourth item is a comparison: the second rank has none, the first one has them in half of its batches.
    items = [
        (without_scores(e),) if n % 2 or n >= last else (e, worse(e)) if n % 4 else (e,)
        for n, e in enumerate(examples)
    ]
    trainer = JudgeTrainer(
        model=load_trainable(settings.model, settings.training),
        args=settings.training,
        train_dataset=items,
        data_collator=JudgeCollator(0, settings.loss.settings()),
        loss_settings=settings.loss.settings(),
    )
    trainer.train()
    weights = {}
    for part, parameter in trainer.accelerator.unwrap_model(trainer.model).named_parameters():
        with gather_parameter(parameter):
            weights[part] = parameter.detach().flatten()[:200].tolist()
    if settings.training.process_index == 0:
        log = [line for line in trainer.state.log_history if "loss" in line]
        zero3 = is_deepspeed_zero3_enabled()
        name = f"{setup}{'_wide' if wide else ''}.json"
        (output / name).write_text(
            json.dumps({"log": log, "zero3": zero3, "ranks": ranks, "weights": weights}), "utf-8"
        )


def _write_zero(setup: str, output: Path) -> str:
    """The project's configuration of a ZeRO stage; stage 1 is stage 2's with another number."""
    config = json.loads(Path(f"train/deepspeed/{'zero3' if setup == 'zero3' else 'zero2'}.json").read_text("utf-8"))
    config["zero_optimization"]["stage"] = int(setup[-1])
    path = output / f"{setup}_config.json"
    path.write_text(json.dumps(config), "utf-8")
    return str(path)


def gather_parameter(parameter: torch.nn.Parameter) -> AbstractContextManager[Any]:
    return zero.GatheredParameters([parameter]) if hasattr(parameter, "ds_id") else nullcontext()


def worse(example: Example) -> Example:
    """The other side of a comparison on helpfulness, which the one given has won."""
    (first, *others) = example.positions
    ids = list(example.completion_ids)
    ids[first.index] = first.choice.token_ids[0]
    return replace(example, completion_ids=tuple(ids), positions=(replace(first, score=1, label=0), *others))


def without_scores(example: Example) -> Example:
    return replace(example, positions=(), derived=frozenset())


if __name__ == "__main__":
    main()
    end_process(0)
