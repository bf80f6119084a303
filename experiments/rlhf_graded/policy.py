"""The policy: what it learns first, and how it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from instructions import first_lessons, prompt_row
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from rmkit.data.graded import Instruction

MAX_NEW_TOKENS = 192  # the longest generated response of these tasks takes fewer
TRAINER_OPTIONS: dict[str, Any] = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "save_strategy": "no",
    "report_to": [],
    "disable_tqdm": True,
}
"""What both trainings ask of TRL: a CPU, and nothing written or shown on the way."""

_BATCH = 64


def teach_first(model: Path, output: Path, lessons: int, batch: int, seed: int) -> None:
    """Train a model on generated responses of all qualities with TRL's `SFTTrainer`, and save it: the start."""
    config = SFTConfig(
        output_dir=str(output),
        per_device_train_batch_size=batch,
        num_train_epochs=1,
        learning_rate=3e-3,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        adam_beta2=0.98,
        max_length=None,
        seed=seed,
        logging_steps=100,
        **TRAINER_OPTIONS,
    )
    trainer = SFTTrainer(str(model), args=config, train_dataset=Dataset.from_list(first_lessons(lessons, seed)))
    trainer.train()
    trainer.save_model()


@torch.no_grad()
def write_responses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    instructions: Sequence[Instruction],
    seed: int,
    temperature: float = 1.0,
) -> list[str]:
    """One sampled response to each instruction; the random numbers come from the seed and are put back."""
    assert tokenizer.padding_side == "left", "a response would follow the padding"
    writer: Any = model  # transformers types neither templates nor generation in a way that can be used
    was_training = model.training
    model.eval()
    responses = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for start in range(0, len(instructions), _BATCH):
            encoded: Any = tokenizer.apply_chat_template(
                [prompt_row(instruction)["prompt"] for instruction in instructions[start : start + _BATCH]],
                add_generation_prompt=True,
                padding=True,
                return_tensors="pt",
                return_dict=True,
            )
            written = writer.generate(
                input_ids=encoded["input_ids"],
                attention_mask=encoded["attention_mask"],
                max_new_tokens=MAX_NEW_TOKENS,
                do_sample=True,
                temperature=temperature,
                top_k=0,
            )
            responses += tokenizer.batch_decode(written[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
    model.train(was_training)
    return responses
