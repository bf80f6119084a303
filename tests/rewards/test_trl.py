"""The judge as a reward in TRL's own trainers, in process and over HTTP, and when its server fails."""

from __future__ import annotations

import math
import socket
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas
import pytest
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback

from rmkit.errors import JudgeError
from rmkit.judge import Judge
from rmkit.rewards import AsyncJudgeReward, JudgeReward
from rmkit.scores import centre


class Recorder(JudgeReward):
    """Keeps what TRL gives it and what it gives back, call by call."""

    def __call__(self, prompts: Any, completions: Any, *args: Any, **kwargs: Any) -> list[float | None]:
        rewards = super().__call__(prompts, completions, *args, **kwargs)
        self.calls = [*getattr(self, "calls", []), list(zip(prompts, completions, rewards, strict=True))]
        return rewards


def a_quarter(completions: list[Any], **columns: Any) -> list[float]:
    return [0.25] * len(completions)


def train(
    kind: str,
    policy: Path,
    rewards: list[Any],
    output: Path,
    may_be_empty: bool = True,
    callbacks: Sequence[TrainerCallback] = (),
    **options: Any,
) -> Any:
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
        callbacks=list(callbacks),
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
            assert here[2] == pytest.approx(centre(judge.rubric, judged.aggregate), abs=1e-5)
            assert there[2] == pytest.approx(centre(judge.rubric, judged.aggregate), abs=1e-3)
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


class Server:
    """A judge server that can be killed and started again at its address."""

    def __init__(self, start_server: Callable[..., Any], judge: Path, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._open = lambda: start_server(judge, log, "--port", str(port))
        self.start()

    def start(self) -> None:
        self._running = self._open()
        self._process = self._running.__enter__().process

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._running.__exit__(None, None, None)


def test_a_server_killed_and_started_again_in_the_middle(
    judge_folder: Path, judge: Judge, policy_folder: Path, tmp_path: Path, start_server: Callable[..., Any]
) -> None:
    server = Server(start_server, judge_folder, tmp_path / "log")
    none, mean, stop = (
        Recorder(server.url, name=policy, on_failure=policy, retries=0, max_outages=3)
        for policy in ("none", "group_mean", "raise")
    )
    stop.load()

    class Outages(TrainerCallback):
        """Steps 2 and 3 find no server, and those from 5 on."""

        def on_step_begin(self, _args: Any, state: Any, *_: Any, **__: Any) -> None:
            if state.global_step in (1, 4):
                server.kill()
            if state.global_step == 3:
                server.start()

    options = {"max_steps": 20, "callbacks": [Outages()]}
    try:
        with pytest.raises(JudgeError, match=f"no judgement in 3 calls in a row.*{server.url}"):
            train("grpo", policy_folder, [none, mean, a_quarter], tmp_path, may_be_empty=False, **options)
        with pytest.raises(JudgeError, match=f"raise_reward: .*completions can't be judged.*{server.url}"):
            train("grpo", policy_folder, [stop], tmp_path, may_be_empty=False)
    finally:
        server.kill()
    # The breaker stopped the run at its seventh step: the third in a row without the judge.
    assert len(none.calls) == len(mean.calls) == 6
    for step, (call, filled) in enumerate(zip(none.calls, mean.calls, strict=True), 1):
        if step in (1, 4):
            judged = judge.score([prompt for prompt, _, _ in call], [completion for _, completion, _ in call])
            expected = [centre(judge.rubric, judgment.aggregate) for judgment in judged]
            assert [reward for _, _, reward in (*call, *filled)] == pytest.approx(2 * expected, abs=1e-3)
        else:
            assert [reward for _, _, reward in (*call, *filled)] == [None] * 8


@pytest.mark.long
def test_async_grpo_s_rollout_worker(
    judge_folder: Path,
    judge: Judge,
    policy_folder: Path,
    tmp_path: Path,
    serve_with_vllm: Callable[..., Any],
    start_server: Callable[..., Any],
) -> None:
    """The trainer itself needs FlashAttention-3 and NCCL; its worker samples, scores and queues on any machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that experimental trainers may change
        from trl.experimental.async_grpo.async_rollout_worker import AsyncRolloutWorker  # noqa: PLC0415 (slow)
    from accelerate import PartialState  # noqa: PLC0415 (slow)
    from trl.chat_template_utils import qwen3_chat_template  # noqa: PLC0415 (slow)

    PartialState()  # as a trainer does; the worker's log needs it
    tokenizer = AutoTokenizer.from_pretrained(policy_folder)
    tokenizer.chat_template = qwen3_chat_template  # it takes templates that it knows
    with (
        serve_with_vllm(policy_folder, "policy", tmp_path / "policy.log") as policy_url,
        start_server(judge_folder, tmp_path / "judge.log") as server,
    ):
        worker = AsyncRolloutWorker(
            model_name="policy",
            dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": text}]} for text in ("Sort.", "Go.")]),
            reward_funcs=[JudgeReward(server.url)],
            processing_class=tokenizer,
            eos_token_ids=[tokenizer.eos_token_id],
            num_generations=4,
            max_inflight_tasks=4,
            vllm_server_url=policy_url,
            max_tokens=8,
        )
        worker.start()
        try:
            samples = [worker.rollout_buffer.get(timeout=300) for _ in range(12)]
            worker.check_health(300)
        finally:
            worker.stop()
    assert {sample.group_id for sample in samples} == {0, 1, 2}
    judged = judge.score([sample.prompt for sample in samples], [sample.completion for sample in samples])
    numbers = [(j.aggregate, s.metrics["rewards/judge_reward"]) for j, s in zip(judged, samples, strict=True)]
    assert sum(aggregate is not None for aggregate, _ in numbers) >= 8
    for aggregate, reward in numbers:
        if aggregate is None:
            assert math.isnan(reward)
        else:
            assert reward == pytest.approx(centre(judge.rubric, aggregate), abs=1e-3)
