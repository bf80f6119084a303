"""The stages of the experiment: how large each is, doing it, and where what it leaves is kept."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmkit.errors import DataError
from rmkit.manifest import read_json, write_json

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Arm:
    """How the policy is taught.

    Args:
        judge: Folder of the judge that teaches: `judge` has learnt generated rows, `judge_sampled` the start's own
            responses beside them.
        beta: Weight of the KL term of GRPO, which holds the policy near the start.
    """

    judge: str
    beta: float


ARMS = {
    "generated": Arm("judge", 0.0),
    "sampled": Arm("judge_sampled", 0.0),
    "sampled_kl": Arm("judge_sampled", 0.2),
}
"""Each changes one thing more; the first is the control. The weight was chosen while looking at seed 9."""


@dataclass(frozen=True, slots=True)
class Preset:
    """How large an experiment is.

    Args:
        rows: Generated rows that the judges learn from.
        samples: Responses of the start that one of the judges learns from beside them.
        judge_steps: Steps of their training; -1 for one epoch.
        lessons: Generated responses that the policy learns from first.
        steps: GRPO steps.
        prompts_per_step: Prompts in each.
        group: Completions of each prompt.
        learning_rate: Of GRPO.
        test_prompts: Held-out prompts of the tests.
        test_every: Steps between two tests.
        seeds: How many seeds, counted from 1. Seed 9 was looked at while the sizes were chosen.
    """

    rows: int
    samples: int
    judge_steps: int
    lessons: int
    steps: int
    prompts_per_step: int
    group: int
    learning_rate: float
    test_prompts: int
    test_every: int
    seeds: int


PRESETS = {
    "smoke": Preset(300, 16, 4, 32, 2, 2, 2, 1e-4, 4, 1, 2),
    "cpu": Preset(10_000, 2_000, -1, 4_000, 24, 4, 8, 1e-3, 200, 8, 3),
}


def make_data(output: Path, preset: Preset) -> None:
    """Generate the judge's data, and random models with a tokenizer for it, with the scripts that users call."""
    data = output / "data"
    if not (data / "manifest.json").exists():
        sizes = ("--rows", preset.rows, "--pairs", 0)
        _call(output, "data", "data_prep/prepare.py", "--dataset", "graded", *sizes, "--output", data)
    for name, layers in (("tiny", 4), ("blank", 2)):
        if not (output / "stages" / f"{name}.json").exists():
            sizes = ("--vocab-size", 3072, "--layers", layers)
            _call(output, name, "train/make_tiny_model.py", "--data", data, *sizes, "--output", output / name)


def train_judge(output: Path, preset: Preset, judge: str) -> None:
    """Train a judge as the demo does, in one process; a training that was stopped goes on.

    Args:
        output: The experiment's folder.
        preset: Its sizes.
        judge: Which one, see `Arm`. The start must be there for `judge_sampled`.
    """
    if (output / "stages" / f"{judge}.json").exists():
        return
    data = add_samples(output, preset) if judge == "judge_sampled" else output / "data"
    folders = ("--data", data, "--model", output / "tiny", "--output_dir", output / judge)
    options = ("--config", ROOT / "train/configs/demo.yaml", "--use_cpu", "true", "--deepspeed", "")
    _call(output, judge, "train/train.py", *options, *folders, "--max_steps", preset.judge_steps)


def make_start(output: Path, preset: Preset) -> None:
    """Have the policy learn from responses of all qualities."""
    if (output / "stages" / "start.json").exists():
        return
    from policy import teach_first  # noqa: PLC0415 (TRL, in the process that needs it)

    used = time.process_time()
    teach_first(output / "blank", output / "start", lessons=preset.lessons, batch=8, seed=0)
    _note(output, "start", time.process_time() - used)


def add_samples(output: Path, preset: Preset) -> Path:
    """Write the judge's data once more, with responses of the start beside the generated ones; gives the folder."""
    data = output / "data_sampled"
    if (output / "stages" / "samples.json").exists():
        return data
    from samples import write_data  # noqa: PLC0415 (torch, in the process that needs it)

    used = time.process_time()
    write_data(output / "start", data, preset.rows, preset.samples)
    _note(output, "samples", time.process_time() - used)
    return data


def do_run(output: Path, preset: Preset, arm: str, seed: int) -> None:
    """Teach the start as an arm says, with one seed."""
    path = seed_file(output, arm, seed)
    if path.exists():
        return
    from teaching import teach  # noqa: PLC0415 (TRL, in the process that needs it)

    found = teach(
        output / ARMS[arm].judge,
        output / "start",
        output / "trl",
        seed=seed,
        steps=preset.steps,
        prompts_per_step=preset.prompts_per_step,
        group=preset.group,
        learning_rate=preset.learning_rate,
        beta=ARMS[arm].beta,
        test_prompts=preset.test_prompts,
        test_every=preset.test_every,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"seed": seed, **found}), "utf-8")
    temporary.replace(path)


def seed_file(output: Path, arm: str, seed: int) -> Path:
    """Where the record of a seed's run is kept."""
    return output / "seeds" / arm / f"{seed}.json"


def stage_seconds(output: Path) -> dict[str, float]:
    """CPU seconds of each stage before the seeds; of one that was stopped, only of the call that finished it."""
    return {path.stem: read_json(path)["cpu_seconds"] for path in sorted((output / "stages").glob("*.json"))}


def _call(output: Path, stage: str, script: str, *options: Any) -> None:
    """Run a script of the repository.

    Raises:
        DataError: With the end of what it said, if it fails.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, str(ROOT / script), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DataError(f"{script} failed with exit status {done.returncode}:\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    _note(output, stage, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _note(output: Path, stage: str, seconds: float) -> None:
    (output / "stages").mkdir(exist_ok=True)
    write_json(output / "stages" / f"{stage}.json", {"cpu_seconds": round(seconds, 1)})
