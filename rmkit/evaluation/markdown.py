"""A report as Markdown fit for a model card: its main tables, what they mean, and where they come from."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from rmkit.evaluation.layout import Report, Table


def render_card(report: Report) -> str:
    """The title, the tables that belong into a card, the notes and the source."""
    blocks = [f"### {_escape(report.subject)}: {_escape(report.title)}"]
    for section in report.sections:
        for table in section.tables:
            if table.card:
                blocks += [f"#### {_escape(table.title)}"] if table.title else []
                blocks += [_table(table), *([_escape(table.note)] if table.note else [])]
    if report.notes:
        blocks.append("\n".join(f"- **Note:** {_escape(note)}" for note in report.notes))
    blocks += [f"Source: {_escape(line)}." for line in report.source]
    return "\n\n".join(blocks) + "\n"


def _table(table: Table) -> str:
    lines = [_line(table.header), _line(["---", *["---:"] * (len(table.header) - 1)])]
    for row in table.rows:
        cells = [_escape(cell) for cell in row.cells]
        lines.append(_line([f"**{cell}**" if row.strong and cell else cell for cell in cells]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    """Text that Markdown shows as it is: names come from data files, and a model card renders HTML."""
    flat = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", flat)
