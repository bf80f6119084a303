"""The page's plots: small SVGs that stand in the page itself and take its colours.

They hold figures and fixed words only; names from data stand in the captions around them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from rmkit.inspection.figures import Histogram, LengthBin
from rmkit.svg import COLOUR, INK, SECOND, render_page_svg

_MOST_TICKS = 11
_BINS = 40


def plot_histogram(histogram: Histogram, top: float) -> str:
    """Shares of scores as bars; what was derived is in a colour of its own.

    Args:
        histogram: What to draw.
        top: Where the axis ends, as a share, so that plots beside each other can be compared.
    """

    def draw(axes: Axes) -> None:
        places = range(len(histogram.labels))
        total = max(histogram.counts.sum(), 1)
        derived = 100 * histogram.derived / total
        axes.bar(places, 100 * histogram.shares - derived, bottom=derived, color=COLOUR, width=0.8)
        if histogram.derived.any():
            axes.bar(places, derived, color=SECOND, width=0.8)
        step = -(-len(places) // _MOST_TICKS)
        if len(histogram.labels[-1]) > 3:  # ranges of scores are wide
            step = max(step, -(-len(places) // 4))
        axes.set_xticks(places[::step], histogram.labels[::step])
        axes.set(ylim=(0, 105 * max(top, 0.01)), ylabel="%")
        axes.yaxis.set_major_locator(_few_ticks())

    return render_page_svg(draw, 2.3, 1.5, f"histogram {histogram.counts.tolist()} {top}")


def plot_lengths(lengths: np.ndarray) -> str:
    """How many rows have which length in characters, on a logarithmic axis."""

    def draw(axes: Axes) -> None:
        low, high = max(float(lengths.min()), 1.0), max(float(lengths.max()), 2.0)
        spread = np.geomspace if _spans_tens(low, high) else np.linspace
        edges = spread(low * 0.99, max(high, 1.1 * low) * 1.01, _BINS + 1)
        axes.stairs(np.histogram(np.maximum(lengths, 1), edges)[0], edges, fill=True, color=COLOUR)
        axes.set_ylabel("rows")
        axes.yaxis.set_major_locator(_few_ticks())
        _scale_lengths(axes, _spans_tens(low, high))

    return render_page_svg(draw, 3.2, 1.8, f"lengths {len(lengths)} {lengths.sum()}")


def plot_length_scores(bins: Sequence[LengthBin], place: int, scale: tuple[int, int]) -> str:
    """An attribute's mean score, with intervals, against the response's length.

    Args:
        bins: From `bin_by_length`.
        place: Which attribute of theirs.
        scale: Its lowest and highest score: the ends of the axis.
    """
    shown = [(b.median, b.scores[place]) for b in bins if b.scores[place].mean is not None]

    def draw(axes: Axes) -> None:
        x = [max(median, 1) for median, _ in shown]
        reach = [score.reach or 0.0 for _, score in shown]
        means = [score.mean or 0.0 for _, score in shown]
        axes.errorbar(x, means, yerr=reach, fmt="o-", color=COLOUR, linewidth=0.8, markersize=3, capsize=2)
        margin = 0.05 * (scale[1] - scale[0])
        axes.set(ylim=(scale[0] - margin, scale[1] + margin), ylabel="mean score")
        axes.yaxis.set_major_locator(_few_ticks())
        _scale_lengths(axes, _spans_tens(min(x), max(x)))

    return render_page_svg(draw, 3.2, 1.8, f"length scores {place} {shown}")


def plot_length_ratios(chosen: np.ndarray, rejected: np.ndarray) -> str:
    """How many times longer the chosen side is than the rejected one; right of the line it is the longer one."""
    ratios = np.log2(np.maximum(chosen, 1) / np.maximum(rejected, 1)).clip(-4, 4)

    def draw(axes: Axes) -> None:
        counts, edges = np.histogram(ratios, np.linspace(-4.1, 4.1, _BINS + 2))
        axes.stairs(counts, edges, fill=True, color=COLOUR)
        axes.axvline(0.0, color=INK, linewidth=0.8, linestyle=":")
        axes.set_xticks(range(-4, 5, 2), ["1/16", "1/4", "1", "4", "16"])
        axes.set(xlabel="length of chosen / length of rejected", ylabel="pairs")
        axes.yaxis.set_major_locator(_few_ticks())

    return render_page_svg(draw, 3.2, 1.8, f"ratios {len(chosen)}")


def _spans_tens(low: float, high: float) -> bool:
    """Whether a logarithmic axis suits lengths: short of a few powers of ten, there is nothing to put ticks at."""
    return high > 20 * low


def _scale_lengths(axes: Axes, spans_tens: bool) -> None:
    if spans_tens:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(_few_ticks())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("characters")


def _few_ticks() -> MaxNLocator:
    return MaxNLocator(5, integer=True, steps=[1, 2, 5, 10])
