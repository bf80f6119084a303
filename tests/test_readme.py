"""What README and docs say is there, is there."""

from __future__ import annotations

import functools
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from rmkit.policy.training import make_parser
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


def options_of(parser: Any) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings}


@functools.cache
def policy_options() -> dict[str, set[str]]:
    """Options of the scripts that train a policy: ours and those of TRL's config."""
    import trl  # noqa: PLC0415 (slow)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that experimental trainers may change
        from trl.experimental.online_dpo import OnlineDPOConfig  # noqa: PLC0415 (slow)

    configs = {"grpo": trl.GRPOConfig, "rloo": trl.RLOOConfig, "online_dpo": OnlineDPOConfig}
    return {
        f"train/{name}.py": options_of(make_parser(trl.TrlParser, config, "What.\n\n    example\n\nMore."))
        | {"--config"}
        for name, config in configs.items()
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_use_options_that_the_scripts_have(page: Path) -> None:
    unknown = []
    parsed = {"train/train.py": options_of(build_parser()), **policy_options()}
    for script, rest in re.findall(
        r"python ((?:data_prep|evaluate|train)/\w+\.py)([^\n|`]*)", page.read_text("utf-8")
    ):
        shared = [REPO / "rmkit/scoring/options.py", REPO / "rmkit/preparation/options.py"]
        source = "".join(file.read_text("utf-8") for file in [REPO / script, *shared])
        known = parsed.get(script) or set(re.findall(r'"(--[\w-]+)"', source))
        unknown += [(script, option) for option in re.findall(r"--[\w-]+", rest) if option not in known]
    assert unknown == []
