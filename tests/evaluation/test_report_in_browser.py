"""The page in a real browser, on a phone's and a desk's width. Skipped where there is no Chromium."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import matplotlib.image
import numpy as np
import pytest

from rmkit.evaluation.rated import read_rated
from rmkit.evaluation.ratings import evaluate_ratings
from rmkit.evaluation.records import read_scoring
from rmkit.evaluation.report import write_report
from rmkit.evaluation.results import evaluate, evaluate_judges
from rmkit.jsonl import read_jsonl, write_jsonl

HOSTILE = "<script>alert(1)</script>"
WIDTHS = (400, 1400)

# Loads the page in frames of both widths and says what it finds there. A frame's page is not run in any other way.
PROBE = """<!DOCTYPE html>
<body>%s<pre id="found"></pre>
<script>
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, root = page.documentElement;
    return {width: root.clientWidth, needs: root.scrollWidth, scripts: page.scripts.length,
      outside: [...page.querySelectorAll("[src],[href]")]
        .map(node => node.getAttribute("src") || node.getAttribute("href")).filter(link => !link.startsWith("#")),
      text: page.body.innerText};
  });
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script></body>"""


@pytest.fixture(scope="module")
def chromium():
    """Runs Chromium without a window and returns its standard output; a console message fails the test."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium (CI=1 make test does so as root)")

    def run(folder, *arguments):
        command = [
            program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
            "--allow-file-access-from-files", "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}",
        ]  # fmt: skip
        done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-2000:]
        assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
        return done.stdout

    return run


@pytest.fixture
def reports(write_scoring, write_rated, tmp_path):
    """Folders of a report of one judge, of two, and of agreement with ratings, all with hostile texts."""
    rng = np.random.default_rng(0)
    rows = [(str(i), f"{HOSTILE} {i % 3}", *map(float, rng.uniform(1, 5, 2))) for i in range(60)]
    scorings = {}
    for name in ("a", "b"):
        folder = write_scoring(tmp_path / name, [*rows[:-1], (rows[-1][0], HOSTILE, 1.0, 5.0)])
        pairs = [record for _, record in read_jsonl(folder / "pairs.jsonl")]
        long = HOSTILE + " word" * 200 + "x" * 3000
        write_jsonl(folder / "pairs.jsonl", [{**pair, "rejected": [long]} for pair in pairs])
        scorings[f"{HOSTILE} {name}"] = read_scoring(folder)
    rated = [(str(i), i % 5 + 1, float(rng.uniform(1, 5)), {"response": HOSTILE}) for i in range(60)]
    results = {
        "one": evaluate(scorings[f"{HOSTILE} a"], "pairs", resamples=50),
        "two": evaluate_judges(scorings, "pairs", resamples=50),
        "ratings": evaluate_ratings(read_rated(*write_rated(tmp_path / "rated", rated)), resamples=20),
    }
    for name, found in results.items():
        write_report(found, tmp_path / name)
    return [tmp_path / name for name in results]


def test_pages_fit_run_nothing_and_show_hostile_text_as_text(chromium, reports, tmp_path):
    frames = "".join(
        f'<iframe src="{folder.name}/report.html" style="width:{width}px;height:900px;border:0"></iframe>'
        for folder in reports
        for width in WIDTHS
    )
    (tmp_path / "probe.html").write_text(PROBE % frames, "utf-8")
    page = chromium(tmp_path, "--virtual-time-budget=5000", "--dump-dom", tmp_path / "probe.html")
    found = json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', page, re.DOTALL)[1]))
    assert [seen["width"] for seen in found] == list(WIDTHS) * len(reports)
    for seen in found:
        assert seen["needs"] <= seen["width"], "the page scrolls sideways"
        assert seen["scripts"] == 0 and seen["outside"] == []
        assert HOSTILE in seen["text"]


@pytest.mark.parametrize("width", WIDTHS)
def test_screenshot(chromium, reports, tmp_path, width):
    picture = tmp_path / f"{width}.png"
    chromium(tmp_path, f"--window-size={width},1200", f"--screenshot={picture}", reports[1] / "report.html")
    pixels = matplotlib.image.imread(picture)
    assert pixels.shape[:2] == (1200, width)
    shades = pixels[..., :3].mean(axis=2)
    assert 0.02 < (shades < 0.9 * shades.max()).mean() < 0.6  # ink on paper, neither blank nor all dark


def test_a_console_message_would_be_noticed(chromium, tmp_path):
    (tmp_path / "bad.html").write_text("<script>nothing.here</script>", "utf-8")
    with pytest.raises(AssertionError, match="CONSOLE"):
        chromium(tmp_path, "--dump-dom", tmp_path / "bad.html")
