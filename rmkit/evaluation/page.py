"""A report as one page that loads nothing: readable on a phone, on a desk and on paper, in light and in dark."""

from __future__ import annotations

import re
from functools import partial

from rmkit.evaluation.layout import Report, Table
from rmkit.page import make_environment, shade_correlation

_LONG_NOTE = 200  # characters; a longer note would push the table off a phone's screen


def _place(value: float, axis: tuple[float, float]) -> str:
    """Where a value stands on a drawn cell of width 100."""
    low, high = axis
    return f"{min(max(100 * (value - low) / (high - low), 0), 100):.1f}"


def _name_width(table: Table) -> int:
    """Characters that the column of names needs, within reason."""
    return min(max([len(table.header[0]), *(len(row.cells[0]) + 3 for row in table.rows)]), 23)


def _fold(note: str) -> tuple[str, str]:
    """A long note's beginning, up to its bracket, and the rest; a short one stays whole."""
    short, bracket, rest = note.partition(" (")
    return (short, bracket.strip() + rest) if bracket and len(note) > _LONG_NOTE else (note, "")


def _bind(header: str) -> str:
    """A header whose comparisons, such as "ties = 0", are not parted at the end of a line."""
    return re.sub(r" ([=<]) ", "\u00a0\\1\u00a0", header)


_STYLE = """\
:root { color-scheme: light dark; --ink: #1d2329; --quiet: #59636d; --line: #dfe3e7; --paper: #fff; --raised: #f5f7f9;
  --bar: #2f6690; --derived: #b86e00; --third: #3d7a4a; --fourth: #8a4d8f;
  --edge: rgb(29 35 41 / 14%); }
@media (prefers-color-scheme: dark) and (not print) { :root { --ink: #e3e6e9; --quiet: #9da7b0; --line: #363d44;
  --paper: #14181c; --raised: #1c2228; --bar: #79b0dc; --derived: #e3a34a; --third: #86c796; --fourth: #d09ad4;
  --edge: rgb(0 0 0 / 55%); } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: var(--ink);
  background: var(--paper); max-width: 74rem; margin: 0 auto; padding: 2.5rem 1.25rem 3rem; }
header { border-bottom: 1px solid var(--line); padding-bottom: 1.5rem; margin-bottom: 1.5rem; }
.subject { color: var(--quiet); font-size: 0.95rem; margin: 0; }
h1 { font-size: 1.9rem; line-height: 1.2; font-weight: 650; letter-spacing: -0.015em; margin: 0.15rem 0 0; }
h2 { font-size: 1.3rem; line-height: 1.3; font-weight: 650; letter-spacing: -0.01em; margin: 2.75rem 0 0.75rem; }
h3 { font-size: 1rem; font-weight: 600; margin: 1.5rem 0 0.25rem; }
h1, h2, h3, p, li, figcaption, .asked { overflow-wrap: anywhere; }
p { max-width: 46rem; margin: 0.5rem 0; }
.key { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, max-content)); gap: 1rem 2.75rem;
  margin: 1.4rem 0 0; }
.key dd { margin: 0; font-size: 1.75rem; line-height: 1.15; font-weight: 600; letter-spacing: -0.02em;
  font-variant-numeric: tabular-nums; }
.key dt { color: var(--quiet); font-size: 0.85rem; line-height: 1.35; max-width: 14rem; margin-top: 0.2rem; }
.key div { display: flex; flex-direction: column-reverse; justify-content: flex-end; }
.note { border-left: 3px solid var(--derived); padding: 0.05rem 0 0.05rem 0.8rem; margin: 0.5rem 0; max-width: 46rem;
  font-size: 0.925rem; overflow-wrap: anywhere; } summary { cursor: pointer; }
.quiet, figcaption, footer { color: var(--quiet); font-size: 0.875rem; }
.wide { overflow-x: auto; margin: 0.5rem 0; background:
  linear-gradient(to left, var(--paper) 1rem, transparent 2.5rem) right / 2.5rem 100% no-repeat local,
  linear-gradient(to left, var(--edge), transparent) right / 0.8rem 100% no-repeat scroll; }
.wide:focus-visible { outline: 2px solid var(--bar); outline-offset: 2px; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.34rem 0.8rem 0.34rem 0; text-align: right; white-space: nowrap; vertical-align: middle;
  border-bottom: 1px solid var(--line); }
thead th { color: var(--quiet); font-weight: 500; font-size: 0.8rem; line-height: 1.3; vertical-align: bottom;
  white-space: normal; min-width: 3.6rem; max-width: 7rem; }
tbody th { font-weight: 400; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); white-space: normal;
  overflow-wrap: anywhere; min-width: var(--name); max-width: 17rem; }
tr.strong > * { font-weight: 650; }
tr.strong:not(:first-child) > * { padding-top: 0.7rem; }
tr.part > th { padding-left: 0.9rem; color: var(--quiet); }
td.drawn { padding-right: 1.4rem; }
td.drawn svg { display: block; width: 7.5rem; height: 0.9rem; overflow: visible; }
.s0 { color: var(--bar); } .s1 { color: var(--derived); } .s2 { color: var(--third); } .s3 { color: var(--fourth); }
.key i, thead i { display: inline-block; width: 0.6rem; height: 0.6rem; border-radius: 50%; background: currentColor;
  margin-right: 0.35rem; print-color-adjust: exact; }
.rail { stroke: var(--line); stroke-width: 1; } .mark { stroke: var(--quiet); stroke-width: 1; }
.span { stroke: currentColor; stroke-width: 2.5; stroke-linecap: round; opacity: 0.55; } .dot { fill: currentColor; }
.shaded td { padding: 0.34rem 0.7rem; text-align: center; print-color-adjust: exact;
  -webkit-print-color-adjust: exact; }
.shaded thead th { padding-left: 0.7rem; text-align: center; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); margin: 1rem 0;
  gap: 1.75rem 2.25rem; }
figure { margin: 0; break-inside: avoid; } figure svg { width: 100%; height: auto; max-width: 27rem; display: block; }
figcaption { margin-top: 0.35rem; max-width: 27rem; }
figcaption b { color: var(--ink); font-weight: 600; display: block; }
article { border-top: 1px solid var(--line); padding: 1.1rem 0 1.3rem; break-inside: avoid-page; }
article h3 { margin: 0; }
.facts { color: var(--quiet); font-size: 0.85rem; margin: 0.1rem 0 0.6rem; font-variant-numeric: tabular-nums;
  max-width: none; }
.asked { border-left: 3px solid var(--line); padding-left: 0.8rem; margin: 0 0 0.9rem; }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); gap: 0.9rem; }
.side { background: var(--raised); border-radius: 6px; padding: 0.75rem 0.95rem; min-width: 0; }
.side h4 { margin: 0; font-size: 0.85rem; font-weight: 600; }
pre { font: inherit; font-size: 0.9rem; white-space: pre-wrap; overflow-wrap: anywhere; margin: 0;
  unicode-bidi: isolate; }
@media screen { .side pre, .asked pre { max-height: 20rem; overflow-y: auto; } }
footer { border-top: 1px solid var(--line); margin-top: 3rem; padding-top: 1rem; }
footer p { margin: 0.2rem 0; max-width: none; overflow-wrap: anywhere; }
@media (max-width: 36rem) { body { padding: 1.5rem 1rem 2rem; font-size: 15px; } h1 { font-size: 1.5rem; }
  .key { gap: 0.9rem 1.75rem; grid-template-columns: repeat(2, minmax(0, 1fr)); } .key dd { font-size: 1.45rem; }
  th:first-child { min-width: min(var(--name), 8.5rem); max-width: 8.5rem; padding-right: 0.6rem; }
  table { font-size: 0.85rem; } }
@page { margin: 14mm; }
@media print { body { font-size: 9pt; max-width: none; padding: 0; } h2, h3, .facts { break-after: avoid; }
  .wide { overflow: visible; background: none; } table { font-size: 6.8pt; } tr { break-inside: avoid; }
  th, td { padding: 0.2rem 0.4rem 0.2rem 0; } thead th { font-size: 6.3pt; min-width: 0; max-width: 4.6rem; }
  th:first-child { position: static; min-width: min(var(--name), 17ch); } article { break-inside: auto; }
  .sides { grid-template-columns: 1fr 1fr; } .side { border: 1px solid var(--line); }
  pre, .facts, .quiet, figcaption, footer { font-size: 8pt; }
  td.drawn { padding-right: 0.6rem; } td.drawn svg { width: 4rem; } .s0, .s1, .s2, .s3 { print-color-adjust: exact; } }
"""

# Text from data is escaped; only the style and the plots, which hold none, are marked safe.
_ENVIRONMENT = make_environment(
    shade=partial(shade_correlation, deepest=45), place=_place, fold=_fold, bind=_bind, name_width=_name_width
)
_PAGE = _ENVIRONMENT.from_string("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ report.subject }}: {{ report.title }}</title>
<style>
{{ style | safe }}</style>
</head>
<body>
<header>
<p class="subject">{{ report.subject }}</p>
<h1>{{ report.title }}</h1>
{% if report.figures %}
<dl class="key">
{% for figure in report.figures %}
<div><dt>{% if figure.series is not none %}<i class="s{{ figure.series % 4 }}"></i>{% endif %}
{{ figure.label | bind }}</dt><dd>{{ figure.value }}</dd></div>
{% endfor %}
</dl>
{% endif %}
</header>
{% for note in report.notes %}
{% set short, rest = note | fold %}
{% if rest %}
<details class="note"><summary>{{ short }}</summary>{{ rest }}</details>
{% else %}
<p class="note">{{ note }}</p>
{% endif %}
{% endfor %}
{% macro draw(drawing, axis, series) %}
<svg class="s{{ series % 4 }}" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">\
<line class="rail" x1="0" x2="100" y1="5" y2="5" vector-effect="non-scaling-stroke"/>\
{% if drawing.mark is not none %}<line class="mark" x1="{{ drawing.mark | place(axis) }}" \
x2="{{ drawing.mark | place(axis) }}" y1="1" y2="9" vector-effect="non-scaling-stroke"/>{% endif %}\
<line class="span" x1="{{ drawing.low | place(axis) }}" x2="{{ drawing.high | place(axis) }}" y1="5" y2="5" \
vector-effect="non-scaling-stroke"/>\
<ellipse class="dot" cx="{{ drawing.value | place(axis) }}" cy="5" rx="2.6" ry="2.8"/></svg>
{% endmacro %}
{% macro drawn(row, axis) %}
<td class="drawn">{% for drawing in row.drawings %}{{ draw(drawing, axis, loop.index0) }}{% endfor %}</td>
{% endmacro %}
{% macro show(table, name) %}
<div class="wide{{ " shaded" if table.shaded }}" tabindex="0" role="region" aria-label="{{ table.title or name }}" \
style="--name: {{ table | name_width }}ch">
<table>
<thead><tr>{% for cell in table.header %}
{% if table.axis and loop.index0 == table.drawn_at %}<td></td>{% endif %}
<th scope="col">{% if table.keyed_from and loop.index0 >= table.keyed_from %}
<i class="s{{ (loop.index0 - table.keyed_from) % 4 }}"></i>{% endif %}{{ cell | bind }}</th>{% endfor %}
{% if table.axis and table.drawn_at >= table.header | length %}<td></td>{% endif %}
</tr></thead>
<tbody>
{% for row in table.rows %}
<tr{% if row.strong %} class="strong"{% elif row.indented %} class="part"{% endif %}>
{% for cell in row.cells %}
{% if table.axis and loop.index0 == table.drawn_at %}
{{ drawn(row, table.axis) }}
{% endif %}
{% if loop.first %}
<th scope="row">{{ cell }}</th>
{% else %}
<td{% if table.shaded and cell | shade %} style="{{ cell | shade }}"{% endif %}>{{ cell }}</td>
{% endif %}
{% endfor %}
{% if table.axis and table.drawn_at >= row.cells | length %}
{{ drawn(row, table.axis) }}
{% endif %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
{% if table.note %}
<p class="quiet">{{ table.note }}</p>
{% endif %}
{% endmacro %}
{% for section in report.sections %}
<section>
<h2>{{ section.title }}</h2>
{% if section.text %}
<p>{{ section.text }}</p>
{% endif %}
{% for table in section.tables %}
{% if table.title %}
<h3>{{ table.title }}</h3>
{% endif %}
{{ show(table, section.title) }}
{% endfor %}
{% if section.figures %}
<div class="figures">
{% for figure in section.figures %}
<figure>{{ figure.svg | safe }}<figcaption><b>{{ figure.title }}</b> {{ figure.caption }}</figcaption></figure>
{% endfor %}
</div>
{% endif %}
{% for excerpt in section.excerpts %}
<article>
<h3>{{ excerpt.title }}</h3>
<p class="facts">{{ excerpt.facts | join(" · ") }}</p>
{% if excerpt.asked %}
<div class="asked"><pre dir="auto" tabindex="0">{{ excerpt.asked }}</pre></div>
{% endif %}
<div class="sides">
{% for response in excerpt.responses %}
<div class="side">
<h4>{{ response.label }}</h4>
<p class="facts">{{ response.facts | join(" · ") }}</p>
<pre dir="auto" tabindex="0">{{ response.text }}</pre>
</div>
{% endfor %}
</div>
</article>
{% endfor %}
</section>
{% endfor %}
<footer>
{% for line in report.source %}
<p>{{ line }}</p>
{% endfor %}
</footer>
</body>
</html>
""")


def render_page(report: Report) -> str:
    """The report as the text of an HTML page. The same report gives the same page."""
    return _PAGE.render(report=report, style=_STYLE)
