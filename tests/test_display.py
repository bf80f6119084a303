from __future__ import annotations

import subprocess
import sys

import pytest

from rmkit.display import describe, plot_scores
from rmkit.schema import Judgment
from rmkit.scores import ScoreDistribution

JUDGMENT = Judgment(
    attributes={
        "help": ScoreDistribution((1, 2, 3), (0.0, 0.25, 0.75), outside_mass=0.002),
        "total": ScoreDistribution(tuple(range(101)), tuple([0.0] * 100 + [1.0])),
    },
    aggregate=0.9,
)


def test_each_attribute_has_a_line_with_its_distribution() -> None:
    assert describe(JUDGMENT).splitlines() == [
        "help       mean 2.75  mode 3 1| ▂▆|3  outside 2.0e-03",
        "total      mean 100.00  mode 100  outside 0.0e+00",
        "aggregate  0.900",
    ]


def test_a_failed_judgement_says_why() -> None:
    assert describe(Judgment({}, None, error="DataError: it is empty")) == "not judged: DataError: it is empty"
    with pytest.raises(ValueError, match="it is empty"):
        plot_scores(Judgment({}, None, error="DataError: it is empty"))


def test_the_picture_shows_every_probability_and_the_mean() -> None:
    first, second = plot_scores(JUDGMENT).axes
    assert [bar.get_height() for bar in first.patches] == [0.0, 0.25, 0.75]
    assert len(second.patches) == 101
    assert [list(line.get_xdata()) for line in first.lines] == [[2.75, 2.75]]
    assert first.get_title() == "help: 2.75"


def test_one_response_is_not_asked_for_over_http(repo) -> None:
    options = ["--judge", "j", "--instruction", "a", "--response", "b", "--engine", "http"]
    done = subprocess.run(
        [sys.executable, "evaluate/show_scores.py", *options], capture_output=True, text=True, cwd=repo
    )
    assert done.returncode == 2
    assert "argument --engine: invalid choice: 'http'" in done.stderr
