"""Errors over seeds: means, intervals, paired differences from `ce`, and the tables that show them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from rmkit.experiment import LEVEL, compare, correct, describe

METRICS = ("mode_mae", "mean_mae", "mode_rmse", "mean_rmse")
"""Error of the most likely number and of the expected one."""

CONTRASTS = {
    "dist2": ("label_smoothing", "label_smoothing_soft", "dist2_random", "dist2_by_digit"),
    "full": ("full_minus_place_weights", "full_minus_contrastive", "full_minus_distance"),
}
"""What else an arm is held against: what it must beat for the distance, or a part of it, to have done it."""

_LEGEND = """\
Mean over seeds ± half the 95 % t interval, in units of the scale's length, by number of training problems and reading.
In brackets the paired difference from `ce`, with its interval; \\* marks p < 0.05 after Holm's correction for all
losses that are held against `ce` in that column. In the last table \\* marks p < 0.05 without a correction."""

Rows = Sequence[Mapping[str, Any]]
_Cell = tuple[str, str, float, int]  # spelling, arm, alpha, problems


def summarise(rows: Rows) -> dict[str, Any]:
    """Figures of every arm, alpha and size.

    Args:
        rows: Of `runs.jsonl`. Rows with an error are counted and have no part in means.

    Returns:
        `cells`: for each spelling, arm, alpha and number of problems n (seeds), errors, and for each of `METRICS`
        mean and interval, and the paired difference from `ce` with interval, p (paired t test over seeds) and `holm`:
        p corrected by Holm for all arms that are held against `ce` at that spelling, size and metric.
        `contrasts`: the arms of `CONTRASTS` against others at the same alpha, uncorrected.
        `references`: for each spelling, what needs no second training.
    """
    figures: dict[_Cell, dict[int, dict[str, float]]] = defaultdict(dict)
    errors: dict[_Cell, int] = defaultdict(int)
    for row in rows:
        cell = (row["spelling"], row["arm"], row["alpha"], row["problems"])
        if row["error"] is None:
            figures[cell][row["seed"]] = row["figures"]
        else:
            errors[cell] += 1
    cells, contrasts, references = [], [], {}
    for cell in dict.fromkeys([*figures, *errors]):
        spelling, arm, alpha, problems = cell
        if arm == "none":
            seeds = list(figures[cell].values())
            references[spelling] = {name: describe([f[name] for f in seeds]) for name in seeds[0]}
            continue
        entry: dict[str, Any] = {"spelling": spelling, "arm": arm, "alpha": alpha, "problems": problems}
        entry |= {"n": len(figures[cell]), "errors": errors[cell]}
        for metric in METRICS:
            entry[metric] = describe([f[metric] for f in figures[cell].values()])
            if arm != "ce":
                entry[metric]["from_ce"] = _compare(figures[cell], figures[spelling, "ce", 0.0, problems], metric)
        cells.append(entry)
        for against in CONTRASTS.get(arm, ()):
            other = figures.get((spelling, against, alpha, problems))
            if other:
                head = {"spelling": spelling, "arm": arm, "alpha": alpha, "problems": problems, "against": against}
                contrasts.append(head | {metric: _compare(figures[cell], other, metric) for metric in METRICS})
    _correct(cells)
    return {"cells": cells, "contrasts": contrasts, "references": references}


def _compare(
    ours: Mapping[int, Mapping[str, float]], theirs: Mapping[int, Mapping[str, float]], metric: str
) -> dict[str, Any]:
    return compare(*({seed: found[metric] for seed, found in side.items()} for side in (ours, theirs)))


def _correct(cells: list[dict[str, Any]]) -> None:
    families: dict[tuple[str, int, str], list[dict[str, Any]]] = defaultdict(list)
    for cell in cells:
        for metric in METRICS:
            if "from_ce" in cell[metric]:
                families[cell["spelling"], cell["problems"], metric].append(cell[metric]["from_ce"])
    for family in families.values():
        correct(family)


def write_tables(results: Mapping[str, Any]) -> str:
    """Markdown: a table of each spelling for each kind of error, `dist2` against its controls, and the references."""
    parts = [_LEGEND]
    sizes = sorted({cell["problems"] for cell in results["cells"]})
    for spelling in results["references"]:
        cells = [cell for cell in results["cells"] if cell["spelling"] == spelling]
        for error in ("mae", "rmse"):
            parts.append(f"## {error.upper()}, answers written as `{spelling}`\n\n{_error_table(cells, error, sizes)}")
        references = results["references"][spelling]
        lines = [
            f"- {text}: MAE {_mean(references[f'{name}_mae'])}, RMSE {_mean(references[f'{name}_rmse'])}"
            for name, text in (
                ("mode", "before training on falling lines, by mode"),
                ("mean", "the same by mean"),
                ("average", "the average of the y shown"),
                ("least_squares", "the least-squares line"),
            )
        ]
        parts.append(f"For comparison, `{spelling}`:\n\n" + "\n".join(lines))
    if results["contrasts"]:
        head = "## `dist2` minus its controls, `full` minus its parts, MAE"
        parts.append(f"{head}\n\n{_contrast_table(results['contrasts'], sizes)}")
    return "\n\n".join(parts) + "\n"


def _error_table(cells: Rows, error: str, sizes: Sequence[int]) -> str:
    heads = [f"{size}, by {read}" for size in sizes for read in ("mode", "mean")]
    lines = ["| loss | alpha | " + " | ".join(heads) + " |", "|---|---:|" + "---:|" * len(heads)]
    arms: dict[tuple[str, float], dict[int, Mapping[str, Any]]] = defaultdict(dict)
    for cell in cells:
        arms[cell["arm"], cell["alpha"]][cell["problems"]] = cell
    for (arm, alpha), by_size in arms.items():
        shown = [
            _figure(by_size[size][f"{read}_{error}"]) if size in by_size else ""
            for size in sizes
            for read in ("mode", "mean")
        ]
        lines.append(f"| `{arm}` | {alpha or ''} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _contrast_table(contrasts: Rows, sizes: Sequence[int]) -> str:
    heads = [f"{size}, by {read}" for size in sizes for read in ("mode", "mean")]
    lines = [
        "| written as | alpha | loss | minus | " + " | ".join(heads) + " |",
        "|---|---:|---|---|" + "---:|" * len(heads),
    ]
    rows: dict[tuple[str, float, str, str], dict[int, Mapping[str, Any]]] = defaultdict(dict)
    for contrast in contrasts:
        row = (contrast["spelling"], contrast["alpha"], contrast["arm"], contrast["against"])
        rows[row][contrast["problems"]] = contrast
    for (spelling, alpha, arm, against), by_size in rows.items():
        shown = [
            _difference(by_size[size][f"{read}_mae"], "p") if size in by_size else ""
            for size in sizes
            for read in ("mode", "mean")
        ]
        lines.append(f"| {spelling} | {alpha} | `{arm}` | `{against}` | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _mean(described: Mapping[str, Any]) -> str:
    if described["mean"] is None:
        return "-"
    interval = described["interval"]
    return f"{described['mean']:.4f}" + (f" ± {(interval[1] - interval[0]) / 2:.4f}" if interval else "")


def _figure(described: Mapping[str, Any]) -> str:
    if described["mean"] is None:
        return "-"
    difference = described.get("from_ce")
    if difference is None:
        return _mean(described)
    return f"{described['mean']:.4f} ({_difference(difference, 'holm')})"


def _difference(difference: Mapping[str, Any], p: str) -> str:
    if difference["interval"] is None:
        return "-"
    low, high = difference["interval"]
    mark = "\\*" if difference[p] < 1 - LEVEL else ""
    return f"{difference['mean']:+.4f} ± {(high - low) / 2:.4f}{mark}"
