"""What the tests of every experiment start from."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.fixture(scope="module")
def modules(request: pytest.FixtureRequest, repo: Path) -> Iterator[Any]:
    """The modules beside the script of the test module's `EXPERIMENT`, which find each other in its folder."""
    folder = repo / "experiments" / request.module.EXPERIMENT
    names = sorted(path.stem for path in folder.glob("*.py") if path.stem != "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        for name in names:
            patch.delitem(sys.modules, name, raising=False)
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
        for name in names:
            sys.modules.pop(name, None)
