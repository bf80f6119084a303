from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rmkit.data.dataset import RecordError
from rmkit.data.judge_bench import JUDGE_BENCH, read_record
from rmkit.jsonl import write_jsonl
from rmkit.preparation.conversion import Refusal, convert_records
from rmkit.raw.files import RawRecord, read_records
from rmkit.raw.source import read_hub
from rmkit.schema import PreferencePair

RECORD = {
    "pair_id": "p-1",
    "original_id": 5,
    "source": "mmlu-pro-law",
    "question": "1 + 1?",
    "response_model": "m",
    "response_A": "2",
    "response_B": "3",
    "label": "A>B",
}


def test_the_label_says_which_response_is_right() -> None:
    (first,) = read_record(RECORD)
    (second,) = read_record({**RECORD, "label": "B>A"})
    assert (first.chosen, first.rejected) == (("2",), ("3",))
    assert (second.chosen, second.rejected) == (("3",), ("2",))
    assert [pair.metadata["label"] for pair in (first, second)] == ["A>B", "B>A"]


@pytest.mark.parametrize(("raw", "kept"), [(5, "5"), ("a-5", "a-5"), (None, None), ("", None)])
def test_the_original_id_may_be_anything(raw: Any, kept: str | None) -> None:
    (pair,) = read_record({**RECORD, "original_id": raw})
    assert pair.metadata["original_id"] == kept


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"label": "A=B"}, "unknown_label"),
        ({"label": "a>b"}, "unknown_label"),
        ({"label": None}, "unknown_label"),
        ({"label": ["A>B"]}, "unknown_label"),
        ({"pair_id": ""}, "empty_id"),
        ({"original_id": 5.5}, "wrong_type"),
        ({"source": None}, "empty_subset"),
        ({"question": "\n"}, "empty_prompt"),
        ({"response_A": None}, "empty_response"),
        ({"response_B": {}}, "wrong_type"),
        ({"response_model": " "}, "empty_model_name"),
    ],
)
def test_what_is_no_such_record_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        list(read_record({**RECORD, **change}))
    assert caught.value.reason == reason


def test_both_splits_are_read_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "copy/data").mkdir(parents=True)
    for split in ("gpt", "claude"):
        write_jsonl(tmp_path / f"copy/data/{split}-00000-of-00001.jsonl", [{**RECORD, "pair_id": split}])
    records = list(read_hub(str(tmp_path / "copy"), None, JUDGE_BENCH.split))
    assert records == [RawRecord(n, {**RECORD, "pair_id": split}) for n, split in ((1, "gpt"), (2, "claude"))]


def test_real_pairs(shared: Path) -> None:
    raw = list(read_records(shared / "data/judgebench/claude_minus_gpt_questions.jsonl.gz"))
    outcomes = list(convert_records(JUDGE_BENCH, None, raw, "file"))
    assert len(raw) == len(outcomes) == 179
    pairs: list[PreferencePair] = []
    for record, outcome in zip(raw, outcomes, strict=True):
        assert not isinstance(outcome, Refusal), outcome
        (pair,) = outcome
        assert isinstance(pair, PreferencePair) and isinstance(record.content, dict)
        right = record.content["response_A" if record.content["label"] == "A>B" else "response_B"]
        assert (pair.id, pair.chosen) == (record.content["pair_id"], (right,))
        pairs.append(pair)
    assert Counter(pair.metadata["label"] for pair in pairs) == {"A>B": 93, "B>A": 86}
    assert Counter(pair.subset for pair in pairs)["livecodebench"] == 27
    assert sum(pair.chosen == pair.rejected for pair in pairs) == 1  # as published
