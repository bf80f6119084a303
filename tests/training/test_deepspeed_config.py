"""DeepSpeed's file: what it does not know is refused, with the nearest key that it does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rmkit.errors import DataError
from rmkit.training.deepspeed_config import read_deepspeed_config, zero_stage


def test_every_file_of_ours_is_read(repo: Path) -> None:
    files = sorted((repo / "train/deepspeed").glob("*.json"))
    stages = {file.stem: zero_stage(read_deepspeed_config(str(file))) for file in files}
    assert stages == {"zero1": 1, "zero2": 2, "zero3": 3, "zero3_offload": 3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"zero_optimisation": {"stage": 2}}, "unknown key 'zero_optimisation'; did you mean 'zero_optimization'?"),
        ({"xyz": 1}, "unknown key 'xyz'"),
        (
            {"zero_optimization": {"stage": 2, "overlap_com": True}},
            "zero_optimization: unknown key 'overlap_com'; did you mean 'overlap_comm'?",
        ),
        (
            {"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu", "pin_memry": True}}},
            "zero_optimization.offload_param: unknown key 'pin_memry'; did you mean 'pin_memory'?",
        ),
        ({"bf16": {"enable": True}}, "bf16: unknown key 'enable'; did you mean 'enabled'?"),
        ({"zero_optimization": {"stage": 7}}, "zero_optimization.stage: "),
        ({"zero_optimization": 3}, "zero_optimization: expected a JSON object, found 3"),
    ],
)
def test_what_a_file_says_wrong(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = tmp_path / "zero.json"
    file.write_text(json.dumps({"train_batch_size": "auto", **change}), encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(f"{file}: {message}")):
        read_deepspeed_config(str(file))
    with pytest.raises(DataError, match=re.escape(f"deepspeed: {message}")):
        read_deepspeed_config(json.dumps(change))  # as the command line may hold it
    with pytest.raises(DataError, match=re.escape(message)):
        read_deepspeed_config(change)  # as YAML may


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"deepspeed='absent.json' can't be read: .*see train/deepspeed/"):
        read_deepspeed_config("absent.json")
    (tmp_path / "a.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(DataError, match="expected a JSON object, found list"):
        read_deepspeed_config(str(tmp_path / "a.json"))
    (tmp_path / "a.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="can't be read as JSON"):
        read_deepspeed_config(str(tmp_path / "a.json"))


def test_auto_is_left_to_transformers() -> None:
    config = {"zero_optimization": {"stage": 3, "reduce_bucket_size": "auto"}, "bf16": {"enabled": "auto"}}
    assert read_deepspeed_config(config) == config
    assert zero_stage(None) == zero_stage({}) == 0
