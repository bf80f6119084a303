"""What came out over seeds: means with intervals, differences paired by seed, and the tables that show them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from design import LOSSES, Run

from rmkit.experiment import LEVEL, compare, correct, describe

METRICS = {
    "pair_accuracy": "Pair accuracy by mean (more is better)",
    "pair_accuracy_mode": "Pair accuracy by mode (more is better)",
    "mae": "MAE of the mean, in score steps (less is better)",
    "mae_mode": "MAE of the mode, in score steps (less is better)",
    "qwk": "QWK of the rounded mean (more is better)",
    "qwk_mode": "QWK of the mode (more is better)",
    "calibration": "Calibration error against scores as noisy as the training's (less is better)",
    "calibration_true": "Calibration error against true scores (less is better)",
}
"""Figures of `judge_run.test` that are compared, and their headings."""

DISTANCE_AWARE = ("dist2", "sord", "raft", "emd2")
"""Losses to which a near miss is better than a far one."""

CONTROLS = ("label_smoothing", "label_smoothing_soft", "weighted_ce", "dist2_random")
"""What a distance-aware loss must beat for the distance to have done it, beside `ce`: a smoothed label, one as soft as
`dist2`'s target, more weight on score tokens, and the distances of a scale in random order."""

Figures = Mapping[tuple[float, str, int], Mapping[int, Mapping[str, float]]]
"""By noise, loss and rows; then by seed; then by name."""


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Figures of every loss, number of rows and noise, and differences.

    Args:
        rows: Of `runs.jsonl`. Rows with an error are counted and have no part in means.

    Returns:
        `cells`: for each noise, loss and number of rows n (seeds), errors, and for each of `METRICS` `mean` and
        `interval` over seeds, and `from_ce`: the paired difference with interval, p (paired t test over seeds) and
        `holm`, p corrected for all losses that are held against `ce` at that noise, size and metric.
        `contrasts`: each distance-aware loss against each control, at each noise: for each metric the paired
        difference at each number of rows (`by_rows`), and of each seed's mean over all of them (`all`, with `holm`
        over the losses held against that control at that noise).
    """
    figures: dict[tuple[float, str, int], dict[int, Mapping[str, float]]] = defaultdict(dict)
    errors: dict[tuple[float, str, int], int] = defaultdict(int)
    for row in rows:
        run = Run(row["noise"], row["loss"], row["rows"], row["seed"])
        if row["error"] is None:
            figures[run.noise, run.loss, run.rows][run.seed] = row["figures"]
        else:
            errors[run.noise, run.loss, run.rows] += 1
    cells = []
    families: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for cell in dict.fromkeys([*figures, *errors]):
        noise, loss, size = cell
        entry: dict[str, Any] = {"noise": noise, "loss": loss, "rows": size}
        entry |= {"n": len(figures[cell]), "errors": errors[cell]}
        for metric in METRICS:
            entry[metric] = describe([found[metric] for found in figures[cell].values()])
            if loss != "ce":
                entry[metric]["from_ce"] = _difference(figures, cell, "ce", metric)
                families[noise, size, metric].append(entry[metric]["from_ce"])
        cells.append(entry)
    contrasts = _contrast(figures)
    for contrast in contrasts:
        for metric in METRICS:
            families[contrast["noise"], contrast["against"], metric].append(contrast[metric]["all"])
    for family in families.values():
        correct(family)
    return {"cells": cells, "contrasts": contrasts}


def _contrast(figures: Figures) -> list[dict[str, Any]]:
    noises = sorted({noise for noise, _, _ in figures})
    sizes = sorted({size for _, _, size in figures})
    trained = {loss for _, loss, _ in figures}
    contrasts = []
    for noise in noises:
        for loss in filter(trained.__contains__, DISTANCE_AWARE):
            for against in filter(trained.__contains__, ("ce", *CONTROLS)):
                entry: dict[str, Any] = {"noise": noise, "loss": loss, "against": against}
                for metric in METRICS:
                    by_rows = {size: _difference(figures, (noise, loss, size), against, metric) for size in sizes}
                    over_sizes = (_over_sizes(figures, noise, name, sizes, metric) for name in (loss, against))
                    entry[metric] = {"by_rows": by_rows, "all": compare(*over_sizes)}
                contrasts.append(entry)
    return contrasts


def _difference(figures: Figures, cell: tuple[float, str, int], against: str, metric: str) -> dict[str, Any]:
    noise, _, size = cell
    sides = (figures.get(cell, {}), figures.get((noise, against, size), {}))
    return compare(*({seed: found[metric] for seed, found in side.items()} for side in sides))


def _over_sizes(figures: Figures, noise: float, loss: str, sizes: Sequence[int], metric: str) -> dict[int, float]:
    """The mean over all numbers of rows, of each seed that has them all: they share rows, so they are no sample."""
    by_size = [figures.get((noise, loss, size), {}) for size in sizes]
    seeds = set.intersection(*(set(found) for found in by_size))
    return {seed: float(np.mean([found[seed][metric] for found in by_size])) for seed in sorted(seeds)}


def write_tables(results: Mapping[str, Any]) -> str:
    """Markdown: for each noise a table of each metric, and distance-aware losses against the controls."""
    cells = results["cells"]
    seeds = max((cell["n"] for cell in cells), default=0)
    parts = [
        f"Mean over {seeds} seeds ± half the 95 % t interval, by number of training rows. In brackets the paired "
        "difference from `ce`,\nwith its interval; \\* marks p < 0.05 after Holm's correction for all losses held "
        "against `ce` in that column."
    ]
    for noise in sorted({cell["noise"] for cell in cells}):
        for metric, heading in METRICS.items():
            shown = [cell for cell in cells if cell["noise"] == noise]
            parts.append(f"## {heading}, rater noise {noise:g}\n\n{_cell_table(shown, metric)}")
    parts.append(
        "# Distance-aware losses minus controls\n\n"
        "The paired difference of each seed's mean over all numbers of rows, with its 95 % t interval; \\* marks p\n"
        "< 0.05 after Holm's correction for the losses held against one control."
    )
    for metric, heading in METRICS.items():
        parts.append(f"## {heading}\n\n{_contrast_table(results['contrasts'], metric)}")
    return "\n\n".join(parts) + "\n"


def _cell_table(cells: Sequence[Mapping[str, Any]], metric: str) -> str:
    sizes = sorted({cell["rows"] for cell in cells})
    found = {(cell["loss"], cell["rows"]): cell[metric] for cell in cells}
    lines = ["| loss | " + " | ".join(f"{size:,} rows" for size in sizes) + " |", "|---|" + "---:|" * len(sizes)]
    for loss in filter({loss for loss, _ in found}.__contains__, LOSSES):
        shown = [show_figure(found[loss, size]) if (loss, size) in found else "" for size in sizes]
        lines.append(f"| `{loss}` | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _contrast_table(contrasts: Sequence[Mapping[str, Any]], metric: str) -> str:
    columns = list(dict.fromkeys((contrast["noise"], contrast["against"]) for contrast in contrasts))
    found = {(c["loss"], c["noise"], c["against"]): c[metric]["all"] for c in contrasts}
    heads = [f"minus `{against}`, noise {noise:g}" for noise, against in columns]
    lines = ["| loss | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(columns)]
    for loss in dict.fromkeys(contrast["loss"] for contrast in contrasts):
        lines.append(f"| `{loss}` | " + " | ".join(show_difference(found[loss, *column]) for column in columns) + " |")
    return "\n".join(lines)


def show_figure(described: Mapping[str, Any]) -> str:
    """A mean with its interval and, in brackets, its difference from `ce`; `-` where nothing is known."""
    if described["mean"] is None:
        return "-"
    low, high = described["interval"] or (None, None)
    text = f"{described['mean']:.3f}" + (f" ± {(high - low) / 2:.3f}" if low is not None else "")
    return f"{text} ({show_difference(described['from_ce'])})" if "from_ce" in described else text


def show_difference(difference: Mapping[str, Any]) -> str:
    """A paired difference with its interval."""
    if difference["interval"] is None:
        return "-"
    low, high = difference["interval"]
    mark = "\\*" if difference["holm"] is not None and difference["holm"] < 1 - LEVEL else ""
    return f"{difference['mean']:+.3f} ± {(high - low) / 2:.3f}{mark}"
