"""From rated responses to token ids with their score positions."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch.utils.data import Dataset
from tqdm.auto import tqdm

from rmkit.errors import DataError, RubricError
from rmkit.judge_encoder import JudgeEncoder
from rmkit.prompt_tokens import PromptTooLongError
from rmkit.schema import RatedResponse
from rmkit.score_tokens import ScorePosition, ScoreTokens


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
    """

    id: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    positions: tuple[ScorePosition, ...]
    truncated: bool = False
    group: str = ""
    derived: frozenset[str] = frozenset()
    contrasts: tuple[Contrast, ...] = ()

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
) -> Example:
    """Encode one row; with as many nearest neighbours of each number of several tokens.

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
    tokens = encoder.score_tokens(rubric, tuple(scores))
    ids, positions = tokens.encode(scores)
    return Example(
        id=row.id,
        prompt_ids=prompt.ids,
        completion_ids=tuple(ids),
        positions=tuple(positions),
        truncated=prompt.truncated,
        group=hashlib.sha256(repr(row.conversation).encode("utf-8", "backslashreplace")).hexdigest()[:16],
        derived=frozenset(row.derived),
        contrasts=tuple(_contrast(tokens, scores, positions, neighbours)) if neighbours else (),
    )


def _contrast(
    tokens: ScoreTokens, scores: Mapping[str, int], positions: Sequence[ScorePosition], neighbours: int
) -> Iterator[Contrast]:
    for item in tokens.attributes:
        key, label = item.attribute.key, scores[item.attribute.key]
        if max(map(len, item.closed.values())) == 1:
            continue
        near = [score for _, score in sorted((abs(score - label), score) for score in item.closed)][: neighbours + 1]
        start = next(position.index for position in positions if position.key == key)
        yield Contrast(key, start, tuple((score, tuple(item.closed[score])) for score in near))


class GroupedExamples(Dataset[tuple[Example, ...]]):
    """Examples of one conversation as one item, for losses that compare responses.

    Args:
        examples: In any order.
        most: Largest group; a conversation with more responses gives several.

    Raises:
        DataError: If no two responses to one conversation differ in a score.
    """

    def __init__(self, examples: Iterable[Example], most: int = 8) -> None:
        groups: dict[str, list[Example]] = {}
        for example in examples:
            groups.setdefault(example.group, []).append(example)
        self.groups = [
            tuple(group[start : start + most]) for group in groups.values() for start in range(0, len(group), most)
        ]
        if not any(_differ(group) for group in self.groups):
            raise DataError(
                "no conversation has two responses with different scores, so there is nothing to compare; prepare a "
                "data set of preferences, or choose another loss"
            )

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> tuple[Example, ...]:
        return self.groups[index]


def _differ(group: Sequence[Example]) -> bool:
    scores: dict[str, set[int]] = {}
    for position in (position for example in group for position in example.positions):
        scores.setdefault(position.key, set()).add(position.score)
    return any(len(found) > 1 for found in scores.values())


class ExampleDataset(Dataset[Example]):
    """Encoded rows, in order.

    Args:
        encoder: Encodes them.
        rows: Rated responses.
        max_length: Most tokens of a row; longer ones are left out and counted.
        truncate: Whether the oldest turns may be left out to fit.
        description: Label of the progress bar.
        neighbours: As in `encode_example`.

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
    ) -> None:
        self.examples: list[Example] = []
        self.skipped: Counter[str] = Counter()
        for row in tqdm(rows, desc=description, unit=" rows", disable=None):
            try:
                self.examples.append(encode_example(encoder, row, max_length, truncate, neighbours))
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
