"""One judgement for people: as text and as a picture."""

from __future__ import annotations

from matplotlib.figure import Figure

from rmkit.schema import Judgment
from rmkit.scores import ScoreDistribution

_BARS = " ▁▂▃▄▅▆▇█"
_WIDEST = 21  # scores that get a character each


def describe(judgment: Judgment) -> str:
    """The score distributions as lines of text, a bar for each legal score.

    Args:
        judgment: From `Judge.score`. One with an error is described by that error.
    """
    if judgment.error is not None:
        return f"not judged: {judgment.error}"
    width = max(map(len, [*judgment.attributes, "aggregate"]))
    lines = []
    for key, distribution in judgment.attributes.items():
        low, high = distribution.values[0], distribution.values[-1]
        bars = f" {low}|{_draw_bars(distribution)}|{high}" if len(distribution.values) <= _WIDEST else ""
        lines.append(
            f"{key:<{width}}  mean {distribution.mean:.2f}  mode {distribution.mode}{bars}  "
            f"outside {distribution.outside_mass:.1e}"
        )
    return "\n".join([*lines, f"{'aggregate':<{width}}  {judgment.aggregate:.3f}"])


def _draw_bars(distribution: ScoreDistribution) -> str:
    return "".join(_BARS[round(p * (len(_BARS) - 1))] for p in distribution.probabilities)


def plot_scores(judgment: Judgment) -> Figure:
    """A figure with one bar chart per attribute: P(score), with the expected score as a line.

    Args:
        judgment: From `Judge.score`, without an error.

    Raises:
        ValueError: If the response was not judged.
    """
    if judgment.error is not None:
        raise ValueError(f"there are no distributions to plot: {judgment.error}")
    count = len(judgment.attributes)
    figure = Figure(figsize=(2.4 * count + 0.6, 2.6), layout="constrained")
    axes = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    for axis, (key, distribution) in zip(axes, judgment.attributes.items(), strict=True):
        axis.bar(distribution.values, distribution.probabilities, color="#4c78a8", width=0.8)
        axis.axvline(distribution.mean, color="#e45756", linewidth=1.5)
        axis.set_title(f"{key}: {distribution.mean:.2f}", fontsize=10)
        axis.set_ylim(0, 1)
        axis.set_xlabel("score")
        axis.spines[["top", "right"]].set_visible(False)
        if len(distribution.values) <= _WIDEST:
            axis.set_xticks(distribution.values if len(distribution.values) <= 11 else distribution.values[::5])
    axes[0].set_ylabel("probability")
    return figure
