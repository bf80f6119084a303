"""What goes into a judge, as token ids: one path for training, scoring, server and reward."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from rmkit.prompt_tokens import EncodedPrompt, PromptEncoder
from rmkit.prompts import build_prompt
from rmkit.rubric import Rubric
from rmkit.schema import Conversation, Message
from rmkit.score_tokens import ScoreTokens

_MOST_KEPT = 256  # rubrics, or parts of them, whose score tokens are kept

_EXAMPLE = "Naïve café, 12,345 words:\n\n    def double(x):\n        return 2 * x  # 你好 🙂"


class JudgeEncoder:
    """Encodes prompts and score sequences for one tokenizer and rubric.

    Args:
        tokenizer: A fast Hugging Face tokenizer; it is never changed.
        rubric: The rubric of rows that bring none of their own.
        chat_template: A chat template in place of the tokenizer's own.

    Raises:
        TokenizerError: If the tokenizer can't serve, or can't tell the rubric's scores apart.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rubric: Rubric, chat_template: str | None = None) -> None:
        self.rubric = rubric
        self.prompts = PromptEncoder(tokenizer, chat_template)
        self._score_tokens: dict[str, ScoreTokens] = {}
        self.score_tokens()  # an unfit tokenizer is found now, not at the first row

    def score_tokens(self, rubric: Rubric | None = None, keys: Sequence[str] | None = None) -> ScoreTokens:
        """The score tokens of a rubric (by default the judge's), or of some of its attributes."""
        rubric = rubric or self.rubric
        keys = rubric.keys if keys is None else tuple(keys)
        cache_key = json.dumps([rubric.to_dict(), keys])
        if cache_key not in self._score_tokens:
            if len(self._score_tokens) >= _MOST_KEPT:  # rubrics of single rows
                self._score_tokens.clear()
            self._score_tokens[cache_key] = ScoreTokens.build(self.prompts, rubric, keys)
        return self._score_tokens[cache_key]

    def hash_example(self) -> str:
        """SHA-256 of the token ids of one fixed prompt, which tells apart tokenizers that split text differently."""
        ids = self.encode_prompt((Message("user", _EXAMPLE),), _EXAMPLE).ids
        return hashlib.sha256(json.dumps(ids).encode()).hexdigest()

    def encode_prompt(
        self,
        conversation: Conversation,
        response: str,
        reference: str | None = None,
        rubric: Rubric | None = None,
        max_length: int | None = None,
        truncate: bool = False,
    ) -> EncodedPrompt:
        """Encode what the judge reads before it writes its scores.

        Args:
            conversation: All turns before the response.
            response: The text to rate.
            reference: A reference answer, or None.
            rubric: This row's own rubric, or None for the judge's.
            max_length: Most tokens of prompt and score sequence together; None for no limit.
            truncate: Whether the oldest turns may be left out to fit.

        Raises:
            PromptTooLongError: If it does not fit.
            DataError: If a text can't be encoded.
        """
        rubric = rubric or self.rubric
        room = None if max_length is None else max_length - self.score_tokens(rubric).max_length
        prompt = build_prompt(rubric, conversation, response, reference)
        return self.prompts.encode(prompt, room, truncate)
