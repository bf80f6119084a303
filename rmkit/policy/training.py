"""Training a policy against a judge with one of TRL's trainers: what its scripts share. TRL itself is theirs."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from rmkit.console import write_out
from rmkit.errors import DataError, JudgeError, RubricError, TokenizerError
from rmkit.policy.prompts import read_policy_prompts
from rmkit.rewards import JudgeReward
from rmkit.rewards.failures import ON_FAILURE
from rmkit.rubric import load_rubric
from rmkit.training.run_record import write_run

_ENGINES = ("transformers", "vllm")


@dataclass
class PolicyArguments:
    """What is trained, on which prompts."""

    _argument_group_name: ClassVar[str] = "policy and prompts"

    policy: str = field(metadata={"help": "Model folder or hub id of the policy to train."})
    prompts: str = field(metadata={"help": "JSON Lines with `prompt`, or a folder of data_prep/prepare.py."})
    limit: int | None = field(default=None, metadata={"help": "Prompts to use, from the first; all by default."})


@dataclass
class RewardArguments:
    """The judge, and what number it gives; see `rmkit.rewards.JudgeReward`."""

    _argument_group_name: ClassVar[str] = "reward"

    judge: str = field(
        metadata={
            "help": "Address of a judge server, such as http://127.0.0.1:8000; or judge folder or hub id; with "
            "rubric, any instruct model."
        }
    )
    reward_engine: str = field(
        default="transformers",
        metadata={"help": f"What runs a judge folder: {', '.join(_ENGINES)}.", "choices": _ENGINES},
    )
    reward_memory: float = field(default=0.3, metadata={"help": "vllm: its share of the GPU's memory."})
    attribute: list[str] | None = field(
        default=None, metadata={"help": "One reward for each of these attributes, in place of the weighted aggregate."}
    )
    length_budget: int | None = field(
        default=None, metadata={"help": "Characters; the score of a longer completion shrinks with its length."}
    )
    risk: float = field(default=0.0, metadata={"help": "k: the score minus k times its standard deviation counts."})
    centred: bool = field(default=True, metadata={"help": "Put 0 in the middle of the rewards' range."})
    group_normalised: bool = field(default=False, metadata={"help": "Normalise rewards within a prompt's group."})
    scale: float = field(default=1.0, metadata={"help": "What rewards are multiplied by."})
    clip: float | None = field(default=None, metadata={"help": "Keep rewards in [-clip, clip]."})
    on_failure: str = field(
        default="none",
        metadata={"help": f"When a completion can't be judged: {', '.join(ON_FAILURE)}.", "choices": ON_FAILURE},
    )
    max_outages: int = field(
        default=10, metadata={"help": "Calls in a row without any judgement after which the run stops."}
    )
    cache: str | None = field(default=None, metadata={"help": "File that keeps judgements; none by default."})
    truncate: bool = field(
        default=False, metadata={"help": "Let the judge drop the oldest turns of prompts that are too long."}
    )
    rubric: str | None = field(
        default=None, metadata={"help": "Ready rubric or YAML file, for a judge that rmkit did not train."}
    )
    timeout: float | None = field(default=None, metadata={"help": "A server: seconds to wait for an answer."})
    retries: int | None = field(default=None, metadata={"help": "A server: how often a request is repeated."})

    def __post_init__(self) -> None:
        self.make()  # what can't be a reward is refused before anything is loaded

    def make(self) -> list[JudgeReward]:
        """The rewards: one, or one for each attribute.

        Raises:
            JudgeError: If the judge is an address that is none.
            ValueError: If the rubric can't be read, for a number outside its range, or an option of another judge.
        """
        is_server = self.judge.startswith(("http://", "https://"))
        if not is_server and (self.timeout is not None or self.retries is not None):
            raise ValueError("timeout and retries are for a judge server, and this judge is none; leave them out")
        named = {"judge", "reward_engine", "reward_memory", "attribute", "rubric", "timeout", "retries"}
        options = {option.name: getattr(self, option.name) for option in fields(self) if option.name not in named}
        options |= {name: value for name in ("timeout", "retries") if (value := getattr(self, name)) is not None}
        if self.reward_engine == "vllm" and not is_server:
            options["gpu_memory_utilization"] = self.reward_memory
        options |= {"engine": self.reward_engine, "rubric": load_rubric(self.rubric) if self.rubric else None}
        if self.attribute:
            return JudgeReward.for_attributes(self.judge, self.attribute, **options)
        return [JudgeReward(self.judge, **options)]


def make_parser(make: Callable[..., Any], config: type[TrainingArguments], text: str, **defaults: Any) -> Any:
    """The parser of a script, with defaults of TRL's config that fit this machine and these scripts.

    Args:
        make: TRL's parser, which also reads the YAML file of `--config`.
        config: The trainer's config.
        text: The script's docstring: what it does, an example behind a blank line, more behind another.
        **defaults: Further defaults.
    """
    description, example, details = text.split("\n\n", 2)
    parser = make(
        (PolicyArguments, RewardArguments, config),
        usage="%(prog)s --judge JUDGE --policy POLICY --prompts PROMPTS --output_dir FOLDER [--config YAML] [options]",
        description=f"{description}\n\n{details}",
        epilog=f"example:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(**(_choose_defaults() | defaults))
    return parser


def read_arguments(parser: Any, argv: list[str] | None) -> tuple[Any, ...]:
    """What stands on the command line and in the YAML file of `--config`, as the three dataclasses.

    Args:
        parser: That of `make_parser`.
        argv: The arguments; those of the process by default.
    """
    try:
        return parser.parse_args_and_config(argv)
    except (JudgeError, OSError, ValueError) as error:
        sys.exit(f"{parser.prog}: {error}")


def train_policy(
    policy: PolicyArguments,
    reward: RewardArguments,
    config: TrainingArguments,
    make_trainer: Callable[[list[Any], Dataset], Trainer],
    score: str = "reward",
) -> int:
    """Train, save the policy and print the last rewards.

    Args:
        policy: What is trained.
        reward: The judge.
        config: The trainer's settings.
        make_trainer: Makes the trainer of rewards and prompts.
        score: The logged figure that is the mean reward.

    Returns:
        The exit status: 1 if something given can't be used, or the judge failed where it must not.
    """
    logging.basicConfig(level=logging.WARNING)
    started = time.time()
    try:
        rows, refused = read_policy_prompts(Path(policy.prompts), policy.limit)
        rewards = reward.make()
        rewards[0].load()  # a judge that can't be reached is found now, not after the first completions
        trainer = make_trainer(rewards, Dataset.from_list(rows))
        trainer.train(resume_from_checkpoint=read_resume(config))
    except (DataError, JudgeError, OSError, RubricError, TokenizerError) as error:  # OSError: no such policy
        sys.stderr.write(f"{Path(sys.argv[0]).name}: {error}\n")
        return 1
    trainer.save_model()
    if not trainer.accelerator.is_main_process:
        return 0
    trainer.save_state()
    steps = [entry for entry in trainer.state.log_history if score in entry]
    settings = {**asdict(policy), **asdict(reward), **config.to_dict()}
    output = Path(str(config.output_dir))
    write_run(output, settings, {"prompts": len(rows), "refused_prompts": len(refused), "steps": steps}, started)
    lines = [f"{len(rows)} prompts ({len(refused)} rows refused{': ' + refused[0] if refused else ''})"]
    for entry in steps[-5:]:
        mean = "none" if entry[score] is None else f"{entry[score]:+.4f}"
        failed = entry.get("judge/failure_rate")
        lines.append(f"  step {entry['step']}: reward {mean}" + ("" if failed is None else f", failed {failed:.1%}"))
    write_out("\n".join([*lines, f"policy: {output}"]))
    return 0


def read_resume(config: Any) -> str | bool | None:
    """The checkpoint to resume from, as a trainer takes it: a folder, the last one for `true`, or None."""
    given = config.resume_from_checkpoint
    return {"true": True, "false": None, "": None}.get(str(given).lower(), given) if given is not None else None


def _choose_defaults() -> dict[str, Any]:
    on_gpu = torch.cuda.is_available()
    return {
        "use_cpu": not on_gpu,
        "bf16": on_gpu,
        "gradient_checkpointing": on_gpu,
        "max_steps": 100,
        "learning_rate": 1e-6,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": not sys.stderr.isatty(),
    }
