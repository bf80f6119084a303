"""An inspection as one page that loads nothing: tables first, then plots, then rows to read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rmkit import __version__
from rmkit.errors import DataError
from rmkit.inspection import plots, score_tables, tables
from rmkit.inspection.columns import PairColumns, RatedColumns
from rmkit.inspection.folder import Inspection
from rmkit.inspection.tables import Table
from rmkit.page import make_environment, shade_correlation

# Text from data is escaped; only the plots, which hold none, are marked safe.
_PAGE = make_environment(shade=partial(shade_correlation, deepest=60)).from_string("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; --ink: #222; --quiet: #5b6167; --line: #d9dde1; --paper: #fff; --raised: #f4f6f8;
  --bar: #33658a; --derived: #c77d0b; }
@media (prefers-color-scheme: dark) and (not print) { :root { --ink: #e4e6e8; --quiet: #a3abb3; --line: #3a4148;
  --paper: #15181b; --raised: #1e2327; --bar: #6ea8d3; --derived: #e5a23d; } }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 76rem; margin: 1.5rem auto; padding: 0 1rem;
  color: var(--ink); background: var(--paper); }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.2rem; margin: 2rem 0 0.3rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 0.2rem; } h1, h2, h3, p, td, figcaption { overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.88em; margin: 0.5rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: 0.2rem 0.7rem 0.2rem 0; text-align: right; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { font-weight: 600; vertical-align: bottom; } td { overflow-wrap: normal; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 7rem;
  position: sticky; left: 0; background: var(--paper); }
.prose th:last-child, .prose td:last-child { text-align: left; white-space: normal; min-width: 18rem;
  overflow-wrap: anywhere; }
.quiet, figcaption, footer { color: var(--quiet); font-size: 0.88em; }
.quiet { max-width: 48rem; margin: 0.3rem 0; }
.note { border-left: 4px solid var(--derived); padding-left: 0.6rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(10.4rem, 1fr)); gap: 0.8rem; }
.grid.roomy { grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); }
figure { margin: 0; break-inside: avoid; } figure svg { width: 100%; height: auto; max-width: 26rem; display: block; }
figcaption b { color: var(--ink); }
.key::before { content: ""; display: inline-block; width: 0.7em; height: 0.7em; margin-right: 0.35em; }
.key { margin-right: 1rem; } .rated::before { background: var(--bar); }
.derived::before { background: var(--derived); }
summary { cursor: pointer; margin: 0.5rem 0; }
article { background: var(--raised); border-radius: 6px; padding: 0.6rem 0.9rem; margin: 0.8rem 0; }
pre { font: 0.85em/1.45 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere;
  margin: 0.2rem 0 0.8rem; unicode-bidi: isolate; }
.matrix td { padding: 0.2rem 0.5rem; print-color-adjust: exact; }
@media print { body { font-size: 10pt; max-width: none; } article { border: 1px solid var(--line); }
  .wide { overflow: visible; } th, td { padding-right: 0.5rem; } }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p class="quiet">{{ origin }}</p>
{% macro show(table) %}
<div class="wide{{ " prose" if table.has_prose }}{{ " matrix" if table.is_matrix }}"><table>
<thead><tr>{% for cell in table.header %}<th scope="col">{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}
<tr>
{% for cell in row %}
<td{% if table.is_matrix %} style="{{ cell | shade }}"{% endif %}>{{ cell }}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table></div>
{% for note in table.notes %}
<p class="quiet">{{ note }}</p>
{% endfor %}
{% endmacro %}
{% for section in sections %}
<section>
<h2>{{ section.title }}</h2>
{% for table in section.tables %}
{% if table.title != section.title %}
<h3>{{ table.title }}</h3>
{% endif %}
{{ show(table) }}
{% endfor %}
{% if section.has_derived %}
<p class="quiet"><span class="key rated">rated</span> <span class="key derived">derived from a preference</span></p>
{% endif %}
{% for title, figures in section.rows_of_figures %}
{% if title %}
<h3>{{ title }}</h3>
{% endif %}
<div class="grid{{ " roomy" if section.is_roomy }}">
{% for caption, remark, svg in figures %}
<figure>{{ svg | safe }}<figcaption><b>{{ caption }}</b> {{ remark }}</figcaption></figure>
{% endfor %}
</div>
{% endfor %}
{% if section.more %}
<details>
<summary>{{ section.more_title }}</summary>
{% for table in section.more %}
{% if section.more | length > 1 %}
<h3>{{ table.title }}</h3>
{% endif %}
{{ show(table) }}
{% endfor %}
</details>
{% endif %}
</section>
{% endfor %}
{% if examples %}
<section>
<h2>{{ examples | length }} {{ "row" if examples | length == 1 else "rows" }} to read</h2>
{% for example in examples %}
<article>
<h3>{{ example.id }}</h3>
<p class="quiet">{{ example.file }}{{ ", " ~ example.source if example.source }}</p>
{% for what, text in example.texts %}
<div class="quiet">{{ what }}</div>
<pre dir="auto">{{ text }}</pre>
{% endfor %}
</article>
{% endfor %}
</section>
{% endif %}
<footer>
<p>Made by rmkit {{ version }}. The files by their SHA-256:</p>
<ul>
{% for name, digest in files %}
<li>{{ name }} {{ digest }}</li>
{% endfor %}
</ul>
</footer>
</body>
</html>
""")

Figure = tuple[str, str, str]
"""Caption, remark, plot as SVG."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: tables, then rows of figures under a heading each, then tables to unfold."""

    title: str
    tables: tuple[Table, ...]
    rows_of_figures: tuple[tuple[str, tuple[Figure, ...]], ...] = ()
    more_title: str = ""
    more: tuple[Table, ...] = ()
    is_roomy: bool = False
    has_derived: bool = False


def render_page(inspection: Inspection) -> str:
    """The inspection as the text of an HTML page. The same folder gives the same page."""
    counted = (tables.count_files(inspection), tables.count_sources(inspection), tables.count_noted(inspection))
    sections = [Section(table.title, (table,)) for table in counted if table]
    if inspection.rated is not None and len(inspection.rated):
        sections += _show_rated(inspection.rated)
    if inspection.pairs is not None and len(inspection.pairs):
        sections.append(_show_pairs(inspection.pairs))
    return _PAGE.render(
        title=f"{inspection.name}: what is in the folder",
        origin=tables.describe_origin(inspection),
        sections=sections,
        examples=inspection.examples,
        version=__version__,
        files=[(name, file["sha256"]) for name, file in inspection.manifest["files"].items()],
    )


def write_page(inspection: Inspection, path: Path) -> None:
    """Write the page; its folder is made where there is none.

    Raises:
        DataError: If it can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render_page(inspection), "utf-8")
    except OSError as error:
        raise DataError(f"the page {path} can't be written ({error}); name another place with --html") from error


def _show_rated(rated: RatedColumns) -> Iterator[Section]:
    columns, several = score_tables.list_rated(rated), len(rated.sources) > 1
    yield _show_scores(rated)
    lengths = tables.list_lengths(rated)
    yield Section(
        "Lengths",
        (tables.describe_lengths(lengths),),
        (("", tuple((name, "", plots.plot_lengths(lengths[name])) for name in list(lengths)[1:])),),
        is_roomy=True,
    )
    if not columns:
        return
    bins = score_tables.bin_scores(rated)
    yield Section(
        "Score against length",
        (score_tables.score_lengths(rated), *([score_tables.correlate_with_length(rated)] if several else [])),
        (
            (
                "",
                tuple(
                    (column.label, "by length of the response", plots.plot_length_scores(bins, place, column.scale))
                    for place, column in enumerate(columns)
                ),
            ),
        ),
        is_roomy=True,
    )
    found, parts = score_tables.correlate_all(rated), score_tables.correlate_by_source(rated)
    more = (score_tables.list_correlations(found), *(score_tables.arrange_matrix(part) for part in parts))
    title = "Each with its rows and interval" + (", and within each source" if parts else "")
    yield Section("Correlations", (score_tables.arrange_matrix(found),), more_title=title, more=more)


def _show_scores(rated: RatedColumns) -> Section:
    several = len(rated.sources) > 1
    rows: list[tuple[str, tuple[Figure, ...]]] = []
    for column in score_tables.list_rated(rated):
        found = list(score_tables.list_histograms(rated, column))
        top = max(float(histogram.shares.max()) for _, histogram in found)
        figures = tuple(
            (
                (name or "all rows") if several else column.label,
                f"{histogram.counts.sum():,} rated",
                plots.plot_histogram(histogram, top),
            )
            for name, histogram in found
        )
        rows.append((column.label if several else "", figures))
    if not several:
        rows = [("", tuple(figure for _, figures in rows for figure in figures))]
    return Section(
        "Scores",
        (score_tables.summarise_scores(rated),),
        tuple(rows),
        "The same as tables",
        tuple(score_tables.summarise_by_source(rated, c) for c in score_tables.list_rated(rated)) if several else (),
        has_derived=any(column.derived.any() for column in rated.attributes),
    )


def _show_pairs(pairs: PairColumns) -> Section:
    caption = "How much longer the chosen side is"
    remark = "right of the line it is the longer one; ratios beyond 16 stand at the ends"
    return Section(
        "Pairs",
        (tables.count_subsets(pairs), tables.describe_lengths(tables.list_pair_lengths(pairs))),
        (("", ((caption, remark, plots.plot_length_ratios(pairs.chosen, pairs.rejected)),)),),
        is_roomy=True,
    )
