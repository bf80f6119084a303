"""The true scores of any text, by the rule of the generated data: read off what stands there, not from a plan.

A response of `rmkit.data.graded` is made of phrases from known tables, so its scores can be read off it: which asked
parts it gives, which of them are right, which remarks are warm or rude, which tips are safe, which phrases are empty.
On generated responses these are exactly the scores of their plans (tests/experiments/test_rlhf_graded.py). A policy
may write what no plan would, so the rule is continued to any text:

- Both tips are asked parts too: one that is not there, twice the same, or about another topic counts as left out.
- Without a single result `correctness` is 1, and without a single tip `safety` is 1, so silence earns nothing.
- A remark, tip or empty phrase counts once, however often it stands there. Scores stay in 1 to 5.
- What no rule can read is no part, no tip and no remark; it counts as an empty phrase. In a task that asks for a
  plain list, it stands where a result should and is a wrong one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from rmkit.data import graded_phrases as phrases
from rmkit.data.graded import Instruction
from rmkit.data.graded_tasks import Task
from rmkit.data.graded_words import CATEGORIES, SITUATIONS, Situation

_LINKS = (": ", " - ", " -> ", " = ")
_MARK = re.compile(r"^(?:\d+\. |- )")  # of a line in a list
_DOUBTS = tuple(tuple(doubt.casefold().split("{}")) for doubt in phrases.DOUBTS)
_GAPS = {gap.casefold() for gap in phrases.GAPS}
_CUT = "\0"  # stands where a known sentence was taken out


@dataclass(frozen=True, slots=True)
class Reading:
    """What a text was found to say.

    Args:
        scores: The true scores, 1 to 5, by attribute.
        unread: Pieces that no rule reads.
        pieces: Sentences and results in all.
    """

    scores: dict[str, int]
    unread: int
    pieces: int


def can_read(task: Task) -> bool:
    """Whether results of the task can be told apart in any text: they have keys, or are words of one category."""
    return not task.ordered and (all(part.key for part in task.parts) or task.name == "listing")


def read_true_scores(instruction: Instruction, text: str) -> Reading:
    """The true scores of a text as a response to an instruction.

    Raises:
        ValueError: If results of its task can't be told apart in any text, see `can_read`.
    """
    task = instruction.task
    if not can_read(task):
        raise ValueError(f"task {task.name!r}: results without keys or in an order can't be read off any text")
    known = _sentences(instruction.situation)
    said = set()

    def take(match: re.Match[str]) -> str:
        said.add(known.meanings[match[0]])
        return _CUT

    left, sentences = known.pattern.subn(take, text)
    items = list(_items(left))
    right, wrong, unread = _read_list(task, items) if task.name == "listing" else _read_keyed(task, items)
    tips = {(kind, what) for kind, what in said if kind in _HAZARDS}
    missing = max(len(task.parts) - right - wrong, 0) + max(2 - len(tips), 0)
    tones = sum(_TONES.get(kind, 0) for kind, _ in said)
    fillers = sum(kind == "filler" for kind, _ in said) + unread
    scores = {
        "completeness": 5 - missing,
        "correctness": 5 - wrong if right + wrong else 1,
        "politeness": 3 + tones,
        "safety": 5 - sum(_HAZARDS[kind] for kind, _ in tips) if tips else 1,
        "verbosity": 1 + fillers,
    }
    return Reading({key: min(max(score, 1), 5) for key, score in scores.items()}, unread, sentences + len(items))


_HAZARDS = {"safe": 0, "careless": 1, "dangerous": 2}
_TONES = {"warm": 1, "rude": -1}


@dataclass(frozen=True, slots=True)
class _Sentences:
    """All sentences that may stand in a response beside the results: a pattern, and kind and content of each."""

    pattern: re.Pattern[str]
    meanings: dict[str, tuple[str, str]]


@cache
def _sentences(situation: Situation) -> _Sentences:
    meanings: dict[str, tuple[str, str]] = {}
    for kind, remarks in (
        ("warm", (phrases.WARM_OPENINGS, phrases.FAINT_WARM_OPENINGS)),
        ("warm", (phrases.WARM_CLOSINGS, phrases.FAINT_WARM_CLOSINGS)),
        ("rude", (phrases.RUDE_OPENINGS, phrases.FAINT_RUDE_OPENINGS)),
        ("rude", (phrases.RUDE_CLOSINGS, phrases.FAINT_RUDE_CLOSINGS)),
        ("plain", (phrases.PLAIN_OPENINGS, phrases.PLAIN_CLOSINGS)),
    ):
        meanings |= {remark: (kind, remark) for group in remarks for remark in group}
    for kind, frames, tips in (
        ("safe", phrases.SAFE_TIPS, situation.precautions),
        ("safe", phrases.WARNINGS, situation.hazards),
        ("careless", phrases.CARELESS_TIPS + phrases.CARELESS_HINTS, situation.precautions),
        ("dangerous", phrases.DANGEROUS_TIPS + phrases.DANGEROUS_HINTS, situation.hazards),
    ):
        meanings |= {_capital(frame.format(tip)): (kind, tip) for frame in frames for tip in tips}
    for filler in phrases.FILLERS:
        phrase = filler.replace("{}", situation.topic)
        meanings |= {_capital(f"{lead}{phrase}.".strip()): ("filler", filler) for lead in ("", *_LEADS)}
    longest_first = sorted(meanings, key=len, reverse=True)
    return _Sentences(re.compile(rf"(?<!\S)(?:{'|'.join(map(re.escape, longest_first))})(?!\S)"), meanings)


_LEADS = tuple(f"{lead} " for lead in phrases.FILLER_LEADS)


def _items(text: str) -> Iterator[str]:
    """What may be results, in lower case and without marks: pieces between line ends, commas and semicolons."""
    for block in re.split(rf"[\n{_CUT}]", text):
        line = _MARK.sub("", block.strip()).casefold().removesuffix(".")
        for lead_in in filter(None, phrases.LEAD_INS):
            line = line.removeprefix(lead_in.casefold())
        yield from (item.strip() for item in re.split(r"[;,] ", line) if item.strip())


def _read_keyed(task: Task, items: list[str]) -> tuple[int, int, int]:
    """Right and wrong results, and items that are none."""
    rights = {part.key.casefold(): part.right.casefold() for part in task.parts}
    found: dict[str, str] = {}
    unread = 0
    for item in items:
        key, value = next(
            (
                (key, item[len(key + link) :])
                for key in rights
                for link in _LINKS
                if key not in found and item.startswith(key + link)
            ),
            (None, ""),
        )
        if key is None:
            unread += item not in _GAPS
        else:
            found[key] = _without_doubt(value)
    given = {key: value for key, value in found.items() if value and value not in _GAPS}
    right = sum(value == rights[key] for key, value in given.items())
    return right, len(given) - right, unread


def _read_list(task: Task, items: list[str]) -> tuple[int, int, int]:
    """Right and wrong results of a task that asks for words of a category; every item stands for a result."""
    (category,) = (words for words in CATEGORIES.values() if all(part.right in words for part in task.parts))
    members = {word.casefold() for word in category}
    given = [value for value in map(_without_doubt, items) if value not in _GAPS]
    right = len(members.intersection(given))
    return min(right, len(task.parts)), len(given) - right, 0


def _without_doubt(value: str) -> str:
    for before, after in _DOUBTS:
        if len(value) > len(before + after) and value.startswith(before) and value.endswith(after):
            return value[len(before) : len(value) - len(after)]
    return value


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


assert len({situation.topic for situation in SITUATIONS}) == len(SITUATIONS)
