from __future__ import annotations

from pathlib import Path

import pytest

from rmkit.errors import DataError
from rmkit.rewards.settings import read_reward_settings
from rmkit.rubric import load_rubric

KNOWN = ("judge", "on_failure", "risk", "rubric", "group_normalised", "engine_options")


def test_a_file_and_variables_that_override_it(tmp_path: Path) -> None:
    config = tmp_path / "reward.yaml"
    config.write_text("judge: http://there:8000\nrisk: 0.5\nengine_options: {timeout: 30}\n")
    environment = {"RMKIT_REWARD_CONFIG": str(config), "HOME": "/", "RMKIT_API_KEY": "secret"}
    assert read_reward_settings(environment, KNOWN) == {"judge": "http://there:8000", "risk": 0.5, "timeout": 30}
    environment |= {"RMKIT_REWARD_RISK": "1.5", "RMKIT_REWARD_GROUP_NORMALISED": "true"}
    environment |= {"RMKIT_REWARD_ENGINE_OPTIONS": "{retries: 2}"}
    assert read_reward_settings(environment, KNOWN) == {
        "judge": "http://there:8000",
        "risk": 1.5,
        "group_normalised": True,
        "retries": 2,
    }


def test_variables_alone(tmp_path: Path) -> None:
    environment = {"RMKIT_REWARD_JUDGE": "runs/judge", "RMKIT_REWARD_RUBRIC": "helpsteer"}
    assert read_reward_settings(environment, KNOWN) == {"judge": "runs/judge", "rubric": load_rubric("helpsteer")}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "there is no judge; set RMKIT_REWARD_JUDGE"),
        ({"RMKIT_REWARD_JUDGE": "x", "RMKIT_REWARD_ON_FAILUR": "none"}, "'on_failur'; did you mean 'on_failure'"),
        ({"RMKIT_REWARD_JUDGE": "x", "RMKIT_REWARD_RISK": "{"}, "RMKIT_REWARD_RISK: '{' can't be read as YAML"),
        ({"RMKIT_REWARD_JUDGE": "x", "RMKIT_REWARD_ENGINE_OPTIONS": "5"}, "engine_options must be a mapping"),
        ({"RMKIT_REWARD_CONFIG": "/nowhere.yaml"}, "/nowhere.yaml: can't be read"),
    ],
)
def test_what_is_wrong_is_named(environment: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_reward_settings(environment, KNOWN)
