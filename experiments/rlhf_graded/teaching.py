"""GRPO with the judge as its reward, and a record of what the policy never sees: the true scores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from instructions import draft_instructions, prompt_row, prompt_text
from policy import MAX_NEW_TOKENS, TRAINER_OPTIONS, write_responses
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from true_scores import read_true_scores

from rmkit.data.graded import Instruction, true_aggregate
from rmkit.judge import Judge
from rmkit.rewards import JudgeReward
from rmkit.schema import Judgment
from rmkit.scores import aggregate, aggregate_scores

READINGS = ("expected", "rounded", "mode")
"""How a score is read off its distribution: the expectation, the expectation rounded, the likeliest score."""


class KeepingJudge(Judge):
    """A judge that keeps its judgements, so that a reward's can be looked up."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.kept: dict[tuple[str, str], Judgment] = {}

    def score(self, conversations: Sequence[Any], responses: Sequence[Any], *args: Any) -> list[Judgment]:
        """See `Judge.score`."""
        found = super().score(conversations, responses, *args)
        asked = [conversation[0].content for conversation in conversations]
        self.kept |= dict(zip(zip(asked, responses, strict=True), found, strict=True))
        return found


class RecordedReward:
    """The judge's reward as it is, with a line for each call.

    Args:
        judge: Judges.
        instructions: What is asked, to read true scores by.
        group: Completions of a prompt that are compared.
    """

    __name__ = "judge_reward"

    def __init__(self, judge: KeepingJudge, instructions: Sequence[Instruction], group: int) -> None:
        self.lines: list[dict[str, Any]] = []
        self._judge = judge
        self._reward = JudgeReward(judge)
        self._instructions = {prompt_text(instruction): instruction for instruction in instructions}
        self._group = group

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """Reward completions, and write down what they were worth."""
        started, used = time.perf_counter(), time.process_time()
        rewards = self._reward(prompts, completions, **columns)
        line: dict[str, Any] = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - used}
        texts = [(p[0]["content"], c[0]["content"]) for p, c in zip(prompts, completions, strict=True)]
        judged = [self._judge.kept.get(text) for text in texts]
        line["failed"] = sum(reward is None for reward in rewards)
        line["judge"] = _mean([j.aggregate for j in judged if j is not None and j.aggregate is not None])
        line["true"] = _mean([true_value(self._judge, self._instructions[prompt], text)[0] for prompt, text in texts])
        line["same"] = self._without_spread([hash(text) for text in texts])
        for reading in READINGS:
            line[reading] = self._without_spread([read_aggregate(self._judge, j, reading) for j in judged])
        self.lines.append(line)
        return rewards

    def _without_spread(self, values: Sequence[float | None]) -> float:
        """Share of groups in which all values are the same, which teach nothing."""
        groups = [values[start : start + self._group] for start in range(0, len(values), self._group)]
        return round(float(np.mean([len(set(group)) == 1 for group in groups])), 6)


def read_aggregate(judge: Judge, judgment: Judgment | None, reading: str) -> float | None:
    """The aggregate of a judgement's scores, each read as one of `READINGS`, to nine digits; None without any."""
    if judgment is None or judgment.aggregate is None:
        return None
    if reading == "rounded":
        return aggregate_scores(judge.rubric, {key: round(d.mean) for key, d in judgment.attributes.items()})
    return round(aggregate(judge.rubric, judgment.attributes, {"expected": "mean"}.get(reading, reading)), 9)


def true_value(judge: Judge, instruction: Instruction, text: str) -> tuple[float, dict[str, int]]:
    """The true aggregate in [0, 1], and the true scores."""
    scores = read_true_scores(instruction, text).scores
    return true_aggregate(judge.rubric, scores), scores


class Tests(TrainerCallback):
    """Has the policy answer the test instructions every few steps, and before the first.

    Args:
        judge: Judges the answers, which teaches nothing.
        tokenizer: The policy's.
        instructions: What is asked, the same each time.
        every: Steps between two tests.
    """

    def __init__(self, judge: Judge, tokenizer: Any, instructions: Sequence[Instruction], every: int) -> None:
        self.lines: list[dict[str, Any]] = []
        self._judge, self._tokenizer, self._instructions, self._every = judge, tokenizer, instructions, every

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Test the start."""
        self._test(0, kwargs["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Test now and then, and at the end."""
        if state.global_step % self._every == 0 or state.global_step == state.max_steps:
            self._test(state.global_step, kwargs["model"])

    def _test(self, step: int, model: Any) -> None:
        texts = write_responses(model, self._tokenizer, self._instructions, seed=0)
        judged = self._judge.score([instruction.conversation for instruction in self._instructions], texts)
        values = [true_value(self._judge, *pair) for pair in zip(self._instructions, texts, strict=True)]
        keys = self._judge.rubric.keys
        self.lines.append(
            {
                "step": step,
                "true": [round(value, 6) for value, _ in values],
                "judge": [None if j.aggregate is None else round(j.aggregate, 6) for j in judged],
                "true_scores": {key: _mean([scores[key] for _, scores in values]) for key in keys},
                "judge_scores": {key: _mean([j.attributes[key].mean for j in judged if j.attributes]) for key in keys},
                "characters": _mean([len(text) for text in texts]),
                "samples": texts[:4],
            }
        )


def teach(
    judge_folder: Path,
    start: Path,
    output: Path,
    *,
    seed: int,
    steps: int,
    prompts_per_step: int,
    group: int,
    learning_rate: float,
    beta: float,
    test_prompts: int,
    test_every: int,
) -> dict[str, Any]:
    """Train the start with TRL's `GRPOTrainer` and test it on the way.

    Args:
        judge_folder: The judge.
        start: The policy to begin with.
        output: TRL's folder; nothing is saved in it.
        seed: Of the order of prompts and of sampling.
        steps: Optimizer steps.
        prompts_per_step: Prompts in a step.
        group: Completions of each.
        learning_rate: Of AdamW.
        beta: Weight of the KL term.
        test_prompts: Number of held-out test instructions.
        test_every: Steps between two tests.

    Returns:
        `steps`: a line for each; `tests`: a line for each; `cpu_seconds` of the process, in all.
    """
    used = time.process_time()
    torch.set_num_threads(1)
    judge = KeepingJudge.load(judge_folder)
    assert isinstance(judge, KeepingJudge)
    instructions = draft_instructions("prompts", steps * prompts_per_step)
    reward = RecordedReward(judge, instructions, group)
    config = GRPOConfig(
        output_dir=str(output),
        max_steps=steps,
        per_device_train_batch_size=prompts_per_step * group,
        num_generations=group,
        max_completion_length=MAX_NEW_TOKENS,
        learning_rate=learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=5,
        temperature=1.0,
        beta=beta,
        seed=seed,
        logging_steps=1,
        **TRAINER_OPTIONS,
    )
    trainer = GRPOTrainer(
        str(start),
        reward_funcs=[reward],
        args=config,
        train_dataset=Dataset.from_list([prompt_row(instruction) for instruction in instructions]),
    )
    tests = Tests(
        Judge(judge.encoder, judge.engine),
        trainer.processing_class,
        draft_instructions("test", test_prompts, held_out=True),
        test_every,
    )
    trainer.add_callback(tests)
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "reward" in entry]
    lines = [
        {"step": entry["step"], "step_seconds": entry["step_time"]}
        | {"entropy": entry.get("entropy"), "kl": entry.get("kl"), **line}
        for entry, line in zip(logs, reward.lines, strict=True)
    ]
    return {"steps": lines, "tests": tests.lines, "cpu_seconds": time.process_time() - used}


def _mean(values: Sequence[float]) -> float | None:
    return None if not values else round(float(np.mean(values)), 6)
