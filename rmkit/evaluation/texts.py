"""Texts from data, made safe to print: what a row says must not steer a terminal or break a page."""

from __future__ import annotations

import unicodedata


def make_printable(text: str) -> str:
    """The text with control characters and lone surrogates written as escapes; line breaks and tabs stay.

    The escape character that begins a terminal's colour code, say, becomes four characters.
    """
    text = text.replace("\r\n", "\n")
    if text.isprintable():  # the usual case for names, and cheap
        return text
    return "".join(_escape(c) if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" else c for c in text)


def shorten(text: str, most: int) -> str:
    """The text with its middle left out if it is longer than `most` characters."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}\n[... {len(text) - most} characters ...]\n{text[len(text) - most + most // 2 :]}"


def shorten_line(text: str, most: int) -> str:
    """The text on one line, cut at its end if it is longer than `most` characters."""
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most else line[: most - 3] + "..."


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
