"""Scoring folders of pairs with several responses on a side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from rmkit.jsonl import write_jsonl
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Judgment, Message, PreferencePair
from rmkit.scores import ScoreDistribution


@pytest.fixture
def write_lists(finish_scoring: Callable[..., None]) -> Callable[..., Path]:
    """Writes a finished scoring folder for rows of (id, subset, chosen scores, rejected scores[, metadata]).

    A score stands as it is in the record's aggregate, and None is a failed judgement. The distributions are all
    the same, so by mean and by mode everything ties.
    """
    rubric = Rubric("one", (Attribute("quality", "Quality"),))
    even = ScoreDistribution((1, 2, 3, 4, 5), (0.2,) * 5)

    def judge(score: float | None) -> Judgment:
        if score is None:
            return Judgment({}, None, error="the prompt is too long")
        return Judgment({"quality": even}, score, prompt_tokens=9)

    def write(folder: Path, rows: Iterable[tuple[Any, ...]]) -> Path:
        pairs, records = [], []
        for row_id, subset, chosen, rejected, *metadata in rows:
            sides = {"chosen": chosen, "rejected": rejected}
            texts = {side: tuple(f"{side} {i}" for i in range(len(scores))) for side, scores in sides.items()}
            conversation = (Message("user", f"Question {row_id}"),)
            pairs.append(PreferencePair(row_id, subset, conversation, metadata=dict(*metadata), **texts).to_dict())
            for side, scores in sides.items():
                records += [
                    {"id": row_id, "side": side, "index": i, **judge(score).to_dict()}
                    for i, score in enumerate(scores)
                ]
        folder.mkdir(parents=True, exist_ok=True)
        write_jsonl(folder / "pairs.jsonl", pairs)
        finish_scoring(folder, rubric, folder / "pairs.jsonl", records)
        return folder

    return write
