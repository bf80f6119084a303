from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rmkit.judge import Judge
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Message, PreferencePair, RatedResponse
from rmkit.training.figures import find_figures
from rmkit.training.validation import Validation
from rmkit.training.validation_sample import ValidationSample

RUBRIC = Rubric("two", (Attribute("helpfulness", "Helpfulness"), Attribute("verbosity", "Verbosity", weight=0.0)))


@pytest.fixture(scope="module")
def judge(
    tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Callable[..., Any], save_tiny_judge: Callable[..., Path]
) -> Judge:
    return Judge.load(save_tiny_judge(tmp_path_factory.mktemp("judge"), tiny_tokenizer("split_digits"), RUBRIC))


def test_it_scores_rows_and_pairs_with_the_judge(judge: Judge) -> None:
    own = Rubric("own", (Attribute("tone", "Tone", maximum=3),))
    rows = (
        RatedResponse("1", "", (Message("user", "a"),), "words", {"helpfulness": 5}, reference="list"),
        RatedResponse("2", "", (Message("user", "b"),), "are words", {"tone": 2}, rubric=own),
    )
    pairs = (PreferencePair("3", "", (Message("user", "c"),), ("good words",), ("list", "write")),)
    sample = ValidationSample(RUBRIC, rows, pairs)
    validation = Validation(judge, sample, shard=True)
    found = validation()
    judgments = judge.score(
        ["a", "b", "c", "c", "c"],
        ["words", "are words", "good words", "list", "write"],
        ["list", None, None, None, None],
        [None, own, None, None, None],
    )
    expected = find_figures(RUBRIC, rows, sample.comparisons, judgments)
    assert found == expected.metrics
    assert validation.reliability == expected.reliability
    assert found["pairs"] == 2 and found["errors"] == 0
    assert set(validation.reliability) == {"helpfulness", "tone"}
