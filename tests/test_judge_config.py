"""`judge_config.json`: written whole, read strictly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rmkit.errors import DataError, JudgeError, RubricError
from rmkit.judge_config import FILE_NAME, JudgeConfig
from rmkit.rubric import load_rubric

CONFIG = JudgeConfig(
    rubric=load_rubric("dist2_paper"),
    chat_template="{{ messages[0]['content'] }}",
    score_token_ids={"overall": {"0": [5], "10": [6, 5]}},
    end_of_turn_id=2,
    max_length=512,
    loss={"loss": "dist2", "alpha": 0.1},
    base_model="some/model",
)


def test_a_config_survives_its_file(tmp_path: Path) -> None:
    CONFIG.save(tmp_path)
    assert JudgeConfig.load(tmp_path / FILE_NAME) == CONFIG
    assert json.loads((tmp_path / FILE_NAME).read_text())["format_version"] == 1


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        ({"format_version": 99}, DataError, "format_version 99 is unknown; this rmkit reads 1"),
        ({"prompt_version": 99}, JudgeError, "trained with prompt version 99"),
        ({"colour": "red"}, JudgeError, r"unknown fields \['colour'\]"),
        ({"chat_template": ...}, JudgeError, r"missing fields \['chat_template'\]"),
        ({"end_of_turn_id": ...}, JudgeError, r"missing fields \['end_of_turn_id'\]"),
        ({"rubric": {"attributes": []}}, RubricError, "no attributes"),
        ({"readout": "average"}, JudgeError, "readout 'average' is unknown; choose mean, mode, median"),
    ],
)
def test_a_config_that_is_not_ours_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], reason: str
) -> None:
    CONFIG.save(tmp_path)
    file = tmp_path / FILE_NAME
    data = {**json.loads(file.read_text()), **change}
    file.write_text(json.dumps({key: value for key, value in data.items() if value is not ...}))
    with pytest.raises(error, match=reason):
        JudgeConfig.load(file)
