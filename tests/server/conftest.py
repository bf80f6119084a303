"""A tiny judge and a server of it, for the tests of the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rmkit.rubric import Attribute, Rubric


@pytest.fixture(scope="session")
def judge_folder(
    tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Callable[..., Any], save_tiny_judge: Callable[..., Path]
) -> Path:
    rubric = Rubric("two", (Attribute("helpfulness", "Helpfulness"), Attribute("verbosity", "Verbosity", weight=0.5)))
    folder = tmp_path_factory.mktemp("served") / "tiny_judge"
    return save_tiny_judge(folder, tiny_tokenizer("split_digits"), rubric, max_length=4096, initializer_range=0.3)


@pytest.fixture(scope="session")
def server(
    judge_folder: Path, tmp_path_factory: pytest.TempPathFactory, start_server: Callable[..., Any]
) -> Iterator[Any]:
    """A server of the judge with the default limits."""
    with start_server(judge_folder, tmp_path_factory.mktemp("server") / "log") as running:
        yield running


@pytest.fixture(scope="session")
def strict_server(
    judge_folder: Path, tmp_path_factory: pytest.TempPathFactory, start_server: Callable[..., Any]
) -> Iterator[Any]:
    """A server of the judge that asks for the key `secret` and takes little."""
    options = ("--max-queue", "8", "--max-items", "4", "--max-body-mib", "1")
    log = tmp_path_factory.mktemp("server") / "log"
    with start_server(judge_folder, log, *options, env={"RMKIT_API_KEY": "secret"}) as running:
        yield running
