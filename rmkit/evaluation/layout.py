"""What a report consists of, as text and figures: one form for the page and for Markdown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure with its interval, to be drawn on the table's axis."""

    low: float
    value: float
    high: float
    mark: float | None = None  # what it is to be compared with, such as chance


@dataclass(frozen=True, slots=True)
class Row:
    """A table row.

    Args:
        cells: Its texts; the first is its name.
        strong: It is a section or a total.
        indented: It is a part of the strong row above.
        drawings: What its drawn cell shows, one below the other.
    """

    cells: tuple[str, ...]
    strong: bool = False
    indented: bool = False
    drawings: tuple[Drawing, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Args:
        header: One text per column.
        rows: As many cells each.
        title: What it shows; empty where the section says it.
        note: What its figures mean.
        axis: Low and high end of the drawn cells; None without them.
        drawn_at: The column before which they stand.
        keyed_from: The column from which headers get the colours of the drawings, in their order; 0 for none.
        shaded: Whether cells are correlations, shaded by their size.
        card: Whether it belongs into the Markdown for a model card.
    """

    header: tuple[str, ...]
    rows: tuple[Row, ...]
    title: str = ""
    note: str = ""
    axis: tuple[float, float] | None = None
    drawn_at: int = 1
    keyed_from: int = 0
    shaded: bool = False
    card: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot as SVG of figures and fixed words only, with what it shows."""

    title: str
    caption: str
    svg: str


@dataclass(frozen=True, slots=True)
class Text:
    """A text from the data, with what it is and facts about it."""

    label: str
    text: str
    facts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Excerpt:
    """One record to read: what was asked, then one or two responses."""

    title: str
    facts: tuple[str, ...]
    asked: str
    responses: tuple[Text, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report: tables, then plots, then records to read."""

    title: str
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    excerpts: tuple[Excerpt, ...] = ()
    text: str = ""


@dataclass(frozen=True, slots=True)
class KeyFigure:
    """A number that stands large at the top; of several judges, in the colour of the `series`-th."""

    value: str
    label: str
    series: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A whole report.

    Args:
        title: What was evaluated: the judge, or several.
        subject: By what: the benchmark.
        figures: The numbers to see first.
        notes: What a reader must know, a sentence each.
        sections: Its parts.
        source: Where the figures come from, a line each.
    """

    title: str
    subject: str
    figures: tuple[KeyFigure, ...]
    notes: tuple[str, ...]
    sections: tuple[Section, ...]
    source: tuple[str, ...]
