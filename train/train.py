"""Train a judge on a prepared data folder, under DeepSpeed ZeRO or in one process.

    torchrun --nproc_per_node 2 train/train.py --config train/configs/smoke.yaml

The same command resumes a run that was stopped. With --dry-run it says what it would do, and ends.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from rmkit.console import write_out
from rmkit.errors import DataError, JudgeError, RubricError, TokenizerError, TrainingError
from rmkit.training.dry_run import SHAPES, describe_run
from rmkit.training.dry_run_options import DryRun
from rmkit.training.figures import describe_metrics
from rmkit.training.run import train_judge
from rmkit.training.settings import TrainingSettings, read_settings
from rmkit.training.shutdown import STATUS_STOPPED, TrainingStopped, end_process


def main(argv: list[str] | None = None) -> int:
    """Train, and print where the judge lies."""
    try:
        settings = read_settings(sys.argv[1:] if argv is None else argv)
        if settings.dry_run is not None:
            return look_ahead(settings, settings.dry_run)
        args = settings.training
        logging.basicConfig(level=logging.INFO if args.process_index == 0 else logging.ERROR)
        if args.disable_tqdm:
            disable_progress_bar()  # transformers' own, of loading and saving
        figures = train_judge(settings)
    except (DataError, JudgeError, RubricError, TokenizerError, TrainingError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    except TrainingStopped as stopped:
        print(f"train.py: {stopped}", file=sys.stderr)
        return STATUS_STOPPED
    if args.process_index > 0:
        return 0
    if "complete" in figures:
        print(f"{figures['complete']} is complete already; choose another output_dir to train anew")
        _say_pushed(figures)
        return 0
    left_out = {name: sum(reasons.values()) for name, reasons in figures["skipped"].items()}
    print(f"trained {figures['steps']} steps on {figures['rows']['train']} rows; left out as too long: {left_out}")
    for line in describe_metrics(figures["metrics"]):
        print(f"  {line}")
    _say_pushed(figures)
    print(f"judge: {args.output_dir}")
    return 0


def look_ahead(settings: TrainingSettings, dry_run: DryRun) -> int:
    """Print what the run would do, once where a launcher started several processes."""
    if dry_run.is_first:
        disable_progress_bar()
        shapes = Path(__file__).resolve().parent / SHAPES
        write_out(describe_run(settings, dry_run, shapes, colour=sys.stdout.isatty()))
    return 0


def _say_pushed(figures: dict[str, Any]) -> None:
    if figures["pushed"]:
        print(f"pushed to {figures['pushed']}")


if __name__ == "__main__":
    end_process(main())
