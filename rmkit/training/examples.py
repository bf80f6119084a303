"""From rated responses to token ids with their score positions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from torch.utils.data import Dataset
from tqdm.auto import tqdm

from rmkit.errors import DataError, RubricError
from rmkit.judge_encoder import JudgeEncoder
from rmkit.prompt_tokens import PromptTooLongError
from rmkit.schema import RatedResponse
from rmkit.score_tokens import ScorePosition


@dataclass(frozen=True, slots=True)
class Example:
    """One row as token ids.

    Args:
        id: The row's id.
        prompt_ids: What the judge reads.
        completion_ids: The score sequence with its end of turn, all supervised.
        positions: Where scores stand in the completion.
        truncated: Whether old turns were left out.
    """

    id: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    positions: tuple[ScorePosition, ...]
    truncated: bool = False


def encode_example(
    encoder: JudgeEncoder, row: RatedResponse, max_length: int | None = None, truncate: bool = False
) -> Example:
    """Encode one row.

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
    ids, positions = encoder.score_tokens(rubric, tuple(scores)).encode(scores)
    return Example(row.id, prompt.ids, tuple(ids), tuple(positions), prompt.truncated)


class ExampleDataset(Dataset[Example]):
    """Encoded rows, in order.

    Args:
        encoder: Encodes them.
        rows: Rated responses.
        max_length: Most tokens of a row; longer ones are left out and counted.
        truncate: Whether the oldest turns may be left out to fit.
        description: Label of the progress bar.

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
    ) -> None:
        self.examples: list[Example] = []
        self.skipped: Counter[str] = Counter()
        for row in tqdm(rows, desc=description, unit=" rows", disable=None):
            try:
                self.examples.append(encode_example(encoder, row, max_length, truncate))
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
