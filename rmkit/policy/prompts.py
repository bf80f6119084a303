"""Prompts for a policy to answer: read from a file or a prepared folder, in the form TRL's trainers take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rmkit.errors import DataError, RubricError
from rmkit.jsonl import read_jsonl
from rmkit.rubric import Rubric
from rmkit.schema import read_conversation


def read_policy_prompts(path: Path, limit: int | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows for a prompt-only data set, each prompt once, and why other rows were refused.

    Args:
        path: JSON Lines with `prompt` (a text or messages) and perhaps `reference` and `rubric`; or a folder of
            `data_prep/prepare.py`, of which the `conversation` of each row is taken.
        limit: Prompts to take, from the first; all by default.

    Returns:
        Rows with `prompt`, and with `reference` and `rubric` where a row of the file has one. If one prompt is a
        list of messages, all are, each message a role and a text (tool calls are written out after it). Then
        one reason for each refused row, with its place.

    Raises:
        DataError: If the file is missing, a line is no JSON object, or no row is left.
    """
    file = _find_file(path)
    rows: dict[str, dict[str, Any]] = {}
    refused: list[str] = []
    for where, record in read_jsonl(file):
        if len(rows) == limit:
            break
        try:
            row = _read_row(record, where)
        except (DataError, RubricError) as error:
            refused.append(str(error))
        else:
            rows.setdefault(json.dumps(row, sort_keys=True), row)
    if not rows:
        raise DataError(f"{file}: no prompt in it; {f'the first refusal: {refused[0]}' if refused else 'it is empty'}")
    prompts = list(rows.values())
    if any(isinstance(row["prompt"], list) for row in prompts):
        for row in prompts:
            row["prompt"] = [message.to_dict() for message in read_conversation(row["prompt"])]
    for column in ("reference", "rubric"):
        if all(row[column] is None for row in prompts):
            for row in prompts:
                del row[column]
    return prompts, refused


def _find_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    if not (path / "manifest.json").is_file():
        raise DataError(f"{path}: no manifest.json, so it is not complete; prepare it again, or name a file in it")
    for name in ("train.jsonl", "pairs.jsonl"):
        if (path / name).is_file():
            return path / name
    raise DataError(f"{path}: neither train.jsonl nor pairs.jsonl in this folder; name a JSON Lines file")


def _read_row(record: dict[str, Any], where: str) -> dict[str, Any]:
    # In prepared data `prompt` is what the judge reads, rubric and all, and `conversation` what the policy reads.
    prompt = record.get("conversation", record.get("prompt"))
    if prompt is None:
        raise DataError(f"{where}: neither 'prompt' nor 'conversation'; the row has {', '.join(sorted(record))}")
    read_conversation(prompt, f"{where}: prompt")
    reference, rubric = record.get("reference"), record.get("rubric")
    if reference is not None and not isinstance(reference, str):
        raise DataError(f"{where}: reference: expected a text, found {str(reference)[:80]!r}")
    if rubric is not None:
        Rubric.from_dict(rubric, f"{where}: rubric")
    row = {"prompt": prompt, "reference": reference, "rubric": rubric}
    try:
        json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: a text holds half of a surrogate pair, which no tokenizer takes") from error
    return row
