"""The judge as a reward in TRL's own trainers, in process and over HTTP, and when its server fails."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
from datasets import Dataset
from transformers import AutoTokenizer

from rmkit.judge import Judge
from rmkit.rewards import AsyncJudgeReward, JudgeReward
from rmkit.rubric import Attribute, Rubric
from rmkit.scores import centre

RUBRIC = Rubric("two", (Attribute("helpfulness", "Helpfulness", weight=2.0), Attribute("verbosity", "Verbosity")))


@pytest.fixture(scope="module")
def judge_folder(
    tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Callable[..., Any], save_tiny_judge: Callable[..., Path]
) -> Path:
    folder = tmp_path_factory.mktemp("judge")
    return save_tiny_judge(folder, tiny_tokenizer("split_digits"), RUBRIC, initializer_range=0.5, max_length=512)


@pytest.fixture(scope="module")
def judge(judge_folder: Path) -> Judge:
    return Judge.load(judge_folder)


@pytest.fixture(scope="module")
def policy_folder(
    tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Callable[..., Any], save_tiny_model: Callable[..., Path]
) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    return save_tiny_model(folder, tiny_tokenizer("byte_level"), seed=1, initializer_range=0.02)


class Recorder(JudgeReward):
    """Keeps what TRL gives it and what it gives back, call by call."""

    def __call__(self, prompts: Any, completions: Any, *args: Any, **kwargs: Any) -> list[float | None]:
        rewards = super().__call__(prompts, completions, *args, **kwargs)
        self.calls = [*getattr(self, "calls", []), list(zip(prompts, completions, rewards, strict=True))]
        return rewards


def a_quarter(completions: list[Any], **columns: Any) -> list[float]:
    return [0.25] * len(completions)


def train(kind: str, policy: Path, rewards: list[Any], output: Path, may_be_empty: bool = True, **options: Any) -> Any:
    """Train a policy that may only say "a", "b", and perhaps nothing, so that it often says the same twice."""
    import trl  # noqa: PLC0415 (slow)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that experimental trainers may change
        from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer  # noqa: PLC0415 (slow)

    make_config, make_trainer = {
        "grpo": (trl.GRPOConfig, trl.GRPOTrainer),
        "rloo": (trl.RLOOConfig, trl.RLOOTrainer),
        "online_dpo": (OnlineDPOConfig, OnlineDPOTrainer),
    }[kind]
    tokenizer = AutoTokenizer.from_pretrained(policy, padding_side="left")
    said = set(tokenizer.convert_tokens_to_ids(["a", "b"])) | ({tokenizer.eos_token_id} if may_be_empty else set())
    if kind == "online_dpo":
        options = {"max_new_tokens": 3, **options}
    else:
        options = {"max_completion_length": 3, "num_generations": 4, "num_completions_to_print": 0, **options}
    config = make_config(
        **{
            "output_dir": str(output),
            "max_steps": 3,
            "per_device_train_batch_size": 4,
            "generation_kwargs": {"suppress_tokens": [t for t in range(len(tokenizer)) if t not in said]},
            "learning_rate": 1e-3,
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            **options,
        }
    )
    rows = [
        {"prompt": [{"role": "user", "content": text}]} for text in ("Sort 3 1 2.", "Count.", "Add 1 and 2.", "Go.")
    ]
    trainer = make_trainer(
        str(policy),
        reward_funcs=rewards,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("kind", ["grpo", "rloo", "online_dpo"])
def test_three_steps_in_process_and_over_http(
    kind: str,
    judge_folder: Path,
    judge: Judge,
    policy_folder: Path,
    tmp_path: Path,
    serve_faultily: Callable[..., Any],
) -> None:
    dpo = kind == "online_dpo"
    on_failure = "raise" if dpo else "none"
    server = serve_faultily(judge)
    local, served = (
        Recorder(where, name=name, on_failure=on_failure)
        for where, name in ((judge_folder, "local"), (server.url, "served"))
    )
    rewards = [local, served if dpo else AsyncJudgeReward(served)]
    trainer = train(kind, policy_folder, rewards, tmp_path, may_be_empty=not dpo)
    assert trainer.state.global_step == 3

    assert len(local.calls) == len(served.calls) == 3
    kinds = set()
    for here, there in zip(sum(local.calls, []), sum(served.calls, []), strict=True):
        assert here[:2] == there[:2]
        (judged,) = judge.score([here[0]], [here[1]])  # one text at a time
        if judged.aggregate is None:
            kinds.add("empty")
            assert here[2] is None and there[2] is None
        else:
            kinds.add("judged")
            assert here[2] == pytest.approx(centre(RUBRIC, judged.aggregate), abs=1e-5)
            assert there[2] == pytest.approx(centre(RUBRIC, judged.aggregate), abs=1e-3)
    assert kinds == ({"judged"} if dpo else {"judged", "empty"})
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(steps) == 3 and all(math.isfinite(entry["grad_norm"]) for entry in steps)
    for call, entry in zip(local.calls, steps, strict=True):
        numbers = [reward for _, _, reward in call if reward is not None]
        if dpo:
            assert entry["objective/scores"] == pytest.approx(2 * sum(numbers) / len(numbers), abs=1e-3)
        else:
            assert entry["rewards/local_reward/mean"] == pytest.approx(sum(numbers) / len(numbers), abs=1e-5)
            assert entry["served/failure_rate"] == pytest.approx(1 - len(numbers) / len(call))


def test_a_failure_beside_a_second_reward(judge: Judge, policy_folder: Path, tmp_path: Path) -> None:
    none, mean = Recorder(judge, name="none"), Recorder(judge, name="mean", on_failure="group_mean")
    options = {"scale_rewards": "none", "log_completions": True, "max_steps": 4}
    train("grpo", policy_folder, [none, mean, a_quarter], tmp_path, **options)
    tables = [pandas.read_parquet(file) for file in sorted((tmp_path / "completions").glob("*.parquet"))]
    partly = 0
    for without, filled, table in zip(none.calls, mean.calls, tables, strict=True):
        rewards = [reward for _, _, reward in without]
        judged = [reward for reward in rewards if reward is not None]
        if not judged:
            assert [reward for _, _, reward in filled] == [None] * 4
            continue
        partly += len(judged) < 4
        average = sum(judged) / len(judged)
        as_mean = [average if reward is None else reward for reward in rewards]
        assert [reward for _, _, reward in filled] == pytest.approx(as_mean)
        # What TRL makes of it: a failure counts exactly 0 with `none`, the mean of its group with `group_mean`.
        totals = [(reward or 0.0) + other + 0.25 for reward, other in zip(rewards, as_mean, strict=True)]
        advantages = [total - sum(totals) / 4 for total in totals]
        assert list(table.advantage) == pytest.approx(advantages, abs=1e-5)
    assert partly > 0
