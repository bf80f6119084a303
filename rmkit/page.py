"""What pages that load nothing have in common: how a template is filled in, and the shade of a correlation."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from jinja2 import Environment, StrictUndefined

_CORRELATION = re.compile(r"-?[01]\.[0-9]{2}")


def make_environment(**filters: Callable[..., Any]) -> Environment:
    """Of templates with these filters. Text from data is escaped, so mark safe only what holds none, such as plots."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= filters
    return environment


def shade_correlation(cell: str, deepest: int) -> str:
    """The background of a correlation's cell: blue above 0, orange below, the stronger the farther.

    Args:
        cell: Its text; one that is no correlation gets no background.
        deepest: How strong the colour of 1 and -1 is, in percent.
    """
    if not _CORRELATION.fullmatch(cell):
        return ""
    value = float(cell)
    return f"background: rgb({'51 101 138' if value > 0 else '199 125 11'} / {round(deepest * abs(value))}%)"
