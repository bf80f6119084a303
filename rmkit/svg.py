"""A page's plots as SVG text that needs nothing else and is the same at every run."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOUR, SECOND, INK = "#33658a", "#c77d0b", "#010203"
"""Of what a plot shows, of what is told apart from the rest there, and of its lines and text; the page has its own."""

_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a "$" in a subset's name is a dollar sign
    "svg.fonttype": "none",  # text stays text: small files, and any script that the reader's machine has
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 8,
    "font.family": "sans-serif",
    "axes.linewidth": 0.6,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **{f"{axis}tick.major.{what}": size for axis in "xy" for what, size in (("width", 0.6), ("size", 2))},
    **{f"{axis}tick.minor.{what}": 0 for axis in "xy" for what in ("width", "size")},
    "savefig.transparent": True,
}
_CSS_COLOURS = {INK: "currentColor", COLOUR: "var(--bar)", SECOND: "var(--derived)"}


def render_page_svg(draw: Callable[[Axes], None], width: float, height: float, name: str) -> str:
    """SVG to stand in a page, which is to style `--bar` and `--derived`: it takes the page's colours and font.

    A page marks it safe, so it must hold figures and fixed words only: names from data stand around it.

    Args:
        draw: Draws on the axes, in `COLOUR`, `INK` and `SECOND`.
        width: In inches of 72 points.
        height: As `width`.
        name: What tells it from all other plots of the page, which then share no ids, and none is random.
    """
    # A Figure of its own, without pyplot: no global state and no display.
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": ascii(name)}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)  # a page needs none
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)  # of groups, that nothing refers to, numbered alike in each plot
    svg = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)  # would hold for the whole page
    svg = re.sub(r" font-family: [^;]*;", "", svg)  # the page's
    svg = svg.replace("xlink:href", "href").replace("<svg ", '<svg aria-hidden="true" ', 1)  # tables say the same
    for colour, css in _CSS_COLOURS.items():
        svg = svg.replace(colour, css)
    return svg
