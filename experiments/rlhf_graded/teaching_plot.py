"""The plot: true and judge's aggregate against GRPO steps, and the true score of each attribute."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from teaching_summary import ARM_NAMES

from rmkit.experiment import PLOT_STYLE, save_plot

_COLOURS = {"judge": "#f26419", "true": "#33658a"}


def plot_curve(results: Mapping[str, Any], path: Path) -> None:
    """Draw the learning curves, a row for each arm.

    Args:
        results: Of `summarise`.
        path: Where it goes, without suffix: an SVG and a PNG.
    """
    arms = results["arms"]
    with matplotlib.rc_context(PLOT_STYLE):
        figure = Figure(figsize=(9, 2.6 * len(arms)), layout="constrained")
        for (left, right), arm in zip(figure.subplots(len(arms), 2, sharex=True, sharey="col"), arms, strict=True):
            curve = arm["curve"]
            steps = [point["step"] for point in curve]
            for what, colour in _COLOURS.items():
                for number in range(len(results["seeds"])):
                    values = [point[what]["by_seed"][number] for point in curve]
                    left.plot(steps, values, color=colour, linewidth=0.6, alpha=0.5)
                left.plot(steps, [point[what]["mean"] for point in curve], color=colour, marker="o", label=what)
            left.set(ylabel="aggregate", title=ARM_NAMES[arm["arm"]])
            for key in curve[0]["true_scores"]:
                right.plot(steps, [point["true_scores"][key] for point in curve], marker="o", markersize=3, label=key)
            right.set(ylabel="true score, 1 to 5", title="by attribute (verbosity has weight 0)")
            left.legend(frameon=False, loc="upper left")
            right.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        for axes in (left, right):
            axes.set_xlabel("GRPO steps")
        save_plot(figure, path)
