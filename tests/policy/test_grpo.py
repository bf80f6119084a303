"""The judge as a reward in TRL's own GRPOTrainer, and the script that does so."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
from datasets import Dataset

from rmkit.jsonl import write_jsonl
from rmkit.judge import Judge
from rmkit.rewards import JudgeReward
from rmkit.scores import centre

LONG = "Sort these words: " + "word " * 400  # does not fit into the judge's 512 tokens
REPO = Path(__file__).resolve().parents[2]


class Recorder(JudgeReward):
    """Keeps what TRL gives it and what it gives back."""

    def __call__(self, prompts: Any, completions: Any, *args: Any, **kwargs: Any) -> list[float | None]:
        rewards = super().__call__(prompts, completions, *args, **kwargs)
        self.calls = [*getattr(self, "calls", []), *zip(prompts, completions, rewards, strict=True)]
        return rewards


@pytest.mark.parametrize("is_chat", [False, True], ids=["standard", "conversational"])
def test_three_steps_with_trl(
    is_chat: bool, judge_folder: Path, policy_folder: Path, tiny_tokenizer: Callable[..., Any], tmp_path: Path
) -> None:
    from trl import GRPOConfig, GRPOTrainer  # noqa: PLC0415 (slow)

    tokenizer = tiny_tokenizer("byte_level")
    # The policy may only say "a", "b" or nothing: it often ends at once, and often says the same twice.
    said = {tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(["a", "b"])}
    texts = ["Sort 3 1 2.", "Count to two.", LONG]
    rows = [{"prompt": [{"role": "user", "content": text}] if is_chat else text} for text in texts]
    rewards = [Recorder(judge_folder), Recorder(judge_folder, attribute="verbosity")]
    trainer = GRPOTrainer(
        str(policy_folder),
        reward_funcs=rewards,
        args=GRPOConfig(
            output_dir=str(tmp_path),
            max_steps=3,
            num_generations=4,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=3,
            max_completion_length=3,
            generation_kwargs={"suppress_tokens": [t for t in range(len(tokenizer)) if t not in said]},
            learning_rate=1e-3,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            log_completions=True,
            num_completions_to_print=0,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows),
    )
    trainer.train()
    assert trainer.state.global_step == 3

    judge = Judge.load(judge_folder)  # another one, that scores one text at a time
    kinds = set()
    assert len(rewards[0].calls) == len(rewards[1].calls) == 3 * 3 * 4
    for (prompt, completion, whole), (_, _, part) in zip(rewards[0].calls, rewards[1].calls, strict=True):
        (judged,) = judge.score([prompt], [completion])
        text = completion[0]["content"] if is_chat else completion
        if judged.aggregate is None:
            kinds.add("empty" if not text else "long")
            assert whole is None and part is None
            continue
        kinds.add("judged")
        assert whole == pytest.approx(centre(judge.rubric, judged.aggregate), abs=1e-5)
        assert part == pytest.approx((judged.attributes["verbosity"].mean - 3) / 2, abs=1e-5)
    assert kinds == {"empty", "long", "judged"}

    logs = [entry for entry in trainer.state.log_history if "reward" in entry]
    for step, entry in enumerate(logs):
        given = [reward for _, _, reward in rewards[0].calls[12 * step : 12 * (step + 1)]]
        numbers = [reward for reward in given if reward is not None]
        assert entry["judge/failure_rate"] == pytest.approx(given.count(None) / 12)
        assert entry["rewards/judge_reward/mean"] == pytest.approx(sum(numbers) / len(numbers), abs=1e-5)
        assert entry["judge/aggregate"] == pytest.approx((sum(numbers) / len(numbers) + 1) / 2, abs=1e-5)
        assert entry["rewards/judge_reward_verbosity/mean"] == pytest.approx(
            (entry["judge/verbosity"] - 3) / 2, abs=1e-5
        )
        assert math.isfinite(entry["grad_norm"])
    table = pandas.read_parquet(sorted((tmp_path / "completions").glob("*.parquet"))[0])
    assert {"judge_aggregate", "judge_error", "judge_verbosity", "judge_verbosity_error"} <= set(table.columns)
    assert (table["judge_error"].isna() == table["judge_reward"].notna()).all()
    assert 0 < table["judge_error"].notna().sum() < len(table) == 12
    assert (table.loc[table["judge_error"].notna(), "advantage"] == 0).all()


def run(script: str, *options: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(REPO / script), *map(str, options)],
        env={**os.environ, "PYTHONPATH": str(REPO), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_script(judge_folder: Path, judge: Judge, policy_folder: Path, tmp_path: Path) -> None:
    prompts, output = tmp_path / "prompts.jsonl", tmp_path / "policy"
    write_jsonl(prompts, [{"prompt": "Sort 3 1 2."}, {"prompt": "Count to two."}, {"prompt": ""}])
    sizes = ["--num_generations", "2", "--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "1"]
    sizes += ["--max_completion_length", "8", "--max_steps", "3"]
    where = ["--judge", judge_folder, "--policy", policy_folder, "--prompts", prompts, "--output_dir", output]
    done = run("train/grpo.py", *where, *sizes, "--log_completions")
    assert done.returncode == 0, done.stderr
    assert "2 prompts (1 rows refused" in done.stdout and "step 3: reward " in done.stdout
    assert (output / "model.safetensors").is_file() and (output / "tokenizer.json").is_file()
    assert len(json.loads((output / "run.json").read_text())["steps"]) == 3

    # The same texts through the scoring script.
    tables = [pandas.read_parquet(file) for file in sorted((output / "completions").glob("*.parquet"))]
    table = pandas.concat(tables, ignore_index=True)
    assert len(table) == 12
    texts = zip(table.prompt, table.completion, strict=True)
    write_jsonl(tmp_path / "texts.jsonl", ({"prompt": prompt, "response": response} for prompt, response in texts))
    scored = run(
        "evaluate/score_responses.py", "--judge", judge_folder, "--input", tmp_path / "texts.jsonl",
        "--output", tmp_path / "scores", "--engine", "transformers",
    )  # fmt: skip
    assert scored.returncode == 0, scored.stderr
    records = [json.loads(line) for line in (tmp_path / "scores" / "scores.jsonl").read_text().splitlines()]
    assert len(records) == 12
    for record, reward in zip(records, table.judge_reward, strict=True):
        if record["aggregate"] is None:
            assert math.isnan(reward)
        else:
            assert reward == pytest.approx(centre(judge.rubric, record["aggregate"]), abs=1e-5)


def test_the_script_says_what_is_wrong(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": "Sort."}])
    where = ["--policy", tmp_path / "none", "--output_dir", tmp_path / "out", "--prompts", tmp_path / "prompts.jsonl"]
    done = run("train/grpo.py", "--judge", tmp_path / "none", *where)
    assert done.returncode == 1 and "grpo.py: there is no judge folder" in done.stderr
