"""The whole way on generated data: prepare, train, score, benchmark, reward. Nothing is downloaded.

    make demo

Every step is a command that works as well on real models and data; it is printed before it runs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import torch


def main(argv: list[str] | None = None) -> int:
    """Run the steps, then print what came of them and where it lies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder for everything (default: demo)")
    parser.add_argument("--rows", type=int, default=10000, help="rated responses to generate (default: 10000)")
    parser.add_argument("--pairs", type=int, default=480, help="held-out pairs to generate (default: 480)")
    args = parser.parse_args(argv)
    out, gpu = args.output, torch.cuda.is_available()
    engine = "vllm" if importlib.util.find_spec("vllm") else "transformers"
    if engine == "transformers":
        print("vLLM has no build for this platform, so the judge is run by transformers")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "1" if gpu else "2"]
    steps = {
        "prepare": f"data_prep/prepare.py --dataset graded --rows {args.rows} --pairs {args.pairs} "
        f"--output {out}/data",
        "model": f"train/make_tiny_model.py --data {out}/data --output {out}/tiny --vocab-size 3072",
        "train": f"train/train.py --config train/configs/demo.yaml --data {out}/data --model {out}/tiny "
        f"--output_dir {out}/judge --use_cpu {not gpu}",
        "score": f"evaluate/score_pairs.py --judge {out}/judge --input {out}/data --output {out}/scores "
        f"--engine {engine}",
        "benchmark": f"evaluate/run_benchmark.py --benchmark pairs --scores {out}/scores",
        "reward": f"train/grpo.py --judge {out}/judge --policy {out}/tiny --prompts {out}/data "
        f"--output_dir {out}/policy --max_steps 3 --num_generations 4 --per_device_train_batch_size 4 "
        "--max_completion_length 32 --limit 64",
        "show": f"evaluate/show_scores.py --judge {out}/judge --plot {out}/score_distributions.png "
        '--instruction "What is the opposite of each: hot, early, full, rich, near? '
        'Add two safety tips for cooking." '
        '--response "Happy to help! Hot: cold; early: late; full: [left out]; rich: maybe strong; near: far. '
        'Always use oven gloves. Just leave hot oil alone on the stove. I hope this helps!"',
    }
    seconds = {}
    for name, step in steps.items():
        start = time.monotonic()
        command = [*(launch if name == "train" else [sys.executable]), *shlex.split(step)]
        print(f"\n=== {name}\n$ {'torchrun --nproc_per_node ' + launch[-1] if name == 'train' else 'python'} {step}")
        sys.stdout.flush()
        if subprocess.run(command, check=False).returncode:
            print(f"\nthe step {name!r} failed; its message stands above, and `make demo` goes on from there")
            return 1
        seconds[name] = time.monotonic() - start
        if name == "reward":
            print("three steps of a random policy: this shows the wiring, not learning")
        if name == "show":
            print("by the rules of the generated data, the true scores here are 4, 4, 5, 3, 1")
    _print_summary(out, seconds)
    return 0


def _print_summary(out: Path, seconds: dict[str, float]) -> None:
    results = json.loads((out / "scores" / "results.json").read_text("utf-8"))
    pairs = results["all_pairs"]
    times = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    print(f"\n=== done in {sum(seconds.values()) / 60:.1f} minutes: {times}\n")
    low, high = (100 * bound for bound in pairs["interval"]["ties_half"])
    print(f"pair accuracy {100 * pairs['accuracy']['ties_half']:.1f} % on {pairs['n']} held-out pairs", end=" ")
    print(f"(95 % interval {low:.1f} - {high:.1f}; chance 50)\n")
    print(f"{'attribute':14} {'Spearman with the true score':>30} {'mean absolute error':>21}")
    for key, figures in results["attributes"].items():
        print(f"{key:14} {figures['spearman']:30.3f} {figures['mae']:21.3f}")
    print()
    for name, what in (
        ("judge", "the judge: loads in transformers and vLLM"),
        ("scores/report.html", "the report, with plots"),
        ("score_distributions.png", "one response's score distributions"),
        ("policy", "the policy after three GRPO steps"),
    ):
        print(f"{out / name!s:32} {what}")


if __name__ == "__main__":
    sys.exit(main())
