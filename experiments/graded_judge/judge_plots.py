"""The plots: figures against the number of training rows, and what distance-aware losses gain over label smoothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from design import LOSSES
from judge_summary import DISTANCE_AWARE
from matplotlib.figure import Figure

from rmkit.experiment import PLOT_STYLE, save_plot

_LINES = {
    "ce": ("#444444", "-"),
    "label_smoothing": ("#33658a", "-"),
    "label_smoothing_soft": ("#33658a", ":"),
    "weighted_ce": ("#86bbd8", "-"),
    "dist2_random": ("#86bbd8", ":"),
    "dist2": ("#f26419", "-"),
    "sord": ("#f26419", ":"),
    "raft": ("#b5179e", "-"),
    "emd2": ("#b5179e", ":"),
}
_CURVES = {
    "pair_accuracy": "pair accuracy by mean",
    "mae": "MAE by mean",
    "qwk_mode": "QWK by mode",
    "calibration": "calibration error",
}
_AGAINST = "label_smoothing"
_COLOURS = ("#86bbd8", "#33658a", "#f26419", "#2f4858", "#111111")

Rows = Sequence[Mapping[str, Any]]


def plot_curves(cells: Rows, path: Path) -> None:
    """Four figures of every loss against the number of training rows, a row of panels for each noise.

    Args:
        cells: Of `summarise`.
        path: Where the plot goes, without suffix: an SVG and a PNG.
    """
    noises = sorted({cell["noise"] for cell in cells})
    found = {(cell["noise"], cell["loss"], cell["rows"]): cell for cell in cells}
    sizes = sorted({cell["rows"] for cell in cells})
    with matplotlib.rc_context(PLOT_STYLE):
        figure = Figure(figsize=(10, 2.4 * len(noises) + 0.6), layout="constrained")
        grid = figure.subplots(len(noises), len(_CURVES), sharex=True, sharey="col", squeeze=False)
        for row, (noise, panels) in enumerate(zip(noises, grid, strict=True)):
            for axes, (metric, name) in zip(panels, _CURVES.items(), strict=True):
                for loss in LOSSES:
                    there = [size for size in sizes if found.get((noise, loss, size), {}).get("n")]
                    colour, line = _LINES[loss]
                    means = [found[noise, loss, size][metric]["mean"] for size in there]
                    axes.plot(there, means, line, color=colour, marker=".", linewidth=1, label=loss)
                axes.set_xscale("log")
                axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
                axes.minorticks_off()
                if row == 0:
                    axes.set_title(name)
            panels[0].set_ylabel(f"rater noise {noise:g}")
        figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=9, frameon=False)
        figure.supxlabel("training rows")
        save_plot(figure, path)


def plot_differences(contrasts: Rows, path: Path) -> None:
    """What distance-aware losses gain over label smoothing at each number of rows, with 95 % intervals over seeds.

    Args:
        contrasts: Of `summarise`.
        path: Where the plot goes, without suffix: an SVG and a PNG.
    """
    chosen = [contrast for contrast in contrasts if contrast["against"] == _AGAINST]
    noises = sorted({contrast["noise"] for contrast in chosen})
    losses = [loss for loss in DISTANCE_AWARE if any(contrast["loss"] == loss for contrast in chosen)]
    with matplotlib.rc_context(PLOT_STYLE):
        figure = Figure(figsize=(10, 2.2 * max(1, len(noises)) + 0.6), layout="constrained")
        grid = figure.subplots(max(1, len(noises)), len(_CURVES), sharey=True, sharex="col", squeeze=False)
        for row, (noise, panels) in enumerate(zip(noises, grid, strict=False)):  # one row of panels stays without any
            for axes, (metric, name) in zip(panels, _CURVES.items(), strict=True):
                by_loss = {c["loss"]: c[metric]["by_rows"] for c in chosen if c["noise"] == noise}
                sizes = list(next(iter(by_loss.values())))
                for number, size in enumerate(sizes):
                    shift = 0.16 * (number - (len(sizes) - 1) / 2)
                    known = [(n, by_loss[loss][size]) for n, loss in enumerate(losses) if loss in by_loss]
                    known = [(place, found) for place, found in known if found["interval"]]
                    axes.errorbar(
                        [found["mean"] for _, found in known],
                        [place + shift for place, _ in known],
                        xerr=[(found["interval"][1] - found["interval"][0]) / 2 for _, found in known],
                        fmt="o",
                        color=_COLOURS[number % len(_COLOURS)],
                        markersize=3,
                        linewidth=1,
                        label=f"{size:,} rows",
                    )
                axes.axvline(0, color="grey", linewidth=0.8)
                axes.set_yticks(range(len(losses)), losses)
                if row == 0:
                    axes.set_title(name)
            panels[0].set_ylabel(f"rater noise {noise:g}")
        if chosen:
            grid[0][0].invert_yaxis()
            figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
        figure.supxlabel(f"minus {_AGAINST}, same seeds, 95 % intervals")
        save_plot(figure, path)
