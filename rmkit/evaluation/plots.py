"""The report's plots, as SVG text that needs nothing else and is the same at every run."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_COLOUR = "#33658a"
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a "$" in a subset's name is a dollar sign
    "svg.fonttype": "none",  # text stays text: small files, and any script that the reader's machine has
    "svg.hashsalt": "rmkit",  # ids are random otherwise
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def plot_accuracies(results: Mapping[str, Any]) -> str:
    """Accuracy of each subset (ties at half credit) with its interval."""
    subsets = results["subsets"]

    def draw(axes: Axes) -> None:
        places = range(len(subsets))
        values = [figures["accuracy"]["ties_half"] for figures in subsets.values()]
        lows = [v - f["interval"]["ties_half"][0] for v, f in zip(values, subsets.values(), strict=True)]
        highs = [f["interval"]["ties_half"][1] - v for v, f in zip(values, subsets.values(), strict=True)]
        errors = [[max(low, 0.0) for low in lows], [max(high, 0.0) for high in highs]]
        axes.errorbar(values, places, xerr=errors, fmt="o", color=_COLOUR, capsize=2, markersize=4)
        axes.axvline(0.5, color="grey", linewidth=0.8, linestyle=":")
        axes.set(xlim=(-0.02, 1.02), xlabel="accuracy, ties = 0.5 (dotted: chance)")
        axes.set_yticks(places, [f"{name or '(no subset)'} ({f['n']})" for name, f in subsets.items()])
        axes.invert_yaxis()

    return _render(draw, height=1.0 + 0.22 * len(subsets))


def plot_margins(results: Mapping[str, Any]) -> str:
    """Distribution of the margins."""
    margins = results["margins"]

    def draw(axes: Axes) -> None:
        axes.stairs(margins["counts"], margins["edges"], fill=True, color=_COLOUR)
        axes.axvline(0.0, color="grey", linewidth=0.8, linestyle=":")
        axes.set(xlabel="aggregate of chosen minus aggregate of rejected", ylabel="pairs")

    return _render(draw)


def plot_reliability(results: Mapping[str, Any]) -> str:
    """Accuracy against confidence; the size of a point says how many pairs it stands for."""
    bins = results["reliability"]["bins"]

    def draw(axes: Axes) -> None:
        largest = max(row["n"] for row in bins)
        axes.plot([0.5, 1.0], [0.5, 1.0], color="grey", linewidth=0.8, linestyle=":")
        axes.scatter(
            [row["confidence"] for row in bins],
            [row["accuracy"] for row in bins],
            s=[10 + 90 * row["n"] / largest for row in bins],
            color=_COLOUR,
        )
        axes.set(
            xlim=(0.49, 1.01),
            ylim=(-0.02, 1.05),
            xlabel="confidence: max(P, 1 - P), P = P(chosen > rejected)",
            ylabel="share of pairs in which it is right",
        )

    return _render(draw)


def _render(draw: Callable[[Axes], None], height: float = 3.0) -> str:
    # A Figure of its own, without pyplot: no global state and no display.
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.5, height), layout="constrained")
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
