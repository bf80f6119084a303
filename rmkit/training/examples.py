"""From rated responses to token ids with their score positions."""

from __future__ import annotations

import difflib
import hashlib
import random
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch.utils.data import Dataset
from tqdm.auto import tqdm

from rmkit.errors import DataError, RubricError
from rmkit.judge_encoder import JudgeEncoder
from rmkit.prompt_tokens import PromptTooLongError
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Conversation, RatedResponse
from rmkit.score_tokens import ScorePosition, ScoreTokens

_LETTERED = re.compile(r"(.*[0-9])[a-z]+")  # ids of prepared rows: a raw record, and a letter for each response to it


@dataclass(frozen=True, slots=True)
class Contrast:
    """A number of several tokens and some of its nearest neighbours, to be told apart as wholes.

    Args:
        key: The attribute's key.
        index: Where the number starts in the completion.
        numbers: Score and tokens of each, the right one first.
    """

    key: str
    index: int
    numbers: tuple[tuple[int, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class Example:
    """One row as token ids.

    Args:
        id: The row's id.
        prompt_ids: What the judge reads.
        completion_ids: The score sequence with its end of turn, all supervised.
        positions: Where scores stand in the completion.
        truncated: Whether old turns were left out.
        group: The same for all responses to one conversation.
        derived: Attributes whose score was derived from a preference.
        contrasts: Its numbers of several tokens with their neighbours, where a loss asks for them.
        record: The raw record that the row comes from, if its id tells: a preference holds within one.
        untrained: Completion tokens that teach nothing: scores without a rating, drawn at random.
    """

    id: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    positions: tuple[ScorePosition, ...]
    truncated: bool = False
    group: str = ""
    derived: frozenset[str] = frozenset()
    contrasts: tuple[Contrast, ...] = ()
    record: str = ""
    untrained: tuple[int, ...] = ()

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Prompt and completion."""
        return self.prompt_ids + self.completion_ids


def encode_example(
    encoder: JudgeEncoder,
    row: RatedResponse,
    max_length: int | None = None,
    truncate: bool = False,
    neighbours: int = 0,
    fill: bool = True,
) -> Example:
    """Encode one row; with as many nearest neighbours of each number of several tokens.

    A judge is asked for all attributes, in order, so that is what it must learn to write. An attribute without a
    rating gets any legal score, drawn by the row's id, which is not trained on and which others learn not to rely on.

    Args:
        encoder: Encodes prompt and scores.
        row: The row.
        max_length: Most tokens of prompt and score sequence.
        truncate: Whether the oldest turns may be left out to fit.
        neighbours: How many neighbours of a number.
        fill: Whether to write attributes without a rating; they are left out otherwise.

    Raises:
        PromptTooLongError: If it does not fit into `max_length` tokens.
        RubricError: If its scores don't fit its rubric.
        DataError: If it has no score, or a text that can't be encoded.
    """
    rubric = row.rubric or encoder.rubric
    scores = rubric.complete(row.scores)
    if not scores:
        raise DataError(f"row {row.id}: no attribute is rated, so there is nothing to train on")
    prompt = encoder.encode_prompt(row.conversation, row.response, row.reference, row.rubric, max_length, truncate)
    written = {key: scores[key] if key in scores else _draw(row.id, rubric[key]) for key in rubric.keys}
    if not fill:
        written = scores
    tokens = encoder.score_tokens(rubric, tuple(written))
    ids, positions = tokens.encode(written)
    return Example(
        id=row.id,
        prompt_ids=prompt.ids,
        completion_ids=tuple(ids),
        positions=tuple(position for position in positions if position.key in scores),
        truncated=prompt.truncated,
        group=name_group(row.conversation),
        derived=frozenset(row.derived),
        contrasts=tuple(_contrast(tokens, scores, positions, neighbours)) if neighbours else (),
        record=lettered[1] if (lettered := _LETTERED.fullmatch(row.id)) else "",
        untrained=tuple(position.index for position in positions if position.key not in scores),
    )


def part_rows(rows: Iterable[RatedResponse], rubric: Rubric) -> list[RatedResponse]:
    """Rows that rate one attribute each, for a judge that reads each by itself; encode them with `fill=False`.

    Raises:
        RubricError: If scores don't fit their rubric.
    """
    return [
        replace(row, scores={key: score})
        for row in rows
        for key, score in (row.rubric or rubric).complete(row.scores).items()
    ]


def check_weights(weights: Mapping[str, float], known: Collection[str]) -> None:
    """Refuse weights of attributes that no row can have.

    Args:
        weights: By attribute key.
        known: Keys of all rubrics.

    Raises:
        DataError: Naming the nearest key that there is.
    """
    for key in sorted(weights.keys() - known):
        nearest = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(sorted(known))}"
        raise DataError(f"attribute_weights names {key!r}, which no rubric of the data has; {hint}")


def name_group(conversation: Conversation) -> str:
    """The same for all responses to one conversation."""
    return hashlib.sha256(repr(conversation).encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _draw(row_id: str, attribute: Attribute) -> int:
    return random.Random(f"{row_id}/{attribute.key}").choice(attribute.values)


def _contrast(
    tokens: ScoreTokens, scores: Mapping[str, int], positions: Sequence[ScorePosition], neighbours: int
) -> Iterator[Contrast]:
    for item in tokens.attributes:
        key = item.attribute.key
        if key not in scores:
            continue
        label = scores[key]
        if max(map(len, item.closed.values())) == 1:
            continue
        near = [score for _, score in sorted((abs(score - label), score) for score in item.closed)][: neighbours + 1]
        start = next(position.index for position in positions if position.key == key)
        yield Contrast(key, start, tuple((score, tuple(item.closed[score])) for score in near))


def find_rivals(scored: Sequence[tuple[Example, ScorePosition]]) -> list[int]:
    """For each score, the place of the next lower one that it may be held against, or -1.

    That is one of the same attribute in a response to the same conversation: rated as well, or derived from the
    same preference. A rating and a derived score say nothing about each other.

    Args:
        scored: Scores and the examples they stand in.
    """
    sides: dict[tuple[object, ...], list[int]] = {}
    for n, (example, position) in enumerate(scored):
        derived = position.key in example.derived
        side = (example.group, position.key, position.choice, derived, example.record if derived else "")
        sides.setdefault(side, []).append(n)
    rivals = [-1] * len(scored)
    for members in sides.values():
        for n in members:
            worse = [(scored[m][1].score, m) for m in members if scored[m][1].score < scored[n][1].score]
            rivals[n] = max(worse, default=(0, -1))[1]
    return rivals


class GroupedExamples(Dataset[tuple[Example, ...]]):
    """Examples of one conversation as one item, for losses that compare responses.

    Args:
        examples: In any order.
        most: Largest group; a conversation with more responses gives several.
        derived_only: Keep only those together whose scores were derived from one preference; every other example is
            an item of its own.
        required: Whether there must be something to compare.

    Raises:
        DataError: If no two scores can be compared.
    """

    def __init__(
        self, examples: Iterable[Example], most: int = 8, derived_only: bool = False, required: bool = True
    ) -> None:
        groups: dict[object, list[Example]] = {}
        for index, example in enumerate(examples):
            key: object = (example.group, example.record) if derived_only else example.group
            groups.setdefault(index if derived_only and not example.derived else key, []).append(example)
        self.groups = [
            tuple(group[start : start + most]) for group in groups.values() for start in range(0, len(group), most)
        ]
        if required and not any(count_comparisons(group, derived_only) for group in self.groups):
            found = "no conversation has two responses with different scores"
            if derived_only:
                found += " that were derived from one preference"
            raise DataError(
                f"{found}, so there is nothing to compare; prepare a data set of preferences, or choose another loss"
            )

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> tuple[Example, ...]:
        return self.groups[index]


def count_comparisons(group: Sequence[Example], derived_only: bool) -> int:
    """How many scores of some examples have a lower one to be held against.

    Args:
        group: Examples that come in one batch.
        derived_only: Whether only scores that were derived from a preference are compared.
    """
    scored = [
        (example, position)
        for example in group
        for position in example.positions
        if position.key in example.derived or not derived_only
    ]
    return sum(rival >= 0 for rival in find_rivals(scored)) if len(group) > 1 else 0


class ExampleDataset(Dataset[Example]):
    """Encoded rows, in order.

    Args:
        encoder: Encodes them.
        rows: Rated responses.
        max_length: Most tokens of a row; longer ones are left out and counted.
        truncate: Whether the oldest turns may be left out to fit.
        description: Label of the progress bar.
        neighbours: As in `encode_example`.
        fill: As in `encode_example`.

    Attributes:
        skipped: How many rows were left out, by reason.
        truncated: How many rows lost old turns.

    Raises:
        DataError: If no row is left.
    """

    def __init__(
        self,
        encoder: JudgeEncoder,
        rows: Iterable[RatedResponse],
        max_length: int | None = None,
        truncate: bool = False,
        description: str = "encode",
        neighbours: int = 0,
        fill: bool = True,
    ) -> None:
        self.examples: list[Example] = []
        self.skipped: Counter[str] = Counter()
        for row in tqdm(rows, desc=description, unit=" rows", disable=None):
            try:
                self.examples.append(encode_example(encoder, row, max_length, truncate, neighbours, fill))
            except PromptTooLongError:
                self.skipped["too_long"] += 1
            except (DataError, RubricError) as error:
                raise DataError(f"row {row.id}: {error}") from error
        self.truncated = sum(example.truncated for example in self.examples)
        if not self.examples:
            raise DataError(
                f"no row is left to {description}: {self.skipped['too_long']} are longer than "
                f"max_length={max_length}; raise it, or set truncate_turns"
            )

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]
