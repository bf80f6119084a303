"""Token counts without a tokenizer: estimated from characters."""

from __future__ import annotations

from rmkit.errors import DataError
from rmkit.prompt_tokens import PromptEncoder
from rmkit.prompts import build_prompt
from rmkit.rubric import Rubric
from rmkit.schema import RatedResponse
from rmkit.scores import render_scores
from rmkit.training.examples import Example, name_group

CHARACTERS = 4
"""Characters of a token: in English the tokenizers of GPT-2, GPT-NeoX and Mistral have 4.1 to 4.5."""

_SUPERVISED = 3  # of a score sequence, whose punctuation and scores are tokens of their own
_TEMPLATE = 5  # tokens of a chat template on either side of the text, such as role and end of turn


class CharacterEncoder(PromptEncoder):
    """Stands in for a tokenizer: every `CHARACTERS` characters of a section are a token.

    Prompts are cut and shortened as with a real one, and equal beginnings give equal ids, so that all that counts
    tokens can count these.

    Args:
        rubric: The rubric of rows that bring none of their own.
    """

    def __init__(self, rubric: Rubric) -> None:
        self.rubric = rubric
        self._ids: dict[str, int] = {}
        self._before = tuple(self._id(f"before {n}") for n in range(_TEMPLATE))
        self._after = tuple(self._id(f"after {n}") for n in range(_TEMPLATE))

    def encode_example(self, row: RatedResponse, max_length: int, truncate: bool, fill: bool = True) -> Example:
        """The row as if it had been tokenised; its score positions are not there.

        Raises:
            PromptTooLongError: If it does not fit.
            RubricError: If its scores don't fit its rubric.
            DataError: If it has no score, or a text that can't be encoded.
        """
        rubric = row.rubric or self.rubric
        scores = rubric.complete(row.scores)
        if not scores:
            raise DataError(f"row {row.id}: no attribute is rated, so there is nothing to train on")
        widest = {
            item.key: max((item.minimum, item.maximum), key=lambda score: len(str(score)))
            for item in rubric.attributes
        }
        room = max_length - len(self._cut(render_scores(rubric, widest), _SUPERVISED)) - 1
        prompt = self.encode(build_prompt(rubric, row.conversation, row.response, row.reference), room, truncate)
        written = {key: scores.get(key, rubric[key].minimum) for key in rubric.keys} if fill else scores
        completion = (*self._cut(render_scores(rubric, written), _SUPERVISED), self._id("end of turn"))
        untrained = tuple(range(len(written) - len(scores)))  # how many, wherever they stand
        group = name_group(row.conversation)
        return Example(row.id, prompt.ids, completion, (), prompt.truncated, group, untrained=untrained)

    def _encode_section(self, text: str) -> tuple[int, ...]:
        return self._cut(text, CHARACTERS)

    def _cut(self, text: str, size: int) -> tuple[int, ...]:
        return tuple(self._id(text[at : at + size]) for at in range(0, len(text), size))

    def _id(self, piece: str) -> int:
        return self._ids.setdefault(piece, len(self._ids))
