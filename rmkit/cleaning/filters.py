"""Row checks that look at one row: visible text, language, length in tokens.

Bad responses are no reason to drop a row: a judge that never saw an answer of one repeated character, or in the wrong
language, can't rate it. So nothing here asks whether a response is good.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import hf_hub_download
from py3langid.langid import MODEL_FILE, LanguageIdentifier
from tokenizers import Tokenizer

from rmkit.cleaning.drop import TURNS_LEFT_OUT, Drop, Row, whole_conversation
from rmkit.cleaning.words import responses, user_turns
from rmkit.errors import DataError
from rmkit.raw.source import split_hub_id

_SEEN = re.compile(r"[!-~]")
_BLANK_LETTERS = frozenset("\u115f\u1160\u3164\uffa0\u2800")  # letters and a symbol by category, blank on the screen
_LOOKED_AT = 1000  # characters; more makes the answer slower, and hardly surer
_LEAST_LETTERS = 20  # bytes of letters in UTF-8
_LIKELY = 0.3
_UNLIKELY = 0.01
_PIECE = 100_000  # characters; encoding takes hundreds of bytes of memory for each
_NO_LANGUAGE = "zxx"  # py3langid's label of code, numbers and hashes


class VisibleText:
    """Drops rows with a response, or a last user turn, in which nothing can be seen: reason `blank_text`.

    White space, control and format characters such as U+200B, combining marks by themselves and the blank letters of
    Hangul and Braille can't be seen. Everything else can, a lone emoji included.
    """

    def check(self, row: Row) -> Row | Drop:
        """The row, or why it is left out."""
        texts = {"the last user turn": user_turns(row)[-1:], "a response": responses(row)}
        for what, values in texts.items():
            for value in values:
                if not _is_visible(value):
                    message = f"{what} has {len(value)} characters, none of which can be seen"
                    return Drop("blank_text", message, {"text": value[:200]})
        return row


def _is_visible(text: str) -> bool:
    if _SEEN.search(text):
        return True
    return any(unicodedata.category(c)[0] not in "CMZ" and c not in _BLANK_LETTERS for c in text)


class LanguageFilter:
    """Drops rows whose user writes another language: reason `other_language`.

    The first 1,000 characters of the user's turns are looked at, joined. The responses are not: one in the wrong
    language is a bad response, which a judge must see, and a translation is a good one.

    A row is dropped only when the answer is clear: the text has at least 20 bytes of letters (20 Latin letters, 10
    Cyrillic, 7 Chinese), another language has a probability of at least 0.3, and all wanted languages together have
    less than 0.01. So short texts, code, formulas and mixed texts stay.

    Args:
        languages: Wanted ISO 639 codes, such as `en`.

    Raises:
        DataError: If a code is not among those that can be told, or there is none.
    """

    def __init__(self, languages: Sequence[str]) -> None:
        self.languages = tuple(languages)
        known = _identifier().labels
        unknown = [code for code in self.languages if code not in known]
        if unknown or not self.languages:
            found = f"language {unknown[0]!r} is unknown" if unknown else "no language is given"
            raise DataError(f"{found}; the filter tells {', '.join(sorted(known))}")

    def check(self, row: Row) -> Row | Drop:
        """The row, or why it is left out."""
        text = "\n".join(user_turns(row))[:_LOOKED_AT]
        letters = "".join(filter(str.isalpha, text))
        if len(letters.encode("utf-8", "replace")) < _LEAST_LETTERS:
            return row
        ranking = _rank(text)
        language, probability = max(ranking.items(), key=lambda item: item[1])
        wanted = sum(ranking.get(code, 0.0) for code in self.languages)
        if language == _NO_LANGUAGE or probability < _LIKELY or wanted >= _UNLIKELY:
            return row
        message = f"the user writes {language} (probability {probability:.2f}), not {' or '.join(self.languages)}"
        return Drop("other_language", message, {"language": language, "probability": round(probability, 4)})


@functools.lru_cache(maxsize=4)  # responses to one conversation follow each other
def _rank(text: str) -> dict[str, float]:
    return dict(_identifier().rank(text))


@functools.cache
def _identifier() -> LanguageIdentifier:
    """py3langid's model, read once in each process, in a third of a second."""
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


class LengthLimit:
    """Drops rows of too many tokens, reason `too_long`, or leaves out their oldest turns.

    Counted are the tokens of all turns and of the longest response, without the rubric and what a chat template adds;
    leave room for those. Texts of more than 100,000 characters are counted in pieces, which may add a token a piece.

    Args:
        tokenizer: A folder with `tokenizer.json`, such a file, or a hub id `owner/name` or `owner/name@revision`.
        max_tokens: The most tokens that a row may have.
        truncate: Whether the oldest turns are left out, one by one, until the row fits. The last user turn and what
            follows it always stay; a row that is too long even so is dropped.

    Raises:
        DataError: If the tokenizer can't be loaded, or the limit is below 1.
    """

    def __init__(self, tokenizer: str, max_tokens: int, truncate: bool = False) -> None:
        if max_tokens < 1:
            raise DataError(f"length limit: {max_tokens} tokens hold no text; give 1 or more")
        self.max_tokens = max_tokens
        self.truncate = truncate
        self._tokenizer = _load_tokenizer(tokenizer)

    def check(self, row: Row) -> Row | Drop:
        """The row, one without its oldest turns (`metadata[TURNS_LEFT_OUT]` keeps them), or why it is left out."""
        turns = [message.content for message in row.conversation]
        answers = responses(row)
        if sum(map(_most_tokens, turns)) + max(map(_most_tokens, answers)) <= self.max_tokens:
            return row
        counts = [self._count(text) for text in (*turns, *answers)]
        length = total = sum(counts[: len(turns)]) + max(counts[len(turns) :])
        last_user = max(index for index, message in enumerate(row.conversation) if message.role == "user")
        left_out = 0
        while self.truncate and length > self.max_tokens and left_out < last_user:
            length -= counts[left_out]
            left_out += 1
        if length > self.max_tokens:
            without = f", {length} without its {left_out} oldest turns" if left_out else ""
            message = f"the row has {total} tokens{without}; {self.max_tokens} are allowed"
            return Drop("too_long", message, {"tokens": total})
        if not left_out:
            return row
        earlier = len(whole_conversation(row)) - len(row.conversation)  # the row may have been shortened before
        gone = [message.to_dict() for message in whole_conversation(row)[: earlier + left_out]]
        metadata = {**row.metadata, TURNS_LEFT_OUT: gone}
        return dataclasses.replace(row, conversation=row.conversation[left_out:], metadata=metadata)

    def _count(self, text: str) -> int:
        pieces = (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))
        encode = self._tokenizer.encode_batch_fast
        return sum(len(encode([piece], add_special_tokens=False)[0].ids) for piece in pieces)


def _most_tokens(text: str) -> int:
    """The most tokens that a text can have, for a fraction of the price of counting them.

    A token stands for at least one byte, and one may be put in front. NFKC, which some tokenizers begin with, makes
    up to 33 bytes of a character that is not ASCII.
    """
    return 1 + len(text) + 33 * (len(text.encode("utf-8", "surrogatepass")) - len(text))


def _load_tokenizer(given: str) -> Tokenizer:
    path = Path(given)
    if path.is_dir():
        path = path / "tokenizer.json"
    try:
        if not path.is_file():
            hub_id, revision = split_hub_id(given)
            path = Path(hf_hub_download(hub_id, "tokenizer.json", revision=revision))
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exceptions, the hub's errors share no base
        raise DataError(
            f"tokenizer {given}: can't be loaded ({error}); give a folder with tokenizer.json, which "
            "AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER) writes, or a hub id"
        ) from error
    tokenizer.no_truncation()  # some files ship with one, and would hide the length
    tokenizer.no_padding()
    return tokenizer
