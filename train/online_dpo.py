"""Train a policy with TRL's experimental OnlineDPO, with a judge that says which of two completions is chosen.

    python train/online_dpo.py --judge http://127.0.0.1:8000 --policy Qwen/Qwen3-0.6B --prompts runs/data \
        --output_dir runs/policy

Each step samples two completions of each prompt, and the one with the higher reward is preferred. OnlineDPO takes a
missing reward for 0, so a completion that can't be judged stops the run here; an empty one is avoided by sampling at
least one token.

All options of TRL's OnlineDPOConfig are options here too, on the command line or in the YAML file of --config, such as
train/configs/policy/online_dpo_qwen3_1_7b.yaml. On a CPU, with the generated data and the small model of `make demo`:

    python train/online_dpo.py --judge demo/judge --policy demo/tiny --prompts demo/data --output_dir demo/online_dpo \
        --max_steps 3 --max_new_tokens 32
"""

from __future__ import annotations

import sys

from transformers import AutoTokenizer
from trl import TrlParser
from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

from rmkit.policy.training import make_parser, read_arguments, train_policy


def main(argv: list[str] | None = None) -> int:
    """Train, save the policy and print the last rewards."""
    parser = make_parser(TrlParser, OnlineDPOConfig, __doc__ or "", on_failure="raise", learning_rate=5e-7)
    policy, reward, config = read_arguments(parser, argv)
    if reward.on_failure != "raise":
        parser.error(
            f"--on_failure {reward.on_failure}: OnlineDPO takes a missing reward for 0, so only raise is safe"
        )
    least = "min_tokens" if config.use_vllm else "min_new_tokens"  # vLLM's name for it, and that of transformers
    config.generation_kwargs = {least: 1, **(config.generation_kwargs or {})}
    return train_policy(
        policy,
        reward,
        config,
        lambda rewards, rows: OnlineDPOTrainer(
            policy.policy,
            reward_funcs=rewards,
            args=config,
            train_dataset=rows,
            processing_class=AutoTokenizer.from_pretrained(policy.policy, padding_side="left"),
        ),
        score="objective/scores",
    )


if __name__ == "__main__":
    sys.exit(main())
