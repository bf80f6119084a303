"""Train a policy with TRL's GRPO, with a judge as its reward.

    python train/grpo.py --judge runs/judge --policy Qwen/Qwen3-0.6B --prompts runs/data --output runs/policy

Each step samples several completions of each prompt; the judge's reward of each, compared with the others of its
prompt, says which become more probable. A completion that can't be judged has no say.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from rmkit.errors import DataError, JudgeError, RubricError, TokenizerError
from rmkit.judge import ENGINES
from rmkit.policy_prompts import read_policy_prompts
from rmkit.rewards import ON_FAILURE, JudgeReward
from rmkit.rubric import load_rubric
from rmkit.training.run_record import write_run


def main(argv: list[str] | None = None) -> int:
    """Train, save the policy and print the last rewards."""
    args = _parse(argv)
    logging.basicConfig(level=logging.WARNING)
    started = time.time()
    on_gpu = torch.cuda.is_available()
    try:
        rows, refused = read_policy_prompts(args.prompts, args.limit)
        config = GRPOConfig(
            output_dir=str(args.output),
            max_steps=args.max_steps,
            num_generations=args.num_generations,
            per_device_train_batch_size=args.num_generations,
            gradient_accumulation_steps=args.prompts_per_step,
            max_completion_length=args.max_completion_length,
            learning_rate=args.learning_rate,
            seed=args.seed,
            use_cpu=not on_gpu,
            bf16=on_gpu,
            gradient_checkpointing=on_gpu,
            deepspeed=args.deepspeed,
            log_completions=args.log_completions,
            num_completions_to_print=0,
            logging_steps=1,
            save_strategy="no",
            report_to=args.report_to,
            disable_tqdm=not sys.stderr.isatty(),
        )
        reward = JudgeReward(
            args.judge,
            engine=args.reward_engine,
            attribute=args.attribute,
            on_failure=args.on_failure,
            truncate=args.truncate,
            rubric=load_rubric(args.rubric) if args.rubric else None,
            **({"gpu_memory_utilization": args.reward_memory} if args.reward_engine == "vllm" else {}),
        )
        _ = reward.judge  # a judge that can't be loaded is found now, not after the first completions
        trainer = GRPOTrainer(args.policy, reward_funcs=[reward], args=config, train_dataset=Dataset.from_list(rows))
        trainer.train()
    except (DataError, JudgeError, RubricError, TokenizerError) as error:
        print(f"grpo.py: {error}", file=sys.stderr)
        return 1
    trainer.save_model()
    if not trainer.accelerator.is_main_process:
        return 0
    trainer.save_state()
    steps = [entry for entry in trainer.state.log_history if "reward" in entry]
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    write_run(args.output, settings, {"prompts": len(rows), "refused_prompts": len(refused), "steps": steps}, started)
    print(f"{len(rows)} prompts ({len(refused)} rows refused{': ' + refused[0] if refused else ''})")
    for entry in steps[-5:]:
        mean = "none" if entry["reward"] is None else f"{entry['reward']:+.4f}"
        print(f"  step {entry['step']}: reward {mean}, judge failed on {entry['judge/failure_rate']:.1%}")
    print(f"policy: {args.output}")
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    description, example, details = (__doc__ or "").split("\n\n", 2)
    parser = argparse.ArgumentParser(
        description=f"{description}\n\n{details}",
        epilog=f"example:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--judge", required=True, help="judge folder or hub id; with --rubric, any instruct model")
    add("--policy", required=True, help="model folder or hub id of the policy to train")
    add("--prompts", type=Path, required=True, help="JSON Lines with `prompt`, or a folder of data_prep/prepare.py")
    add("--output", type=Path, required=True, help="folder for the trained policy, trainer_state.json and run.json")
    add("--limit", type=int, help="prompts to use, from the first (default: all)")
    add("--max-steps", type=int, default=100, help="optimizer steps (default: 100)")
    add("--num-generations", type=int, default=8, help="completions per prompt that are compared (default: 8)")
    add("--prompts-per-step", type=int, default=4, help="prompts per step and process (default: 4)")
    add("--max-completion-length", type=int, default=256, help="most tokens of a completion (default: 256)")
    add("--learning-rate", type=float, default=1e-6, help="AdamW's (default: 1e-6)")
    add("--reward-engine", choices=ENGINES, default="transformers", help="what runs the judge (default: transformers)")
    add("--reward-memory", type=float, default=0.3, help="vllm: its share of the GPU's memory (default: 0.3)")
    add("--attribute", help="reward this attribute of the rubric alone (default: the weighted aggregate)")
    add("--on-failure", choices=ON_FAILURE, default="none", help="when a completion can't be judged (default: none)")
    add("--truncate", action="store_true", help="let the judge drop the oldest turns of prompts that are too long")
    add("--rubric", help="ready rubric or YAML file, for a --judge that rmkit did not train")
    add("--log-completions", action="store_true", help="write completions with aggregates and errors to --output")
    add("--report-to", nargs="*", default=[], help="trackers such as wandb or tensorboard (default: none)")
    add("--deepspeed", help="DeepSpeed config, such as train/deepspeed/zero2.json, under a launcher")
    add("--seed", type=int, default=0, help="of sampling and of the prompts' order (default: 0)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
