"""Fixtures shared by the whole suite."""

from __future__ import annotations

from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repo() -> Path:
    """The repository's root."""
    return REPO


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real data, golden values and tokenizers that stands beside some checkouts."""
    path = REPO.parent / "shared"
    if not path.is_dir():
        pytest.skip("the reference folder ../shared is not here")
    return path
