"""What came out: the learning curve, the gain and its interval, groups that teach nothing, the judge's share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rmkit.evaluation.intervals import QUANTILES

RESAMPLES = 10_000
ARM_NAMES = {
    "generated": "Judge of generated rows",
    "sampled": "Judge of the start's responses too",
    "sampled_kl": "The same judge and a KL term",
}
GROUPS = {
    "expected": "expected scores",
    "rounded": "expected scores, each rounded",
    "mode": "the likeliest scores",
    "same": "completions that are all one text",
}

Run = Mapping[str, Any]


def summarise(runs: Mapping[str, Sequence[Run]], stages: Mapping[str, float]) -> dict[str, Any]:
    """Figures of all seeds together.

    Args:
        runs: What `teaching.teach` gave for each seed, by arm, the control first; all have the same seeds.
        stages: CPU seconds of the stages before.

    Returns:
        `arms`: what `_summarise_arm` gives for each, and `difference`: of the gains, the arm's minus the control's,
        paired by seed and prompt. `cpu_minutes` of each stage, and of all seeds.
    """
    control = next(iter(runs.values()))
    return {
        "seeds": [run["seed"] for run in control],
        "test_prompts": len(control[0]["tests"][0]["true"]),
        "arms": [{"arm": arm, **_summarise_arm(found, control)} for arm, found in runs.items()],
        "cpu_minutes": {name: round(value / 60, 2) for name, value in stages.items()}
        | {"seeds": round(sum(run["cpu_seconds"] for found in runs.values() for run in found) / 60, 2)},
    }


def _summarise_arm(runs: Sequence[Run], control: Sequence[Run]) -> dict[str, Any]:
    """Figures of one arm.

    Returns:
        `curve`: for each test its step, the mean true and judge's aggregate with each seed's, and scores by attribute.
        `gain`: of `true`, `judge` and their `gap` (judge - true), final minus initial, with an interval, and each
        seed's; `difference`: the gain minus the control's. `groups`: shares of groups without spread, by what gives
        the spread. `judge_share` of the time of a step. `failed` judgements.
    """
    steps = [test["step"] for test in runs[0]["tests"]]
    curve = []
    for number, step in enumerate(steps):
        tests = [run["tests"][number] for run in runs]
        point: dict[str, Any] = {"step": step}
        for what in ("true", "judge"):
            point[what] = _with_seeds([_mean(test[what]) for test in tests])
        for what in ("true_scores", "judge_scores"):
            point[what] = {key: _mean([test[what][key] for test in tests]) for key in tests[0][what]}
        curve.append({**point, "characters": _mean([test["characters"] for test in tests])})
    lines = [line for run in runs for line in run["steps"]]
    seconds = {name: sum(line[name] for line in lines) for name in ("seconds", "step_seconds")}
    changes, theirs = _changes(runs), _changes(control)
    return {
        "curve": curve,
        "gain": {what: _with_interval(change) for what, change in changes.items()},
        "difference": {what: _with_interval(change - theirs[what]) for what, change in changes.items()},
        "groups": {name: _mean([line[name] for line in lines]) for name in GROUPS},
        "groups_second_half": {
            name: _mean([line[name] for line in lines if line["step"] > steps[-1] / 2]) for name in GROUPS
        },
        "judge_share": round(seconds["seconds"] / seconds["step_seconds"], 4),
        "failed": sum(line["failed"] for line in lines),
    }


def _changes(runs: Sequence[Run]) -> dict[str, np.ndarray]:
    """Final minus initial, paired by prompt; of the shape (seeds, prompts)."""
    changes = {
        what: np.array([np.subtract(_numbers(run, what, -1), _numbers(run, what, 0)) for run in runs])
        for what in ("true", "judge")
    }
    return changes | {"gap": changes["judge"] - changes["true"]}


def _with_interval(changes: np.ndarray) -> dict[str, Any]:
    return {**_with_seeds(changes.mean(1)), "interval": _interval(changes)}


def _numbers(run: Run, what: str, test: int) -> list[float]:
    values = run["tests"][test][what]
    # The judge fails on an empty response; the least it could be worth stands for it here, and `failed` counts them.
    return [0.0 if value is None else value for value in values]


def _interval(changes: np.ndarray) -> list[float]:
    """The middle 95 % of means of resampled seeds and prompts; `changes` has the shape (seeds, prompts)."""
    rng = np.random.default_rng(0)
    seeds, prompts = changes.shape
    means = [
        changes[rng.integers(seeds, size=seeds)][:, rng.integers(prompts, size=prompts)].mean()
        for _ in range(RESAMPLES)
    ]
    return [round(float(bound), 4) for bound in np.quantile(means, QUANTILES)]


def _with_seeds(values: Sequence[float] | np.ndarray) -> dict[str, Any]:
    return {"mean": _mean(values), "by_seed": [round(float(value), 4) for value in values]}


def _mean(values: Sequence[Any] | np.ndarray) -> float:
    return round(float(np.mean([value for value in values if value is not None])), 4)


def write_tables(results: Mapping[str, Any]) -> str:
    """Markdown: the curves, the gains, the groups, the times."""
    seeds, arms = results["seeds"], results["arms"]
    keys = list(arms[0]["curve"][0]["true_scores"])
    parts = [
        f"Mean aggregate in [0, 1] of one sampled response to each of {results['test_prompts']} held-out prompts, "
        f"over {len(seeds)} seeds; then the mean true score of each attribute, and in brackets the judge's.",
    ]
    for arm in arms:
        parts += [
            f"{ARM_NAMES[arm['arm']]}:",
            _table(
                ["step", "true", "judge", "judge - true", *keys, "characters"],
                [
                    [
                        str(point["step"]),
                        f"{point['true']['mean']:.3f}",
                        f"{point['judge']['mean']:.3f}",
                        f"{point['judge']['mean'] - point['true']['mean']:+.3f}",
                        *(f"{point['true_scores'][key]:.2f} ({point['judge_scores'][key]:.2f})" for key in keys),
                        f"{point['characters']:.0f}",
                    ]
                    for point in arm["curve"]
                ],
            ),
        ]
    gains = [(ARM_NAMES[arm["arm"]], arm["gain"]) for arm in arms]
    gains += [(f"{ARM_NAMES[arm['arm']]}, minus the first", arm["difference"]) for arm in arms[1:]]
    parts += [
        "Final minus initial, paired by prompt: mean, 95 % bootstrap interval over seeds and prompts, each seed. "
        "Differences between arms are paired by seed and prompt.",
        _table(
            ["", "", "gain", "interval", *(f"seed {seed}" for seed in seeds)],
            [
                [
                    name,
                    {"true": "true", "judge": "judge", "gap": "judge - true"}[what],
                    f"{gain['mean']:+.3f}",
                    f"{gain['interval'][0]:+.3f} to {gain['interval'][1]:+.3f}",
                    *(f"{value:+.3f}" for value in gain["by_seed"]),
                ]
                for name, by_kind in gains
                for what, gain in by_kind.items()
            ],
        ),
        "Groups in training whose rewards are all equal, and so teach nothing, in all steps (and in the second half), "
        "if rewards came from:",
        _table(
            ["", *(ARM_NAMES[arm["arm"]] for arm in arms)],
            [
                [text, *(f"{arm['groups'][name]:.1%} ({arm['groups_second_half'][name]:.1%})" for arm in arms)]
                for name, text in GROUPS.items()
            ],
        ),
        *(
            f"{ARM_NAMES[arm['arm']]}: judging takes {arm['judge_share']:.1%} of the time of a step; "
            f"{arm['failed']} completions could not be judged."
            for arm in arms
        ),
        "CPU minutes: "
        + ", ".join(f"{name} {minutes:.1f}" for name, minutes in results["cpu_minutes"].items())
        + f"; in all {sum(results['cpu_minutes'].values()):.1f}.",
    ]
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
