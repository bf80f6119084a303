"""The scripts that train a policy, their configs, and TRL's own command line with rmkit's reward."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pandas
import pytest
import yaml

from rmkit.jsonl import write_jsonl
from rmkit.judge import Judge
from rmkit.policy.training import make_parser, read_arguments

REPO = Path(__file__).resolve().parents[2]
CONFIGS = sorted((REPO / "train/configs/policy").glob("*.yaml"))
KINDS = ("grpo", "rloo", "online_dpo")


def run(command: list[Any], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPO), "PYTHONWARNINGS": "ignore", **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def parse(kind: str, *argv: str) -> tuple[Any, ...]:
    import trl  # noqa: PLC0415 (slow)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that experimental trainers may change
        from trl.experimental.online_dpo import OnlineDPOConfig  # noqa: PLC0415 (slow)

    config = {"grpo": trl.GRPOConfig, "rloo": trl.RLOOConfig, "online_dpo": OnlineDPOConfig}[kind]
    return read_arguments(make_parser(trl.TrlParser, config, "What.\n\n    example\n\nMore."), list(argv))


def test_there_is_a_config_for_each_trainer() -> None:
    assert sorted(file.stem for file in CONFIGS) == sorted(f"{kind}_qwen3_1_7b" for kind in KINDS)


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_config_parses_and_arrives(file: Path, tmp_path: Path) -> None:
    kind = file.stem.removesuffix("_qwen3_1_7b")
    header = [line for line in file.read_text("utf-8").splitlines() if line.startswith("#")]
    assert any(f"train/{kind}.py --config {file.relative_to(REPO)}" in line for line in header)
    on_a_cpu = ("--use_cpu", "true", "--bf16", "false", "--output_dir", str(tmp_path))
    policy, reward, config = parse(kind, "--config", str(file), *on_a_cpu)
    found = {**vars(config), **vars(policy), **vars(reward), "output_dir": "runs/" + file.stem}
    for option, value in yaml.safe_load(file.read_text("utf-8")).items():
        assert found[option] == value, option
    (made,) = reward.make()
    assert made.on_failure == ("none" if kind == "online_dpo" else "group_mean")  # its script asks for raise


def test_rewards_are_made_as_asked_for(tmp_path: Path) -> None:
    needed = ["--policy", "p", "--prompts", "q", "--output_dir", str(tmp_path), "--judge", "http://there:8000"]
    options = ["--attribute", "helpfulness", "verbosity", "--risk", "0.5", "--clip", "2", "--centred", "false"]
    _, reward, config = parse("grpo", *needed, *options, "--retries", "1", "--on_failure", "group_mean")
    first, second = reward.make()
    assert [made.__name__ for made in (first, second)] == ["judge_reward_helpfulness", "judge_reward_verbosity"]
    assert (second.shape.risk, second.shape.clip, second.shape.centred) == (0.5, 2.0, False)
    assert second.on_failure == "group_mean" and config.learning_rate == 1e-6


def test_what_is_misspelt_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("policy: p\nprompts: q\njudge: j\non_failur: none\n")
    with pytest.raises(SystemExit, match="on_failur"):
        parse("grpo", "--config", str(tmp_path / "bad.yaml"), "--output_dir", str(tmp_path))
    needed = ["--policy", "p", "--prompts", "q", "--output_dir", str(tmp_path), "--judge"]
    for options, message in (
        (["runs/judge", "--timeout", "5"], "timeout and retries are for a judge server"),
        (["runs/judge", "--clip", "-1"], "clip -1.0 must be above 0"),
        (["runs/judge", "--rubric", "nowhere"], "nowhere"),
        (["http://me:secret@there", "--retries", "1"], "holds a password"),
    ):
        with pytest.raises(SystemExit, match=message):
            parse("grpo", *needed, *options)


@pytest.mark.parametrize("kind", ["rloo", "online_dpo"])
def test_the_script(kind: str, judge_folder: Path, policy_folder: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": "Sort 3 1 2."}, {"prompt": "Count to two."}])
    config = {
        "judge": str(judge_folder),
        "policy": str(policy_folder),
        "prompts": "prompts.jsonl",
        "output_dir": "out",
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 1,
        **({"max_new_tokens": 8} if kind == "online_dpo" else {"max_completion_length": 8, "num_generations": 2}),
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, REPO / f"train/{kind}.py", "--config", "config.yaml"]
    done = run([*command, "--learning_rate", "1e-3", "--save_strategy", "steps", "--save_steps", "1"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 prompts (0 rows refused)" in done.stdout and "step 1: reward " in done.stdout
    assert (tmp_path / "out" / "model.safetensors").is_file() and (tmp_path / "out" / "tokenizer.json").is_file()
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["settings"]["learning_rate"] == 1e-3 and len(record["steps"]) == 1
    if kind == "online_dpo":
        refused = run([*command, "--on_failure", "none"], tmp_path)
        assert refused.returncode == 2 and "takes a missing reward for 0" in refused.stderr
        return
    resumed = run([*command, "--max_steps", "2", "--resume_from_checkpoint", "out/checkpoint-1"], tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    steps = json.loads((tmp_path / "out" / "run.json").read_text())["steps"]
    assert steps[0] == record["steps"][0] and [step["step"] for step in steps] == [
        1,
        2,
    ]  # its times too: not run again


def test_trl_s_own_command_line(judge_folder: Path, policy_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data" / "train.jsonl", [{"prompt": "Sort 3 1 2."}, {"prompt": "Count to two."}])
    (tmp_path / "reward.yaml").write_text(f"judge: {judge_folder}\nattribute: helpfulness\nscale: 2\n")
    sizes = ["--max_steps", "1", "--num_generations", "2", "--per_device_train_batch_size", "4"]
    sizes += ["--max_completion_length", "8", "--gradient_accumulation_steps", "1"]
    machine = ["--use_cpu", "--bf16", "False", "--gradient_checkpointing", "False", "--report_to", "none"]
    done = run(
        [
            *(Path(sys.executable).with_name("trl"), "grpo", "--reward_funcs", "rmkit.rewards.judge_reward"),
            *("--model_name_or_path", policy_folder, "--dataset_name", tmp_path / "data", "--output_dir", "out"),
            *(*sizes, *machine, "--log_completions", "--num_completions_to_print", "0", "--save_strategy", "no"),
        ],
        tmp_path,
        RMKIT_REWARD_CONFIG=str(tmp_path / "reward.yaml"),
        RMKIT_REWARD_ATTRIBUTE="verbosity",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = (tmp_path / "out" / "completions").glob("*.parquet")
    table = pandas.read_parquet(file)
    assert len(table) == 4 and {"judge_verbosity", "judge_verbosity_error"} <= set(table.columns)
    judged = Judge.load(judge_folder).score(list(table.prompt), list(table.completion))
    for judgment, reward in zip(judged, table.judge_reward, strict=True):
        mean = judgment.attributes["verbosity"].mean
        assert reward == pytest.approx(2 * (mean - 3) / 2, abs=1e-5)
