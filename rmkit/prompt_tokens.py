"""From a prompt to token ids, section by section, so that what is judged can't steer the judge.

The chat template's own text is encoded with the tokenizer as it is. Everything inside the user's message
(rubric, conversation, response, request) is encoded by a copy of the tokenizer that has no added tokens:
`<|im_end|>` in a response is nine characters there, not an end of turn.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from typing import Any

from jinja2 import TemplateError
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from rmkit.errors import JudgeError, TokenizerError
from rmkit.prompts import JudgePrompt
from rmkit.schema import check_text

TEMPLATE_DATE = date(2024, 7, 26)
"""The day that chat templates are told, so that a prompt does not change from one day to the next."""

PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '### ' + message['role'].capitalize() + '\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Assistant\n' }}{% endif %}"
)
"""Chat template for a base model that has none."""

_SLOT = "RMKIT-CONTENT-SLOT"
_MOST_KEPT = 2**22  # characters of sections whose tokens are kept, for they may come again


class PromptTooLongError(JudgeError):
    """A prompt that does not fit the judge's context."""


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """Token ids of one prompt.

    Args:
        ids: The whole prompt, up to where the score sequence starts.
        truncated: Whether old turns were left out.
    """

    ids: tuple[int, ...]
    truncated: bool = False


class PromptEncoder:
    """Turns prompts into token ids with one tokenizer, which it never changes.

    Args:
        tokenizer: A fast Hugging Face tokenizer.
        chat_template: A template to use in place of the tokenizer's own. With neither, `PLAIN_TEMPLATE`.

    Attributes:
        chat_template: The template in use.
        end_of_turn_id: The token that ends a score sequence.

    Raises:
        TokenizerError: If the tokenizer is not a fast one, its template can't be rendered or does not show the
            message's text just once, or no token ends a turn.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, chat_template: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.name = str(tokenizer.name_or_path or type(tokenizer).__name__)
        self.chat_template: str = chat_template or _own_template(tokenizer) or PLAIN_TEMPLATE
        self._plain = plain_tokenizer(tokenizer)
        before, after = self._split_template([{"role": "user", "content": _SLOT}], add_generation_prompt=True)
        self._before = tuple(self._encode_template(before))
        self._after = tuple(self._encode_template(after))
        self.end_of_turn_id = self._find_end_of_turn()
        self._sections: dict[str, tuple[int, ...]] = {}
        self._kept = 0

    def _split_template(self, messages: list[dict[str, str]], **kwargs: Any) -> tuple[str, str]:
        try:
            text = self.tokenizer.apply_chat_template(
                messages,
                chat_template=self.chat_template,
                tokenize=False,
                enable_thinking=False,
                date_string=TEMPLATE_DATE.strftime("%d %b %Y"),
                strftime_now=TEMPLATE_DATE.strftime,
                **kwargs,
            )
        except TemplateError as error:
            raise TokenizerError(
                f"tokenizer {self.name}: its chat template can't render a user turn and an answer ({error}); give it "
                "a template that needs no more than these"
            ) from error
        before, slot, after = str(text).partition(_SLOT)
        if not slot:
            raise TokenizerError(f"tokenizer {self.name}: its chat template leaves the message's text out")
        if _SLOT in after:
            raise TokenizerError(f"tokenizer {self.name}: its chat template writes the message's text more than once")
        return before, after

    def _encode_template(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False)) if text else []

    def _find_end_of_turn(self) -> int:
        messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": _SLOT}]
        _, after = self._split_template(messages, add_generation_prompt=False)
        added = set(self.tokenizer.get_added_vocab().values())
        ids = self._encode_template(after)
        if ids and ids[0] in added:
            return ids[0]
        if self.tokenizer.eos_token_id is None:
            raise TokenizerError(
                f"tokenizer {self.name}: no token ends a turn: its chat template writes none after an "
                "answer and it has no eos_token; set one"
            )
        return int(self.tokenizer.eos_token_id)

    def encode(self, prompt: JudgePrompt, max_tokens: int | None = None, truncate: bool = False) -> EncodedPrompt:
        """Encode one prompt.

        Args:
            prompt: What the judge reads.
            max_tokens: Most tokens that the prompt may have; None for no limit.
            truncate: Whether the oldest turns may be left out to fit. The rubric, the last turn, the
                response and the request always stay.

        Raises:
            PromptTooLongError: If it does not fit.
            DataError: If a text can't be encoded, such as one with a lone surrogate.
        """
        turns = [self._encode_section(turn) for turn in prompt.turns]
        fixed = [self._encode_section(s) for s in (prompt.rubric, prompt.reference, prompt.response, prompt.request)]
        length = len(self._before) + len(self._after) + sum(map(len, fixed)) + sum(map(len, turns))
        dropped = 0
        if max_tokens is not None:
            while truncate and length > max_tokens and dropped < len(turns) - 1:
                length -= len(turns[dropped])
                dropped += 1
            if length > max_tokens:
                message = f"the prompt has {length} tokens and {max_tokens} fit"
                if len(turns) > 1:
                    message += "; even without" if truncate else "; truncate=True (--truncate-turns) would leave out"
                    message += " its older turns"
                raise PromptTooLongError(message)
        rubric, reference, response, request = fixed
        parts = [self._before, rubric, *turns[dropped:], reference, response, request, self._after]
        return EncodedPrompt(tuple(token for part in parts for token in part), truncated=dropped > 0)

    def _encode_section(self, text: str) -> tuple[int, ...]:
        ids = self._sections.get(text)
        if ids is None:
            check_text(text)
            ids = tuple(self._plain.encode(text, add_special_tokens=False).ids) if text else ()
            # Rubric, request and the turns of neighbours are what repeats.
            self._kept += len(text)
            if len(self._sections) >= 1024 or self._kept > _MOST_KEPT:
                self._sections.clear()
                self._kept = len(text)
            self._sections[text] = ids
        return ids

    def encode_completion(self, text: str) -> list[int]:
        """Token ids of a score sequence, without the end of turn.

        Raises:
            DataError: If an attribute's name can't be encoded.
        """
        check_text(text)
        return list(self.tokenizer.encode(text, add_special_tokens=False))


def _own_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return template


def plain_tokenizer(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """A copy of a tokenizer that knows no added token, for text that must stay text.

    The added tokens leave the list that is matched before tokenisation, and their entries in the model's own
    vocabulary become unreachable, for a sentencepiece model may spell `<s>` from its pieces. Only a single
    character stays reachable where nothing else could spell it: text must never be lost.

    Raises:
        TokenizerError: If the tokenizer has no Rust backend to copy, or a letter or digit is an added token that
            nothing else can spell.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise TokenizerError(
            f"tokenizer {tokenizer.name_or_path}: rmkit needs a fast tokenizer (tokenizer.json), found "
            f"{type(tokenizer).__name__}; convert it with transformers' AutoTokenizer and save it"
        )
    data = json.loads(backend.to_str())
    single = [item["content"] for item in data["added_tokens"] if len(item["content"]) == 1]
    spelled = data["model"].get("byte_fallback", False)
    added = {item["content"] for item in data["added_tokens"] if len(item["content"]) > 1 or spelled}
    data["added_tokens"] = []
    data["post_processor"] = data["truncation"] = data["padding"] = None
    _hide(data["model"], added)
    plain = Tokenizer.from_str(json.dumps(data))
    lost = sorted(character for character in single if character.isalnum() and not plain.encode(character).ids)
    if lost:
        raise TokenizerError(
            f"tokenizer {tokenizer.name_or_path}: {lost[:10]} exist as added tokens only, so they would vanish from "
            "the text that is judged; use a tokenizer whose own vocabulary has them"
        )
    return plain


def _hide(model: dict[str, Any], added: set[str]) -> None:
    def unreachable(piece: str) -> str:
        return f"\U0010fffdrmkit hides {piece}" if piece in added else piece

    vocab = model.get("vocab")
    if isinstance(vocab, dict):
        model["vocab"] = {unreachable(piece): index for piece, index in vocab.items()}
    elif isinstance(vocab, list):
        model["vocab"] = [[unreachable(piece), score] for piece, score in vocab]
    if model.get("unk_token") is not None:
        model["unk_token"] = unreachable(model["unk_token"])
    if "merges" in model:
        pairs = [merge if isinstance(merge, list) else merge.split(" ", 1) for merge in model["merges"]]
        model["merges"] = [pair for pair in pairs if not added.intersection((*pair, "".join(pair)))]
