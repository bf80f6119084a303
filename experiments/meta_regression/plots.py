"""The plots: errors against the number of training problems, and differences from `ce`, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmkit.experiment import PLOT_STYLE, save_plot

_COLOURS = ("#86bbd8", "#33658a", "#f26419", "#2f4858")
_READS = {"mode": ":", "mean": "-"}
_SHIFTS = (1.0, 1.1, 1.2, 1.3)  # beside each other, so that intervals can be told apart
_COLUMNS = 4

Cells = Sequence[Mapping[str, Any]]


def plot_errors(cells: Cells, error: str, path: Path) -> None:
    """Errors against the number of training problems: one panel for each loss, `ce` in grey in all of them.

    Args:
        cells: Of `summarise`, for one spelling.
        error: `mae` or `rmse`.
        path: Where the plot goes, without suffix: an SVG and a PNG.
    """
    arms = list(dict.fromkeys(cell["arm"] for cell in cells if cell["arm"] != "ce"))
    alphas = sorted({cell["alpha"] for cell in cells if cell["arm"] != "ce"})
    rows = max(1, math.ceil(len(arms) / _COLUMNS))
    with matplotlib.rc_context(PLOT_STYLE):
        figure = Figure(figsize=(9, 2.0 * rows + 0.5), layout="constrained")
        grid = figure.subplots(rows, _COLUMNS, sharex=True, sharey=True, squeeze=False).flatten()
        for axes, arm in zip(grid, arms, strict=False):
            _draw_curve(axes, [cell for cell in cells if cell["arm"] == "ce"], error, "grey", "ce", 0.9)
            for alpha, colour, shift in zip(alphas, _COLOURS, _SHIFTS, strict=False):
                chosen = [cell for cell in cells if (cell["arm"], cell["alpha"]) == (arm, alpha)]
                _draw_curve(axes, chosen, error, colour, f"alpha {alpha}", shift)
            axes.set_title(arm)
            axes.set_xscale("log")
            axes.set_ylim(bottom=0)
        for axes in grid[len(arms) :]:
            axes.set_axis_off()
        if arms:
            figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
        figure.supxlabel("training problems")
        figure.supylabel(f"{error.upper()} on new problems, with 95 % intervals over seeds")
        save_plot(figure, path)


def plot_differences(cells: Cells, path: Path) -> None:
    """Paired differences of MAE from `ce`: one panel for each number of training problems, left is better."""
    sizes = sorted({cell["problems"] for cell in cells})
    arms = list(dict.fromkeys((cell["arm"], cell["alpha"]) for cell in cells if cell["arm"] != "ce"))
    found = {(cell["arm"], cell["alpha"], cell["problems"]): cell for cell in cells}
    with matplotlib.rc_context(PLOT_STYLE):
        figure = Figure(figsize=(9, 0.2 * len(arms) + 1.3), layout="constrained")
        panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
        for axes, size in zip(panels, sizes, strict=True):
            for read, shift, colour in (("mode", -0.16, _COLOURS[2]), ("mean", 0.16, _COLOURS[1])):
                places, means, reaches = [], [], []
                for place, (arm, alpha) in enumerate(arms):
                    difference = found.get((arm, alpha, size), {}).get(f"{read}_mae", {}).get("from_ce")
                    if difference and difference["interval"]:
                        places.append(place + shift)
                        means.append(difference["mean"])
                        reaches.append((difference["interval"][1] - difference["interval"][0]) / 2)
                axes.errorbar(means, places, xerr=reaches, fmt="o", color=colour, markersize=3, label=f"by {read}")
            axes.axvline(0, color="grey", linewidth=0.8)
            axes.set(title=f"{size} training problems")
        panels[0].set_yticks(range(len(arms)), [f"{arm}, alpha {alpha}" for arm, alpha in arms])
        panels[0].invert_yaxis()
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
        figure.supxlabel("MAE minus that of ce, same seeds, 95 % intervals (left of the line is better)")
        save_plot(figure, path)


def _draw_curve(axes: Axes, cells: Cells, error: str, colour: str, label: str, shift: float) -> None:
    for read, line in _READS.items():
        shown = [cell[f"{read}_{error}"] for cell in cells if cell[f"{read}_{error}"]["interval"]]
        sizes = [cell["problems"] * shift for cell in cells if cell[f"{read}_{error}"]["interval"]]
        reaches = [(described["interval"][1] - described["interval"][0]) / 2 for described in shown]
        means = [described["mean"] for described in shown]
        axes.errorbar(sizes, means, yerr=reaches, fmt=line, color=colour, linewidth=1, label=f"{label}, by {read}")
