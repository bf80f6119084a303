from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rmkit.data import DATASETS
from rmkit.errors import DataError
from rmkit.preparation.published import ensure_published, prepare_published

RECORD = {
    "prompt": "Name a bird.",
    "chosen": "A heron.",
    "chosen_model": "a",
    "rejected": "A pine.",
    "rejected_model": "b",
    "subset": "llmbar-natural",
    "id": 7,
}


def test_a_complete_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    raw = tmp_path / "raw.jsonl"
    raw.write_text(json.dumps(RECORD) + "\n", encoding="utf-8")
    dataset = DATASETS["reward_bench"]
    manifest = prepare_published(dataset, tmp_path / "data", str(raw))
    assert manifest["files"]["pairs.jsonl"]["rows"] == 1
    # A hub id that nobody can load: the folder is there, so nobody asks for it.
    unreachable = replace(dataset, hub_id="")
    assert ensure_published(unreachable, tmp_path / "data") == tmp_path / "data"


def test_an_incomplete_folder_is_prepared_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="allenai/reward-bench"):
        ensure_published(DATASETS["reward_bench"], tmp_path / "data")
    assert not (tmp_path / "data" / "manifest.json").exists()
