"""The report: tables say what the results say, and the page is safe and self-contained."""

from __future__ import annotations

import re

import pytest

from rmkit.evaluation.records import read_scoring
from rmkit.evaluation.report import render_html, write_report
from rmkit.evaluation.results import evaluate
from rmkit.evaluation.tables import render_markdown

HOSTILE = "<script>alert(1)</script> | $x_{$ `*"


@pytest.fixture
def results(write_scoring, tmp_path):
    rows = [("a", HOSTILE, 4, 2), ("b", HOSTILE, 3, 3), ("<img src=x>", "plain", 2, None)]
    return evaluate(read_scoring(write_scoring(tmp_path / "scores", rows)), "pairs", resamples=20)


def test_page_escapes_what_comes_from_files(results):
    page = render_html(results)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;img src=x&gt;: rejected: the prompt is too long" in page


def test_page_loads_nothing(results):
    page = render_html(results)
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 3
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    assert "http" not in re.sub(r'"data:[^"]*"', "", page)


def test_page_without_a_judged_pair(write_scoring, tmp_path):
    scoring = read_scoring(write_scoring(tmp_path, [("a", "x", None, None)]))
    page = render_html(evaluate(scoring, "pairs", resamples=5))
    assert page.count("<img") == 1
    assert "None of the 1 pairs has a verdict" in page


def test_markdown_table_is_one(results):
    text = render_markdown(results)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    table, attributes = rows[:5], rows[5:]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in table} == {13}
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in attributes} == {8}
    assert table[2].startswith(r"| &lt;script&gt;alert(1)&lt;/script&gt; \| $x\_{$ \`\* | 2 | 2 | 75.0 |")
    assert table[4].startswith("| **All pairs** | **3** | **2** | **50.0** |")
    assert "- **Note:** 1 of 3 pairs have no verdict" in text


def test_sections_stand_above_their_subsets(write_scoring, tmp_path):
    rows = [(str(i), name, 4, 2) for i, name in enumerate(["hep-go", "mt-bench-easy", "mt-bench-hard", "donotanswer"])]
    results = evaluate(read_scoring(write_scoring(tmp_path, rows)), "reward_bench", resamples=5)
    labels = [line.split(" | ")[0].strip("|* ") for line in render_markdown(results).splitlines()[4:]]
    assert labels[:9] == [
        "Chat",
        "mt-bench-easy",
        "Chat Hard",
        "mt-bench-hard",
        "Safety",
        "donotanswer",
        "Reasoning",
        "hep-go",
        "Average of sections",
    ]


def test_files_are_the_same_at_every_run(results, tmp_path):
    first = [path.read_bytes() for path in write_report(results, tmp_path / "one")]
    assert first == [path.read_bytes() for path in write_report(results, tmp_path / "two")]
