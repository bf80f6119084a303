"""What README and docs say is there, is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rmkit.training.settings import build_parser

REPO = Path(__file__).resolve().parents[1]
PAGES = sorted([REPO / "README.md", REPO / "CONTRIBUTING.md", *(REPO / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    links = re.findall(r"\]\(([^)#:]+)\)", text) + re.findall(r"^\[.+\]: ([^\s:]+)$", text, re.M)
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_name_scripts_and_configs_that_exist(page: Path) -> None:
    named = re.findall(r"\b(?:data_prep|train|evaluate)/[\w/]+\.(?:py|yaml|json)\b", page.read_text("utf-8"))
    assert [name for name in named if not (REPO / name).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_use_options_that_the_scripts_have(page: Path) -> None:
    unknown = []
    training = {option for action in build_parser()._actions for option in action.option_strings}
    for script, rest in re.findall(
        r"python ((?:data_prep|evaluate|train)/\w+\.py)([^\n|`]*)", page.read_text("utf-8")
    ):
        shared = [REPO / "rmkit/scoring_options.py", REPO / "rmkit/preparation_options.py"]
        source = "".join(file.read_text("utf-8") for file in [REPO / script, *shared])
        known = training if script == "train/train.py" else set(re.findall(r'"(--[\w-]+)"', source))
        unknown += [(script, option) for option in re.findall(r"--[\w-]+", rest) if option not in known]
    assert unknown == []
