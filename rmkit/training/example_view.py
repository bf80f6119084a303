"""One training row as a person can read it: the prompt, and which tokens are supervised and which are scores."""

from __future__ import annotations

import re

from rmkit.judge_encoder import JudgeEncoder
from rmkit.prompts import build_prompt
from rmkit.rubric import Rubric
from rmkit.schema import RatedResponse
from rmkit.training.examples import Example

_BOLD, _GREEN, _YELLOW, _END = "\x1b[1m", "\x1b[32m", "\x1b[1;33m", "\x1b[0m"
_FIRST, _LAST = 900, 500  # characters of a prompt that are shown


def show_tokens(example: Example, encoder: JudgeEncoder, colour: bool) -> str:
    """A row as its token ids have it: each supervised token in `[ ]`, each score token in `<< >>`, others in `( )`.

    Args:
        example: Encoded by `encoder`.
        encoder: Of the row.
        colour: Whether the reader is a terminal.
    """
    tokenizer = encoder.prompts.tokenizer
    places = {position.index for position in example.positions}
    marked, before = [], ""
    for index in range(len(example.completion_ids)):
        # With all before it: a space that begins a text is lost by some tokenizers.
        so_far = str(tokenizer.decode(list(example.completion_ids[: index + 1])))
        text, before = _printable(so_far[len(before) :]), so_far
        if index in places:
            marked.append(_paint(f"<<{text}>>", _YELLOW, colour))
        elif index in example.untrained:
            marked.append(f"({text})")
        else:
            marked.append(_paint(f"[{text}]", _GREEN, colour))
    prompt = str(tokenizer.decode(list(example.prompt_ids)))
    supervised = len(marked) - len(example.untrained)
    title = f"row {example.id}: {len(example.prompt_ids)} prompt tokens, {supervised} supervised tokens [ ], "
    title += f"{len(places)} of them score tokens << >>"
    if example.untrained:
        title += "; scores without a rating, drawn at random and not trained ( )"
    return "\n".join([_paint(_printable(title), _BOLD, colour), _shorten(_printable(prompt)), "".join(marked)])


def show_text(row: RatedResponse, rubric: Rubric, colour: bool) -> str:
    """A row without a tokenizer: the supervised text in `[ ]`, each score in `<< >>`."""
    rubric = row.rubric or rubric
    prompt = build_prompt(rubric, row.conversation, row.response, row.reference).text
    parts = []
    for key, score in rubric.complete(row.scores).items():
        parts.append(_paint(f"[{_printable(rubric[key].name)}: ]", _GREEN, colour))
        parts.append(_paint(f"<<{score}>>", _YELLOW, colour))
        parts.append(_paint("[, ]", _GREEN, colour))
    parts[-1] = _paint("[end of turn]", _GREEN, colour)
    title = f"row {row.id}: supervised text [ ], scores << >>; without a tokenizer there are no tokens to show"
    return "\n".join([_paint(_printable(title), _BOLD, colour), _shorten(_printable(prompt)), "".join(parts)])


def _paint(text: str, code: str, colour: bool) -> str:
    return f"{code}{text}{_END}" if colour else text


def _shorten(text: str) -> str:
    if len(text) <= _FIRST + _LAST + 100:
        return text
    return f"{text[:_FIRST]}\n[... {len(text) - _FIRST - _LAST:,} characters left out ...]\n{text[-_LAST:]}"


def _printable(text: str) -> str:
    r"""The text without what steers a terminal: control characters but the line break become `\x1b` and the like."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda match: f"\\x{ord(match[0]):02x}", text)
