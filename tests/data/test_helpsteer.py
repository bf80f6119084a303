from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from rmkit.data import DATASETS
from rmkit.preparation.conversion import Refusal, convert_records
from rmkit.raw.files import read_records
from rmkit.rubric import load_rubric
from rmkit.schema import RatedResponse

KEYS = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


@pytest.mark.parametrize(
    ("name", "file", "records"),
    [("helpsteer", "train_sample.jsonl.gz", 379), ("helpsteer2", "train_sample.jsonl", 60)],
)
def test_the_real_ratings_are_shifted_by_one(shared: Path, name: str, file: str, records: int) -> None:
    path = shared / "data" / name / file
    content = path.read_bytes()
    lines = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8").splitlines()
    raw = [json.loads(line) for line in lines]
    outcomes = list(convert_records(DATASETS[name], load_rubric("helpsteer"), read_records(path), file))
    assert len(outcomes) == len(raw) == records
    for record, outcome in zip(raw, outcomes, strict=True):
        assert not isinstance(outcome, Refusal)
        (row,) = outcome
        assert isinstance(row, RatedResponse) and row.response == record["response"]
        assert row.scores == {key: record[key] + 1 for key in KEYS}


@pytest.mark.parametrize("name", ["helpsteer", "helpsteer2"])
def test_what_only_describes_has_no_weight(name: str) -> None:
    rubric = load_rubric(DATASETS[name].rubric)
    weights = {attribute.key: attribute.weight for attribute in rubric.attributes}
    assert weights == {"helpfulness": 1, "correctness": 1, "coherence": 1, "complexity": 0, "verbosity": 0}
