"""Train a policy with TRL's GRPO, with a judge as its reward.

    python train/grpo.py --judge http://127.0.0.1:8000 --policy Qwen/Qwen3-0.6B --prompts runs/data \
        --output_dir runs/policy

Each step samples several completions of each prompt; the judge's reward of each, compared with the others of its
prompt, says which become more probable. A completion that can't be judged has no say.

All options of TRL's GRPOConfig are options here too, on the command line or in the YAML file of --config, such as
train/configs/policy/grpo_qwen3_1_7b.yaml. On a CPU, with the generated data and the small model of `make demo`:

    python train/grpo.py --judge demo/judge --policy demo/tiny --prompts demo/data --output_dir demo/grpo \
        --max_steps 3 --num_generations 4 --max_completion_length 32
"""

from __future__ import annotations

import sys

from trl import GRPOConfig, GRPOTrainer, TrlParser

from rmkit.policy.training import make_parser, read_arguments, train_policy


def main(argv: list[str] | None = None) -> int:
    """Train, save the policy and print the last rewards."""
    parser = make_parser(
        TrlParser, GRPOConfig, __doc__ or "", gradient_accumulation_steps=4, num_completions_to_print=0
    )
    policy, reward, config = read_arguments(parser, argv)
    return train_policy(
        policy,
        reward,
        config,
        lambda rewards, rows: GRPOTrainer(policy.policy, reward_funcs=rewards, args=config, train_dataset=rows),
    )


if __name__ == "__main__":
    sys.exit(main())
