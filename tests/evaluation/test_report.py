"""The report: tables say what the results say, and the page is safe and self-contained."""

from __future__ import annotations

import re

import pytest

from rmkit.evaluation.rated import read_rated
from rmkit.evaluation.ratings import evaluate_ratings
from rmkit.evaluation.records import read_scoring
from rmkit.evaluation.report import render_html, render_markdown, write_report
from rmkit.evaluation.results import evaluate, evaluate_judges
from rmkit.evaluation.reward_bench import COUNTS

HOSTILE = "<script>alert(1)</script> | $x_{$ `*"


@pytest.fixture
def results(write_scoring, tmp_path):
    rows = [("a", HOSTILE, 4, 2), ("b", HOSTILE, 3, 3), ("<img src=x>", "plain", 2, None)]
    return evaluate(read_scoring(write_scoring(tmp_path / "scores", rows)), "pairs", resamples=20)


def test_page_escapes_what_comes_from_files(results):
    page = render_html(results)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert '<th scope="row">&lt;img src=x&gt;</th>\n<td>rejected: the prompt is too long</td>' in page


def test_page_loads_nothing(results):
    page = render_html(results)
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(source.startswith("#") for source in sources)  # parts of the same plot
    assert "http" not in page and "url(" not in re.sub(r"url\(#\w+\)", "", page)
    assert page.count("<figure>") == 3


def test_plots_share_no_ids(write_scoring, tmp_path):
    rows = [(str(i), "x", 1 + i % 4, 2 + i % 3) for i in range(12)]
    scorings = {name: read_scoring(write_scoring(tmp_path / name, rows)) for name in ("a", "b")}
    ids = re.findall(r' id="([^"]*)"', render_html(evaluate_judges(scorings, "pairs", resamples=5)))
    assert len(ids) == len(set(ids)) > 8


def test_page_without_a_judged_pair(write_scoring, tmp_path):
    scoring = read_scoring(write_scoring(tmp_path, [("a", "x", None, None)]))
    page = render_html(evaluate(scoring, "pairs", resamples=5))
    assert "<figure>" not in page
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


def test_worst_disagreement_is_shown_with_its_texts(write_scoring, tmp_path):
    page = render_html(evaluate(read_scoring(write_scoring(tmp_path, [("lost", "x", 1, 4)])), "pairs", resamples=5))
    article = page[page.index("<article>") :]
    assert "<h3>lost</h3>" in article and "margin −0.750" in article
    for text in ("Question lost", "Good.", "Bad.", "aggregate 0.000 · quality 1.00"):
        assert text in article


def test_order_is_tables_then_plots_then_disagreements(results, write_scoring, tmp_path):
    page = render_html(evaluate(read_scoring(write_scoring(tmp_path, [("lost", "x", 1, 4)])), "pairs", resamples=5))
    places = [page.index(part) for part in ("<table>", "<figure>", "<article>")]
    assert places == sorted(places)


def test_two_judges_stand_side_by_side(write_scoring, tmp_path):
    scorings = {
        "one": read_scoring(write_scoring(tmp_path / "one", [("a", "x", 4, 2), ("b", "x", 4, 2)])),
        "two": read_scoring(write_scoring(tmp_path / "two", [("a", "x", 2, 4), ("b", "x", 4, 2)])),
    }
    found = evaluate_judges(scorings, "pairs", resamples=20)
    text = render_markdown(found)
    assert "|  | pairs | one | two |" in text
    assert "| **All pairs** | **2** | **100.0 (34.2 – 100.0)** | **50.0 (9.5 – 90.5)** |" in text
    assert "#### one minus two" in text and "| +50.0 |" in text
    assert "No pair is a tie" in text and "ties = 0 |" not in text.partition("####")[0]
    page = render_html(found)
    assert page.count('<i class="s1"></i>') == 2  # the second judge's colour, large at the top and in the table


def test_ratings_have_a_report_too(write_rated, tmp_path):
    rows = [(str(i), i % 5 + 1, 1 + (i * 7 % 40) / 10) for i in range(40)]
    results = evaluate_ratings(read_rated(*write_rated(tmp_path, rows)), resamples=20)
    text = render_markdown(results)
    assert text.startswith("### Human ratings: tiny") and "| truth | 40 |" in text
    page = render_html(results)
    assert page.count("<figure>") == 3 and "ratings: truth" in page


def test_long_notes_are_folded(write_scoring, tmp_path):
    rows = [(str(i), name, 4, 2) for i, name in enumerate(list(COUNTS)[:9])]
    page = render_html(evaluate(read_scoring(write_scoring(tmp_path, rows)), "reward_bench", resamples=5))
    assert (
        "<summary>Not comparable with published figures: the number of records differs in 9 subsets</summary>" in page
    )


def test_lone_surrogates_in_names_are_written_as_escapes(write_scoring, tmp_path):
    folder = write_scoring(tmp_path, [("a", "x", 1, 4)])
    pairs = (folder / "pairs.jsonl").read_text("utf-8")
    (folder / "pairs.jsonl").write_text(pairs.replace('"x"', r'"x\ud800"').replace("Good.", r"\udfff"), "utf-8")
    paths = write_report(evaluate(read_scoring(folder), "pairs", resamples=5), tmp_path / "report")
    assert all(r"x\ud800" in path.read_text("utf-8") for path in paths)
    assert r"\udfff" in paths[2].read_text("utf-8")
