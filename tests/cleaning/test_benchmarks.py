from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from rmkit.cleaning.benchmarks import read_benchmark
from rmkit.data import DATASETS
from rmkit.errors import DataError
from rmkit.preparation.published import prepare_published

RECORDS = [
    {
        "prompt": f"Name {number} birds.",
        "chosen": "A heron.",
        "chosen_model": "a",
        "rejected": "A pine.",
        "rejected_model": "b",
        "subset": "llmbar-natural",
        "id": number,
    }
    for number in (3, 4)
]
IDS = ["llmbar-natural/3", "llmbar-natural/4"]
TEXTS = ["Name 3 birds.", "Name 4 birds."]


def write(path: Path, *records: Any) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def texts(given: str, column: str | None = None) -> list[list[str]]:
    return [[message.content for message in turns] for _, turns in read_benchmark(given, column).prompts]


def test_a_published_file_is_read_by_its_adapter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write(tmp_path / "raw.jsonl", RECORDS[0], {"subset": "hep-go", "id": 1}, RECORDS[1])
    with caplog.at_level(logging.WARNING):
        found = read_benchmark(f"reward_bench={file}")
    assert (found.name, found.unread) == ("reward_bench", 1)
    assert [prompt_id for prompt_id, _ in found.prompts] == IDS
    assert [turns[0].content for _, turns in found.prompts] == TEXTS
    assert "raw.jsonl:2: column 'chosen' is missing" in caplog.text


def test_a_prompt_counts_whatever_became_of_its_responses(tmp_path: Path) -> None:
    file = write(tmp_path / "raw.jsonl", {**RECORDS[0], "rejected": "A heron."})  # refused: the sides are the same
    assert [prompt_id for prompt_id, _ in read_benchmark(f"reward_bench={file}").prompts] == ["3"]
    assert texts(f"reward_bench={file}") == [TEXTS[:1]]


def test_a_prepared_folder_is_read(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw.jsonl", *RECORDS, {"prompt": "refused"})
    prepare_published(DATASETS["reward_bench"], tmp_path / "birds", raw)
    found = read_benchmark(str(tmp_path / "birds"))
    assert (found.name, found.unread, [prompt_id for prompt_id, _ in found.prompts]) == ("birds", 0, IDS)
    pairs = read_benchmark(str(tmp_path / "birds" / "pairs.jsonl"))
    assert (pairs.name, pairs.prompts) == ("pairs", found.prompts)


def test_files_of_prompts(tmp_path: Path) -> None:
    plain = tmp_path / "plain.txt"
    plain.write_text("\ufeffName a bird.\n\n  Why?  \n", encoding="utf-8")
    assert texts(str(plain)) == [["Name a bird."], ["Why?"]]
    assert [prompt_id for prompt_id, _ in read_benchmark(str(plain)).prompts] == ["line 1", "line 3"]
    mixed = write(
        tmp_path / "mixed.jsonl",
        {"question_id": 81, "turns": ["Name a bird.", "Rhyme it."], "prompt": "no"},
        {"id": "x", "question": "Why?"},
        {"prompt": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Who?"}]},
        {"instruction": "", "input": "Where?", "output": "Here."},
    )
    assert texts(mixed) == [["Name a bird.", "Rhyme it."], ["Why?"], ["Be kind.", "Who?"], ["Where?"]]
    assert [prompt_id for prompt_id, _ in read_benchmark(mixed).prompts] == ["81", "x", "line 3", "line 4"]
    assert texts(mixed, "output") == [["Here."]]
    with gzip.open(tmp_path / "zipped.jsonl.gz", "wt") as file:
        file.write('{"text": "Name a bird."}\n')
    assert texts(str(tmp_path / "zipped.jsonl.gz")) == [["Name a bird."]]
    assert read_benchmark(str(tmp_path / "zipped.jsonl.gz")).name == "zipped"


def test_what_gives_no_prompt_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="known data set; known are .*reward_bench"):
        read_benchmark("reward_bnech")
    with pytest.raises(DataError, match=r"raw.jsonl:1: expected a prompt in one of .*; the columns are a, b"):
        read_benchmark(write(tmp_path / "raw.jsonl", {"a": 1, "b": 2}))
    with pytest.raises(DataError, match="it holds no prompt"):
        read_benchmark(write(tmp_path / "empty.jsonl"))
    with pytest.raises(DataError, match="manifest.json: can't be read"):
        (tmp_path / "folder").mkdir()
        read_benchmark(str(tmp_path / "folder"))
    with pytest.raises(DataError, match="there is no such file"):
        read_benchmark(f"reward_bench={tmp_path / 'none.jsonl'}")
    binary = tmp_path / "binary.txt"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"binary.txt: can't be read"):
        read_benchmark(str(binary))
