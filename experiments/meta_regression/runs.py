"""The runs of the experiment: which there are, and doing one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from arms import list_arms
from problems import SPELLINGS
from safetensors.torch import load_file, save_file
from training import Recipe, first_training, train_and_test


@dataclass(frozen=True, slots=True)
class Preset:
    """How large an experiment is.

    Args:
        recipe: Model, steps, and test problems.
        sizes: Numbers of training problems.
        seeds: How many seeds, counted from 1. Seeds 0 and 9 were looked at while the recipe was chosen.
        alphas: Weights that every loss is tried with; nothing is chosen among them.
    """

    recipe: Recipe
    sizes: tuple[int, ...]
    seeds: int
    alphas: tuple[float, ...]


PRESETS = {
    "smoke": Preset(Recipe(16, 1, 2, 4, 4, 3, 5e-3, 2, 2e-3, 8), sizes=(3,), seeds=2, alphas=(1.0,)),
    "cpu": Preset(Recipe(32, 2, 4, 6, 32, 1600, 5e-3, 100, 2e-3, 256), (10, 100, 1000), 6, (0.1, 1.0)),
    "full": Preset(
        Recipe(128, 4, 8, 6, 64, 4000, 1e-3, 200, 5e-4, 2048), (10, 30, 100, 300, 1000, 3000), 20, (0.1, 0.3, 1.0)
    ),
}


@dataclass(frozen=True, slots=True)
class Run:
    """One training, or with the arm `none` the test of a start as it is."""

    spelling: str
    arm: str
    alpha: float
    problems: int
    seed: int


def plan_runs(preset: Preset, seeds: int, losses: Iterable[str] | None = None) -> list[Run]:
    """All runs, seed by seed, so that what is there after a while can be looked at.

    Args:
        preset: Gives sizes and alphas.
        seeds: How many seeds.
        losses: Arms beside `ce`; all by default.

    Raises:
        ValueError: If a loss is unknown, naming those there are.
    """
    arms = {name: list_arms(spelling, preset.alphas) for name, spelling in SPELLINGS.items()}
    known = {arm.name for listed in arms.values() for arm in listed}
    chosen = known if losses is None else {"ce", *losses}
    if chosen - known:
        raise ValueError(f"unknown loss {min(chosen - known)!r}; choose {', '.join(sorted(known))}")
    runs = []
    for seed in range(1, seeds + 1):
        for spelling, listed in arms.items():
            runs.append(Run(spelling, "none", 0.0, 0, seed))
            runs += [
                Run(spelling, arm.name, arm.settings.alpha, size, seed)
                for arm in listed
                if arm.name in chosen
                for size in preset.sizes
            ]
    return runs


def make_start(path: Path, spelling: str, seed: int, recipe: Recipe, device: str) -> None:
    """Do the first training of a spelling and a seed, and keep its weights."""
    torch.set_num_threads(1)
    temporary = path.with_suffix(".tmp")
    save_file(first_training(SPELLINGS[spelling], seed, recipe, device), temporary)
    temporary.replace(path)


def do_run(run: Run, start: Path, preset: Preset, device: str) -> dict[str, Any]:
    """Train and test; returns a row of `runs.jsonl`. A training that diverges gives an `error` and no figures."""
    torch.set_num_threads(1)
    spelling = SPELLINGS[run.spelling]
    arms = {(arm.name, arm.settings.alpha): arm for arm in list_arms(spelling, preset.alphas)}
    arm = arms.get((run.arm, run.alpha))
    try:
        figures = train_and_test(arm, spelling, load_file(start), run.problems, run.seed, preset.recipe, device)
    except FloatingPointError as error:
        return {**asdict(run), "error": str(error), "figures": {}}
    return {**asdict(run), "error": None, "figures": figures}


def settings_of(preset: Preset, device: str) -> dict[str, Any]:
    """What must be the same where an experiment is taken up again."""
    settings = {"recipe": asdict(preset.recipe), "sizes": preset.sizes, "alphas": preset.alphas, "device": device}
    return json.loads(json.dumps(settings))
