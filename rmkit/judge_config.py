"""`judge_config.json`: what makes a model folder a judge, so that scoring needs no guessing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rmkit.errors import JudgeError
from rmkit.manifest import read_json, write_json
from rmkit.prompts import PROMPT_VERSION
from rmkit.rubric import Rubric
from rmkit.scores import READOUTS

FILE_NAME = "judge_config.json"

MODES = ("sequential", "independent")
"""How attributes are read: each behind the scores before it, or each by itself, right behind the prompt."""


@dataclass(frozen=True, slots=True)
class JudgeConfig:
    """What a judge was trained with, as far as scoring depends on it.

    Args:
        rubric: The rubric.
        chat_template: The chat template that wraps the prompt.
        score_token_ids: Token ids of every legal score, per attribute key.
        end_of_turn_id: The token that ends a score sequence.
        example_sha256: `JudgeEncoder.hash_example` of the tokenizer; None if it was not recorded.
        max_length: Most tokens of prompt and score sequence; None for the model's own limit.
        readout: `mean`, `mode` or `median`.
        mode: One of `MODES`, as it was trained.
        loss: The loss settings, for the record.
        base_model: What was trained, for the record.
        data_manifest_sha256: Of the data folder's manifest, for the record.
        prompt_version: Version of the prompt's text.
    """

    rubric: Rubric
    chat_template: str
    score_token_ids: Mapping[str, Mapping[str, list[int]]]
    end_of_turn_id: int
    example_sha256: str | None = None
    max_length: int | None = None
    readout: str = "mean"
    mode: str = "sequential"
    loss: Mapping[str, Any] = field(default_factory=dict)
    base_model: str | None = None
    data_manifest_sha256: str | None = None
    prompt_version: int = PROMPT_VERSION

    def save(self, folder: Path) -> None:
        """Write the config into a judge folder; it goes there last, so its presence means a whole judge."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__}
        write_json(folder / FILE_NAME, {**data, "rubric": self.rubric.to_dict(), "score_format": "Name: n, Name: n"})

    @classmethod
    def load(cls, path: Path) -> JudgeConfig:
        """Read a `judge_config.json`.

        Raises:
            JudgeError: If it lacks a field, was made for another version of the prompt, or asks for an unknown
                read-out.
            DataError: If it can't be read or its format version is unknown.
            RubricError: If its rubric is broken.
        """
        data = read_json(path)
        data = {key: value for key, value in data.items() if key not in {"format_version", "score_format"}}
        unknown = sorted(set(data) - set(cls.__dataclass_fields__))
        missing = sorted({"rubric", "chat_template", "score_token_ids", "end_of_turn_id"} - set(data))
        if unknown or missing:
            raise JudgeError(f"{path}: unknown fields {unknown}, missing fields {missing}; train the judge anew")
        if not isinstance(data["chat_template"], str):
            raise JudgeError(f"{path}: chat_template must be a text, found {str(data['chat_template'])[:80]!r}")
        length = data.get("max_length")
        if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 1):
            raise JudgeError(f"{path}: max_length must be a positive integer or null, found {length!r}")
        config = cls(**{**data, "rubric": Rubric.from_dict(data["rubric"], str(path))})
        if config.prompt_version != PROMPT_VERSION:
            raise JudgeError(
                f"{path}: trained with prompt version {config.prompt_version}, this rmkit writes {PROMPT_VERSION}; "
                "use the rmkit version in its run.json"
            )
        if config.mode not in MODES:
            raise JudgeError(f"{path}: mode {config.mode!r} is unknown; choose {', '.join(MODES)}")
        if config.readout not in READOUTS:
            raise JudgeError(f"{path}: readout {config.readout!r} is unknown; choose {', '.join(READOUTS)}")
        return config
