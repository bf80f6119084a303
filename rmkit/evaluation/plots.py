"""The report's plots: small SVGs that stand in the page and take its colours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rmkit.evaluation.reliability import Reliability
from rmkit.svg import COLOUR, INK, SECOND, render_page_svg

_SIZE = (3.6, 2.3)  # inches


def plot_margins(results: Mapping[str, Any], name: str) -> str:
    """Distribution of the margins; lost pairs are in a colour of their own.

    Args:
        results: Of one judge, with a judged pair.
        name: What tells the plot from others on its page, as in the other functions.
    """
    margins = results["margins"]

    def draw(axes: Axes) -> None:
        middle = len(margins["counts"]) // 2  # an edge stands at 0
        for part, colour in ((slice(0, middle), SECOND), (slice(middle, None), COLOUR)):
            edges = margins["edges"][part.start : (part.stop or len(margins["edges"])) + 1]
            axes.stairs(margins["counts"][part], edges, fill=True, color=colour)
        axes.axvline(0.0, color=INK, linewidth=0.6)
        axes.set(xlabel="aggregate of chosen - aggregate of rejected", ylabel="pairs")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))

    return render_page_svg(draw, *_SIZE, f"margins {name}")


def plot_reliability(reliability: Mapping[str, Any], name: str, lowest: float, what: str) -> str:
    """How often a judge is right against how sure it is.

    Args:
        reliability: As `Reliability.to_dict` gives it, with a bin.
        name: See `plot_margins`.
        lowest: Least confidence that is possible.
        what: What the confidence is in.
    """

    def draw(axes: Axes) -> None:
        draw_reliability(axes, Reliability.from_dict(reliability), lowest)
        axes.set(xlabel=f"confidence: {what}", ylabel="share that is right")

    return render_page_svg(draw, *_SIZE, f"reliability {name}")


def plot_entropy(entropy: Mapping[str, Any], name: str, error: str) -> str:
    """Mean error by entropy.

    Args:
        entropy: From `rmkit.evaluation.entropy`, with a bin.
        name: See `plot_margins`.
        error: What the error is.
    """
    bins = entropy["bins"]

    def draw(axes: Axes) -> None:
        axes.plot([row["entropy"] for row in bins], [row["error"] for row in bins], "o-", color=COLOUR, linewidth=1)
        axes.set(xlabel="entropy / log K", ylabel=error)
        axes.set_ylim(bottom=0, top=1.1 * max(0.01, *(row["error"] for row in bins)))

    return render_page_svg(draw, *_SIZE, f"entropy {name}")


def plot_length(results: Mapping[str, Any], name: str) -> str:
    """Accuracy, with intervals, by how much longer chosen is than rejected; level where length plays no part."""
    bins = results["length_bias"]["by_ratio"]

    def draw(axes: Axes) -> None:
        values = [row["accuracy"] for row in bins]
        reach = [
            [max(value - row["interval"][0], 0) for value, row in zip(values, bins, strict=True)],
            [max(row["interval"][1] - value, 0) for value, row in zip(values, bins, strict=True)],
        ]
        axes.errorbar(range(len(bins)), values, yerr=reach, fmt="o", color=COLOUR, capsize=2, markersize=4)
        overall = sum(row["n"] * row["accuracy"] for row in bins) / sum(row["n"] for row in bins)
        axes.axhline(overall, color=INK, linewidth=0.9, linestyle=":")
        axes.set_xticks(range(len(bins)), [_describe_ratio(row["low"], row["high"]) for row in bins])
        axes.set(xlim=(-0.5, len(bins) - 0.5), ylim=(-0.02, 1.05))
        axes.set(xlabel="length of chosen / length of rejected", ylabel="accuracy")

    return render_page_svg(draw, *_SIZE, f"length {name}")


def _describe_ratio(low: float | None, high: float | None) -> str:
    if low is None:
        return f"< {2**high:.1f}" if high is not None else "all"
    return f"> {2**low:.1f}" if high is None else f"{2**low:.1f}-{2**high:.1f}"


def plot_ratings(figures: Mapping[str, Any], scale: tuple[int, int], name: str) -> str:
    """Mean rating against the expected score; the size of a point says how many responses it stands for.

    Args:
        figures: Of one attribute, from `rmkit.evaluation.ratings`.
        scale: Lowest and highest score.
        name: See `plot_margins`.
    """
    bins = figures["rating_bins"]

    def draw(axes: Axes) -> None:
        largest = max(row["n"] for row in bins)
        axes.plot(scale, scale, color=INK, linewidth=0.9, linestyle=":")
        sizes = [10 + 60 * row["n"] / largest for row in bins]
        axes.scatter([row["score"] for row in bins], [row["rating"] for row in bins], s=sizes, color=COLOUR)
        margin = 0.04 * (scale[1] - scale[0])
        ends = (scale[0] - margin, scale[1] + margin)
        axes.set(xlim=ends, ylim=ends, xlabel="expected score", ylabel="mean rating")

    return render_page_svg(draw, *_SIZE, f"ratings {name}")


def draw_reliability(axes: Axes, reliability: Reliability, lowest: float = 0.0) -> None:
    """Accuracy against confidence; the size of a point says how many statements it stands for.

    Args:
        axes: What to draw on; its labels are left to the caller.
        reliability: With at least one bin.
        lowest: Where the axis of confidence begins.
    """
    bins = reliability.bins
    largest = max(part.n for part in bins)
    axes.plot([lowest, 1.0], [lowest, 1.0], color=INK, linewidth=0.9, linestyle=":")
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
