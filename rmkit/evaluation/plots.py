"""The report's plots, as SVG text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmkit.evaluation.reliability import Reliability
from rmkit.svg import COLOUR, render_svg


def plot_accuracies(results: Mapping[str, Any]) -> str:
    """Accuracy of each subset (ties at half credit) with its interval."""
    subsets = results["subsets"]

    def draw(axes: Axes) -> None:
        places = range(len(subsets))
        values = [figures["accuracy"]["ties_half"] for figures in subsets.values()]
        lows = [v - f["interval"]["ties_half"][0] for v, f in zip(values, subsets.values(), strict=True)]
        highs = [f["interval"]["ties_half"][1] - v for v, f in zip(values, subsets.values(), strict=True)]
        errors = [[max(low, 0.0) for low in lows], [max(high, 0.0) for high in highs]]
        axes.errorbar(values, places, xerr=errors, fmt="o", color=COLOUR, capsize=2, markersize=4)
        axes.axvline(0.5, color="grey", linewidth=0.8, linestyle=":")
        axes.set(xlim=(-0.02, 1.02), xlabel="accuracy, ties = 0.5 (dotted: 0.5)")
        axes.set_yticks(places, [f"{name or '(no subset)'} ({f['n']})" for name, f in subsets.items()])
        axes.invert_yaxis()

    return render_svg(draw, height=1.0 + 0.22 * len(subsets))


def plot_margins(results: Mapping[str, Any]) -> str:
    """Distribution of the margins."""
    margins = results["margins"]

    def draw(axes: Axes) -> None:
        axes.stairs(margins["counts"], margins["edges"], fill=True, color=COLOUR)
        axes.axvline(0.0, color="grey", linewidth=0.8, linestyle=":")
        axes.set(xlabel="aggregate of chosen minus aggregate of rejected", ylabel="pairs")

    return render_svg(draw)


def plot_reliability(results: Mapping[str, Any]) -> str:
    """Accuracy against confidence in a pair."""

    def draw(axes: Axes) -> None:
        draw_reliability(axes, Reliability.from_dict(results["reliability"]), lowest=0.5)
        axes.set(
            xlabel="confidence: max(P, 1 - P), P = P(chosen > rejected)", ylabel="share of pairs in which it is right"
        )

    return render_svg(draw)


def draw_reliability(axes: Axes, reliability: Reliability, lowest: float = 0.0) -> None:
    """Accuracy against confidence; the size of a point says how many statements it stands for.

    Args:
        axes: What to draw on; its labels are left to the caller.
        reliability: With at least one bin.
        lowest: Where the axis of confidence begins.
    """
    bins = reliability.bins
    largest = max(part.n for part in bins)
    axes.plot([lowest, 1.0], [lowest, 1.0], color="grey", linewidth=0.8, linestyle=":")
    axes.scatter(
        [part.confidence for part in bins],
        [part.accuracy for part in bins],
        s=[10 + 90 * part.n / largest for part in bins],
        color=COLOUR,
    )
    axes.set(xlim=(lowest - 0.01, 1.01), ylim=(-0.02, 1.05))


def plot_score_reliability(reliability: Mapping[str, Reliability]) -> Figure:
    """Reliability diagrams of the most probable scores, one for each attribute; to be saved as SVG or PNG.

    Args:
        reliability: By attribute, at least one, each with at least one bin: see `Agreement`.
    """
    columns = min(len(reliability), 3)
    rows = -(-len(reliability) // columns)
    figure = Figure(figsize=(2.5 * columns, 2.5 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes, (name, found) in zip(grid, reliability.items(), strict=False):
        draw_reliability(axes, found)
        axes.set_title(f"{name}: error {found.expected_calibration_error:.3f}", fontsize=9, parse_math=False)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[len(reliability) :]:
        axes.remove()
    figure.supxlabel("confidence: P(most probable score)", fontsize=9)
    figure.supylabel("share that equals the rating", fontsize=9)
    return figure
