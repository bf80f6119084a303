"""The look at a prepared folder: right figures, texts that can do no harm, and a page that loads nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from scipy.stats import pearsonr, spearmanr

from rmkit.errors import DataError
from rmkit.evaluation.texts import make_printable, shorten
from rmkit.inspection.columns import AttributeColumn, RatedReader
from rmkit.inspection.figures import average, bin_by_length, correlate, count_longer, count_scores
from rmkit.inspection.folder import inspect_folder
from rmkit.inspection.page import render_page, write_page
from rmkit.inspection.tables import MOST_GROUPS, Table, count_subsets, split_groups
from rmkit.inspection.text import align_table, render_text
from rmkit.jsonl import read_jsonl, write_jsonl
from rmkit.manifest import read_json, sha256_file, write_json
from rmkit.preparation.conversion import Refusal
from rmkit.preparation.folder import PAIR_FILES, RATED_FILES, write_prepared
from rmkit.row_files import PAIR_SCHEMA, RATED_SCHEMA, build_batch
from rmkit.rubric import Attribute, Rubric, load_rubric
from rmkit.schema import Message, PreferencePair, RatedResponse

RUBRIC = load_rubric("helpsteer")
ORIGIN = {"dataset": "mine", "source": {"name": "mine.jsonl", "revision": "abc"}, "max_rows": None}
HOSTILE = "</pre><script>alert(1)</script><img src=http://evil.example/x>"
REFUSAL = Refusal("mine.jsonl", 7, "mine/000006", "rating_missing", f"no rating {HOSTILE}", {"odd": "\ud800"})


def row(number: int, source: str = "mine", **changes: Any) -> RatedResponse:
    """A row whose helpfulness rises and whose verbosity falls with its number, in turns of five."""
    fields: dict[str, Any] = {
        "response": "x" * (number + 1),
        "scores": {"helpfulness": number % 5 + 1, "verbosity": 5 - number % 5},
        **changes,
    }
    return RatedResponse(f"{source}/{number:06d}a", source, (Message("user", f"Question {number // 2}"),), **fields)


def pair(number: int, subset: str = "a", chosen: Sequence[str] = ("Hello!",), **changes: Any) -> PreferencePair:
    """A pair whose rejected side is longer."""
    conversation = (Message("user", "Hi"),)
    return PreferencePair(f"{subset}/{number}", subset, conversation, tuple(chosen), ("Go away.",), **changes)


def write(folder: Path, found: Sequence[Any], files: tuple[str, ...] = RATED_FILES, fraction: float = 0.0) -> Path:
    """A prepared folder of rows, pairs and refusals."""
    outcomes = [item if isinstance(item, Refusal) else (item,) for item in found]
    rubric = None if files == PAIR_FILES else RUBRIC
    write_prepared(folder, outcomes, files, rubric, 0, fraction, ORIGIN)
    return folder


def change_manifest(folder: Path, **changes: Any) -> None:
    """Rewrite a manifest with some keys changed and the sums of its files made right again."""
    manifest = {**read_json(folder / "manifest.json"), **changes}
    manifest["files"] = {name: {**f, "sha256": sha256_file(folder / name)} for name, f in manifest["files"].items()}
    write_json(folder / "manifest.json", manifest)


class Page(HTMLParser):
    """What a browser would make of a page: its elements, its texts, and whether each element is closed."""

    VOID = {"meta", "img", "br", "link", "input", "hr"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._open and self._open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.fixture
def run(repo: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run(*args)`: run the script as a user would."""

    def run_script(*args: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(repo / "data_prep" / "inspect_data.py"), *map(str, args)]
        env = {**os.environ, "PYTHONPATH": str(repo)}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)

    return run_script


@pytest.fixture
def mix(tmp_path: Path) -> Path:
    return write_mix(tmp_path / "mix")


def write_mix(folder: Path) -> Path:
    """Three sources, derived scores, rows with a rubric of their own, a hostile response, source and refusal."""
    own = Rubric("own", (Attribute("helpfulness", "Helpfulness"), Attribute("grade", "Grade", minimum=0, maximum=100)))
    found: list[Any] = [row(n, derived=("helpfulness",) if n % 4 == 0 else ()) for n in range(100)]
    found += [row(n, "other", scores={"helpfulness": 3}) for n in range(40)]
    found += [row(n, "own", scores={"helpfulness": 5, "grade": 10 * n}, rubric=own) for n in range(10)]
    found += [row(0, HOSTILE, response=f"\x1b[31m{HOSTILE}", scores={"helpfulness": 1}), REFUSAL]
    return write(folder, found, fraction=0.1)


def find(text: str, start: str) -> list[str]:
    """The cells of the first line that starts so."""
    line = next(line for line in text.split("\n") if line.startswith(start))
    return re.split(r"\s{2,}", line.strip())


# Figures.


def column(
    scores: Sequence[float | None], low: int = 1, high: int = 5, derived: Sequence[int] = ()
) -> AttributeColumn:
    """A column of scores, some of them derived."""
    values = np.array([np.nan if score is None else score for score in scores], dtype=np.float32)
    return AttributeColumn("quality", (low, high), 1.0, values, np.isin(np.arange(len(scores)), derived))


def test_histograms_count_scores_and_what_is_derived() -> None:
    histogram = count_scores(column([1, 1, None, 5, 4], derived=[0, 2]))
    assert histogram.labels == ("1", "2", "3", "4", "5")
    assert histogram.counts.tolist() == [2, 0, 0, 1, 1]
    assert histogram.derived.tolist() == [1, 0, 0, 0, 0]
    assert histogram.shares.tolist() == [0.5, 0, 0, 0.25, 0.25]
    only = count_scores(column([1, 1, None, 5, 4]), np.array([False, True, True, True, False]))
    assert only.counts.tolist() == [1, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("low", "high", "first", "last", "bars"),
    [(0, 20, "0", "20", 21), (0, 100, "0-4", "100", 21), (1, 100, "1-5", "96-100", 20), (0, 1000, "0-49", "1000", 21)],
)
def test_long_scales_are_counted_in_ranges(low: int, high: int, first: str, last: str, bars: int) -> None:
    histogram = count_scores(column([low, high, high], low, high))
    assert (histogram.labels[0], histogram.labels[-1], len(histogram.labels)) == (first, last, bars)
    assert (histogram.counts[0], histogram.counts[-1], histogram.counts.sum()) == (1, 2, 3)


def test_correlations_are_scipys_over_the_rows_that_have_both() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(1, 6, 200).astype(float)
    y = np.clip(x + rng.integers(-1, 3, 200), 1, 5)
    y[:50] = np.nan
    found = correlate(x, y)
    expected = pearsonr(x[50:], y[50:])
    assert found.n == 150
    assert found.pearson == pytest.approx(expected.statistic)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-6)
    assert found.spearman == pytest.approx(spearmanr(x[50:], y[50:]).statistic)


def test_what_has_no_correlation_gets_none() -> None:
    for x, y in (([1, 1, 1, 1], [1, 2, 3, 4]), ([1, 2], [1, 2]), ([], []), ([1, 2, np.nan], [np.nan, 1, 2])):
        found = correlate(np.array(x, dtype=float), np.array(y, dtype=float))
        assert (found.pearson, found.interval, found.spearman) == (None, None, None)
    assert correlate(np.array([1.0, 2, 3]), np.array([1.0, 2, 4])).interval is None  # Fisher's needs four rows
    perfect = correlate(np.array([1.0, 2, 3, 4]), np.array([2.0, 4, 6, 8]))
    assert perfect.pearson == pytest.approx(1) and perfect.spearman == pytest.approx(1)


def test_length_bins_hold_equally_many_rows_and_part_no_equal_lengths() -> None:
    lengths = np.arange(1, 201)
    bins = bin_by_length([column([1] * 100 + [5] * 100)], lengths)
    assert [(b.low, b.high, b.rows) for b in bins] == [(20 * n + 1, 20 * n + 20, 20) for n in range(10)]
    assert [b.scores[0].mean for b in bins] == [1.0] * 5 + [5.0] * 5
    tied = bin_by_length([column([1] * 200)], np.repeat([7, 9], [190, 10]))
    assert [(b.low, b.high, b.rows) for b in tied] == [(7, 7, 190), (9, 9, 10)]
    (one,) = bin_by_length([column([2])], np.array([30]))
    assert (one.low, one.high, one.rows, one.scores[0].mean, one.scores[0].reach) == (30, 30, 1, 2.0, None)


def test_means_have_students_interval() -> None:
    found = average(np.array([1.0, 2, 3, 4, 5, np.nan]))
    assert (found.n, found.mean) == (5, 3.0)
    assert found.reach == pytest.approx(2.7764451 * 1.5811388 / 5**0.5)  # t of 4 degrees, sd of 1 to 5
    assert average(np.array([1.0, 5.0])).reach is None
    assert average(np.array([np.nan])).mean is None


def test_the_longer_side_is_counted_with_ties_half() -> None:
    found = count_longer(np.array([9.0, 5, 1, 2]), np.array([1.0, 5, 2, 1]))
    assert (found.pairs, found.share) == (4, 0.625)
    assert found.interval[0] < 0.625 < found.interval[1]


def test_small_groups_are_put_together() -> None:
    places = np.repeat(np.arange(20), 3)
    groups = split_groups([f"s{n}" for n in range(20)], places)
    assert [group.name for group in groups] == [*(f"s{n}" for n in range(MOST_GROUPS - 1)), "9 others"]
    assert sum(int(group.rows.sum()) for group in groups) == 60


def test_memory_holds_no_texts() -> None:
    reader = RatedReader(RUBRIC.to_dict())
    for _ in range(1000):
        reader.add({"source": "a", "conversation": [], "response": "x" * 9, "scores": {"helpfulness": 3}})
    columns = reader.finish()
    arrays = [columns.source, columns.turns, columns.asked, columns.answered]
    arrays += [array for a in columns.attributes for array in (a.scores, a.derived)]
    assert sum(array.nbytes for array in arrays) / 1000 <= 16 + 5 * len(RUBRIC.attributes)


# Texts.


def test_texts_can_not_steer_a_terminal() -> None:
    assert make_printable("a\x1b[31m\x00\x7f\x9b\r\nb\tc\rd \ud800 模型 é") == (
        "a\\x1b[31m\\x00\\x7f\\x9b\nb\tc\\rd \\ud800 模型 é"
    )
    assert shorten("abcdefgh", 8) == "abcdefgh"
    assert shorten("abcdefghi", 4) == "ab\n[... 5 characters ...]\nhi"


def test_a_table_is_aligned() -> None:
    table = Table("T", ("name", "n"), (("a", "1,000"), ("longer", "2")), ("Why.",))
    assert align_table(table) == "T\nname        n\na       1,000\nlonger      2\nWhy."


def test_rated_rows_as_text(tmp_path: Path) -> None:
    write(tmp_path, [*(row(n) for n in range(100)), REFUSAL])
    text = render_text(inspect_folder(tmp_path, examples=3, max_characters=700))
    assert text.startswith("mine from mine.jsonl at revision abc\n")
    assert find(text, "raw records") == ["raw records", "101"]
    assert find(text, "records accepted") == ["records accepted", "100"]
    assert find(text, "rating_missing") == [
        "rating_missing",
        "refused",
        "1",
        "1.0%",
        f"mine.jsonl:7: no rating {HOSTILE}",
    ]
    assert "no validation rows" in text
    assert find(text, "helpfulness ") == [
        "helpfulness",
        "1-5",
        "1",
        "100",
        "100.0%",
        "3.00",
        "1.42",
        "0.0%",
        "1 (20%)",
    ]
    assert find(text, "coherence ") == ["coherence", "1-5", "1", "0", "0.0%", *"----"]
    assert "helpfulness (100 rated)\n    1        20  20.0%  " + "#" * 40 in text
    assert find(text, "response, characters ")[1:] == ["1", "50", "50", "95", "100"]
    assert "1-20                    20  3.00 ± 0.68  3.00 ± 0.68\n" in text
    matrix = text[text.index("Correlations") :]
    assert find(matrix, "verbosity") == ["verbosity", "-1.00", "-0.05"]  # Pearson, nothing on the diagonal, Spearman
    assert [line for line in text.split("\n") if line.endswith("(train.jsonl)")] == [
        "mine/000000a (train.jsonl)",
        "mine/000050a (train.jsonl)",
        "mine/000099a (train.jsonl)",
    ]
    assert ">>> Helpfulness: 5, Verbosity: 1" in text and "characters ...]" in text


def test_a_mix_is_told_apart_by_source(mix: Path) -> None:
    text = render_text(inspect_folder(mix))
    assert find(text, "helpfulness  ")[3:] == ["141", "93.4%", "2.99", "1.21", "17.7%", "3 (43%)"]
    table = text[text.index("helpfulness by source") :]
    assert find(table, "mine") == ["mine", "100", "3.00", "1.42", "25.0%", "20", "20", "20", "20", "20"]
    assert find(table, "other") == ["other", "40", "3.00", "0.00", "0.0%", "0", "0", "100", "0", "0"]
    assert "verbosity (100 rated, all in mine)" in text
    assert "10 rows bring a rubric of their own" in text
    assert find(text, "helpfulness (rows' own")[:5] == [
        "helpfulness (rows' own rubrics, 1-5)",
        "1-5",
        "-",
        "10",
        "6.6%",
    ]
    assert "The same score in every row, so nothing can be learnt from it: helpfulness (rows' own" in text
    assert "grade (rows' own rubrics, 0-100) (10 rated, all in own)\n  0-4" in text
    lengths = text[text.index("Correlation with the response's length") :]
    assert find(lengths, "other")[1] == "-"  # its scores are constant
    assert "\x1b" not in text


def test_pairs_as_text(tmp_path: Path) -> None:
    found = [pair(0), pair(1), pair(0, "b", ("A much longer one.",)), pair(1, "b", ("One", "or the other one."))]
    write(tmp_path, found, PAIR_FILES)
    text = render_text(inspect_folder(tmp_path))
    assert find(text, "a   ")[:3] == ["a", "2", "0.0%"] and find(text, "b   ")[:3] == ["b", "2", "100.0%"]
    assert find(text, "all")[:3] == ["all", "4", "50.0%"]
    assert "Responses chosen against rejected: 1 against 1 in 3, 2 against 1 in 1 pairs." in text
    assert "[user] Hi\n>>> chosen: Hello!\n>>> rejected: Go away." in text
    assert "Scores" not in text and "Correlations" not in text


def test_many_subsets_are_put_together(tmp_path: Path) -> None:
    write(tmp_path, [pair(0, f"s{n:02d}") for n in range(60)], PAIR_FILES)
    pairs = inspect_folder(tmp_path).pairs
    assert pairs is not None
    assert [cells[0] for cells in count_subsets(pairs).rows][-3:] == ["s38", "21 others", "all"]


def test_drops_are_listed_beside_refusals(tmp_path: Path) -> None:
    write(tmp_path, [*(row(n) for n in range(9)), REFUSAL])
    drop = {"id": "mine/000003b", "reason": "near_duplicate", "message": "is like mine/000001a"}
    write_jsonl(tmp_path / "dropped.jsonl", [drop, {**drop, "id": "x"}])
    write_jsonl(tmp_path / "reported.jsonl", [{**drop, "reason": "contaminated"}])
    manifest = read_json(tmp_path / "manifest.json")
    new = {name: {"rows": rows, "sha256": ""} for name, rows in (("dropped.jsonl", 2), ("reported.jsonl", 1))}
    files = {**manifest["files"], **new}
    change_manifest(tmp_path, dropped={"near_duplicate": 2}, reported={"contaminated": 1}, files=files)
    text = render_text(inspect_folder(tmp_path))
    assert find(text, "rows dropped") == ["rows dropped", "2"]
    assert find(text, "near_duplicate") == [
        "near_duplicate",
        "dropped",
        "2",
        "-",
        "mine/000003b: is like mine/000001a",
    ]
    assert find(text, "rating_missing")[:3] == ["rating_missing", "refused", "1"]
    assert find(text, "contaminated")[:3] == ["contaminated", "reported", "1"]


def test_the_sources_of_a_mix_are_counted(mix: Path) -> None:
    counts = {"raw_records": 3000, "accepted": 2, "refused": {"tie": 900, "empty": 98}, "dropped": {}, "rows": 2}
    sources = [{"name": HOSTILE, "rule": None, **counts}, {"name": "two", "rule": "rank", **counts}]
    change_manifest(mix, sources=sources, turns_left_out=7)
    text = render_text(inspect_folder(mix))
    assert find(text, "two  ") == ["two", "rank", "3,000", "2", "998", "0", "0", "2"]
    assert find(text, "rows without") == ["rows without their oldest turns", "7"]
    page = Page(render_page(inspect_folder(mix)))
    assert [HOSTILE, "-", "3,000", "2", "998", "0", "0", "2"] in page.rows and "script" not in page.tags


@pytest.mark.parametrize("kind", ["rated", "pairs"])
def test_parquet_shows_the_same(kind: str, tmp_path: Path) -> None:
    found: list[Any] = [pair(n) for n in range(9)] if kind == "pairs" else [row(n) for n in range(9)]
    write(tmp_path, found, PAIR_FILES if kind == "pairs" else RATED_FILES)
    before = render_text(inspect_folder(tmp_path))
    manifest = read_json(tmp_path / "manifest.json")
    files = {}
    for name, file in manifest["files"].items():
        if name == "refused.jsonl":
            files[name] = file
            continue
        schema = PAIR_SCHEMA if kind == "pairs" else RATED_SCHEMA
        batch = build_batch([record for _, record in read_jsonl(tmp_path / name)], schema)
        new = Path(name).with_suffix(".parquet").name
        pyarrow.parquet.write_table(pyarrow.Table.from_batches([batch], schema), tmp_path / new)
        (tmp_path / name).unlink()
        files[new] = {**file, "sha256": ""}
    change_manifest(tmp_path, files=files)
    after = render_text(inspect_folder(tmp_path))
    squeezed = [re.sub(r"\s+", " ", text.replace(".parquet", ".jsonl")) for text in (before, after)]
    assert squeezed[0] == squeezed[1] and ".parquet" in after


def test_one_row_is_enough(tmp_path: Path) -> None:
    inspection = inspect_folder(write(tmp_path, [row(3)]))
    text = render_text(inspection)
    assert find(text, "helpfulness ")[3:] == ["1", "100.0%", "4.00", "-", "0.0%", "4 (100%)"]
    assert find(text, "4-4") == ["4-4", "1", "4.00 (1)", "2.00 (1)"]
    assert text.count("(train.jsonl)") == 1
    assert Page(render_page(inspection)).tags.count("article") == 1


def test_examples_come_from_the_first_file_that_has_rows(tmp_path: Path) -> None:
    write(tmp_path, [row(n) for n in range(4)], fraction=0.9)
    inspection = inspect_folder(tmp_path)
    assert {example.file for example in inspection.examples} == {"validation.jsonl"}
    assert len(inspection.examples) == 3


def test_attributes_of_rows_own_rubrics_are_limited(tmp_path: Path) -> None:
    rubrics = [Rubric("own", (Attribute(f"key_{n}", f"Key {n}"),)) for n in range(20)]
    write(tmp_path, [row(n, scores={f"key_{n}": 3}, rubric=rubric) for n, rubric in enumerate(rubrics)])
    text = render_text(inspect_folder(tmp_path))
    assert "8 scores on further attributes are not shown" in text
    assert "key_11 (rows' own" in text and "key_12 (rows' own" not in text


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, [row(n) for n in range(6)])
    with (tmp_path / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n")
    with pytest.raises(DataError, match="not the file that was prepared"):
        inspect_folder(tmp_path)


# The page.


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render_page(inspect_folder(write_mix(tmp_path_factory.mktemp("mix"))))


def test_the_page_escapes_what_comes_from_data(page: str) -> None:
    parsed = Page(page)
    assert "script" not in parsed.tags and "img" not in parsed.tags
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "<script" not in page
    assert "\x1b" not in page and "\ud800" not in page
    assert any(HOSTILE in text for text in parsed.texts)  # in an example or a refusal, as text


def test_the_page_loads_nothing(page: str) -> None:
    parsed = Page(page)
    links = [value for name, value in parsed.attributes if name in ("src", "href", "xlink:href", "srcset", "data")]
    assert links and all(link is not None and link.startswith("#") for link in links)  # ticks of plots
    assert not {"link", "iframe", "object", "base", "script"} & set(parsed.tags)
    assert not any("http" in (value or "") for _, value in parsed.attributes)
    assert "@import" not in page and "url(h" not in page


def test_the_page_shows_the_counts(page: str) -> None:
    rows = Page(page).rows
    assert ["raw records", "152"] in rows and ["records accepted", "151"] in rows and ["records refused", "1"] in rows
    assert ["mine", "100", "3.00", "1.42", "25.0%", "20", "20", "20", "20", "20"] in rows
    assert rows[0] == ["what", "count"]


def test_the_page_says_which_files_it_was_made_from(mix: Path) -> None:
    page = render_page(inspect_folder(mix))
    assert f"<li>train.jsonl {sha256_file(mix / 'train.jsonl')}</li>" in page


def test_correlations_within_sources_stand_on_the_page(page: str) -> None:
    within = page[page.index("Within mine") : page.index("Within other")]
    rows = Page(within[within.index("<table>") : within.index("</table>") + 8]).rows
    assert rows[0] == ["", "helpfulness", "verbosity", "length"]
    assert rows[2][:2] == ["verbosity", "-1.00"]
    assert "background: rgb(199 125 11 / 60%)" in within


def test_each_source_has_its_histogram(page: str) -> None:
    captions = re.findall(r"<figcaption><b>(.*?)</b> (.*?)</figcaption>", page)
    scores = [(name, rated) for name, rated in captions if rated.endswith("rated")]
    assert scores[:4] == [
        ("all rows", "141 rated"),
        ("mine", "100 rated"),
        ("other", "40 rated"),
        ("&lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;img src=http://evil.example/x&gt;", "1 rated"),
    ]
    assert 'class="key derived"' in page


def test_plots_are_whole_and_share_no_ids(page: str) -> None:
    plots = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    ids: list[str] = []
    assert len(plots) > 8
    for plot in plots:
        root = ElementTree.fromstring(plot)
        own = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        assert {use.attrib["href"][1:] for use in root.iter("use")} <= set(own)
        assert {url for url in re.findall(r"url\(#(.*?)\)", plot)} <= set(own)
        assert "currentColor" in plot and "#010203" not in plot
        ids += own
    assert len(ids) == len(set(ids))


def test_bars_are_as_tall_as_the_shares(tmp_path: Path) -> None:
    scores = [1, 2, 2, 3, 3, 3, 3]
    write(tmp_path, [row(n, scores={"helpfulness": score}) for n, score in enumerate(scores)])
    page = render_page(inspect_folder(tmp_path))
    plot = next(p for p in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    bars = re.findall(r'<path d="([^"]*)" clip-path="[^"]*" style="fill: var\(--bar\)"', plot)
    heights = []
    for bar in bars:
        y = [float(value) for value in re.findall(r"[ML] [\d.]+ ([\d.]+)", bar)]
        heights.append(max(y) - min(y))
    assert len(heights) == 5
    assert heights[1] / heights[0] == pytest.approx(2, rel=1e-4) and heights[2] / heights[0] == pytest.approx(
        4, rel=1e-4
    )
    assert heights[3:] == [0, 0]


def test_the_page_is_the_same_at_every_run(mix: Path, tmp_path: Path) -> None:
    for name in ("one.html", "two.html"):
        write_page(inspect_folder(mix), tmp_path / "new" / name)
    assert (tmp_path / "new" / "one.html").read_bytes() == (tmp_path / "new" / "two.html").read_bytes()


def test_pages_of_pairs_and_of_both(tmp_path: Path) -> None:
    write(tmp_path / "pairs", [pair(n) for n in range(5)], PAIR_FILES)
    page = Page(render_page(inspect_folder(tmp_path / "pairs")))
    assert ["a", "5", "0.0%", "0.0% to 43.4%"] in page.rows and page.tags.count("svg") == 1
    write(tmp_path / "both", [*(row(n) for n in range(5)), *(pair(n) for n in range(5))], (*RATED_FILES, *PAIR_FILES))
    page = Page(render_page(inspect_folder(tmp_path / "both")))
    assert ["a", "5", "0.0%", "0.0% to 43.4%"] in page.rows and page.tags.count("svg") == 7


def test_a_page_that_can_not_be_written(mix: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(DataError, match="name another place with --html"):
        write_page(inspect_folder(mix), tmp_path / "file" / "page.html")


# The command.


def test_the_command_says_where_the_page_is(run: Any, mix: Path, tmp_path: Path) -> None:
    done = run(mix)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"the page with plots: {mix / 'inspection.html'}\n")
    assert "Correlations" in done.stdout
    Page((mix / "inspection.html").read_text("utf-8"))
    done = run(mix, "--html", tmp_path / "a" / "b.html", "--examples", "0")
    assert done.returncode == 0 and (tmp_path / "a" / "b.html").is_file()
    before = (mix / "train.jsonl").read_bytes()
    done = run(mix, "--html", mix / "train.jsonl")
    assert done.returncode == 2 and "ends in .html" in done.stderr and (mix / "train.jsonl").read_bytes() == before


def test_a_reader_that_stops_early_is_no_error(mix: Path, repo: Path) -> None:
    command = f"'{sys.executable}' '{repo / 'data_prep' / 'inspect_data.py'}' '{mix}' | true"
    env = {**os.environ, "PYTHONPATH": str(repo)}
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (mix / "inspection.html").is_file()


def test_rated_rows_without_a_rubric(mix: Path) -> None:
    change_manifest(mix, rubric=None)
    with pytest.raises(DataError, match="no rubric"):
        inspect_folder(mix)


def test_a_folder_that_is_not_complete(run: Any, mix: Path) -> None:
    (mix / "manifest.json").unlink()
    done = run(mix)
    assert done.returncode == 1 and "run data_prep/prepare.py" in done.stderr and "Traceback" not in done.stderr
    assert not (mix / "inspection.html").exists()
