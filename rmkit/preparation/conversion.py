"""The prepare stage's logic: raw records become rows or refusals, and every one is accounted for."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from rmkit.data.dataset import Dataset, RawComparison, RawResponse, RecordError, describe
from rmkit.errors import DataError, RubricError
from rmkit.preparation.preferences import RULES, pair_comparison, score_comparison
from rmkit.preparation.ratings import exact_rating
from rmkit.prompts import render_prompt
from rmkit.raw.files import RawRecord
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Conversation, PreferencePair, RatedResponse
from rmkit.scores import render_scores

_MAX_TEXT = 2000  # characters kept of a record that can't be read as one
_MAX_REMEMBERED = 4096  # ratings and combinations of scores; means of many raters may be without number
_MAX_DEPTH = 50  # levels kept of a refused record; json itself fails at a few hundred


@dataclass(frozen=True, slots=True)
class Refusal:
    """A raw record that gave no row: a line of `refused.jsonl`.

    Args:
        file: Name of the file, or hub id, that it comes from.
        line: Its line or row there, from 1.
        id: The id its rows would have had, without their letter.
        reason: A short code, under which refusals are counted.
        message: The same for people.
        record: The record; where it can't be read, its text, cut to 2,000 characters.
    """

    file: str
    line: int
    id: str
    reason: str
    message: str
    record: Any

    def to_dict(self) -> dict[str, Any]:
        """The refusal as it stands in `refused.jsonl`."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


Row = RatedResponse | PreferencePair
Outcome = tuple[Row, ...] | Refusal
"""What becomes of one raw record: all of its rows, or a refusal."""


def convert_records(
    dataset: Dataset,
    rubric: Rubric | None,
    records: Iterable[RawRecord],
    file: str,
    rule: str | None = None,
    keep_derived: bool = True,
) -> Iterator[Outcome]:
    """Turn raw records into rows, one outcome per record and in their order.

    Pairs have the published ids; a record with a pair whose id stands on an earlier one is refused.

    Args:
        dataset: As for `RecordConverter`.
        rubric: As for `RecordConverter`.
        records: What `read_records` or `read_hub` gives.
        file: What refusals call the source: a file name without its folder, or a hub id.
        rule: As for `RecordConverter`.
        keep_derived: As for `RecordConverter`.

    Raises:
        DataError: As for `RecordConverter`.
        RubricError: As for `RecordConverter`.
    """
    converter = RecordConverter(dataset, rubric, rule, keep_derived)
    return _convert(converter, records, file)


def _convert(converter: RecordConverter, records: Iterable[RawRecord], file: str) -> Iterator[Outcome]:
    pair_ids: set[str] = set()
    for index, raw in enumerate(records):
        outcome = converter.convert(raw, index, file)
        if not isinstance(outcome, Refusal):
            ids = [row.id for row in outcome if isinstance(row, PreferencePair)]
            twice = [pair_id for pair_id in ids if pair_id in pair_ids]
            if twice:
                outcome = refuse_repeated(raw, converter.record_id(index), file, twice[0])
            else:
                pair_ids.update(ids)
        yield outcome


def refuse_repeated(raw: RawRecord, record_id: str, file: str, pair_id: str) -> Refusal:
    """The refusal of a record with a pair whose id stands on an earlier one."""
    message = f"the id {pair_id!r} stands on an earlier pair"
    return Refusal(file, raw.line, record_id, "duplicate_id", message, _storable(raw.content))


class RecordConverter:
    """Turns the raw records of one data set into rows.

    Row ids are `name/000012a`: the number of the raw record, from 0, and a letter for the response within it.

    Args:
        dataset: Whose records they are.
        rubric: Onto whose scales ratings are put; None where pairs are written.
        rule: How comparisons are read, one of `rmkit.preparation.preferences.RULES`; None for the data set's own rule.
        keep_derived: Whether scores that were derived from preferences count.

    Raises:
        DataError: If the rule is unknown, or the data set holds no comparisons.
        RubricError: If the rubric has no attribute that the data set rates, or there is one too many or few.
    """

    def __init__(
        self, dataset: Dataset, rubric: Rubric | None, rule: str | None = None, keep_derived: bool = True
    ) -> None:
        self.dataset = dataset
        self.rubric = rubric
        self.rule = choose_rule(dataset, rule)
        self.keep_derived = keep_derived
        if needs_rubric(dataset, rule) != (rubric is not None):
            need = "gives pairs, which have no scores: leave the rubric out"
            if rubric is None:
                need = "needs a rubric: name one, or put one into its mapping"
            raise RubricError(f"data set {dataset.name!r} {need}")
        if rubric is not None and dataset.scales and not set(dataset.scales) & set(rubric.keys):
            raise RubricError(
                f"rubric {rubric.name!r} has {', '.join(rubric.keys)}, none of which {dataset.name!r} rates; "
                f"it rates {', '.join(dataset.scales)}"
            )
        self._ratings = None if rubric is None else _RatingTable(dataset, rubric)

    def record_id(self, index: int) -> str:
        """The id of a record: that of its rows without their letter."""
        return f"{self.dataset.name}/{index:06d}"

    def convert(self, raw: RawRecord, index: int, file: str) -> Outcome:
        """What becomes of a record.

        Args:
            raw: The record.
            index: Its number within the data set, from 0.
            file: What its refusal calls the source: a file name without its folder, or a hub id.
        """
        record_id = self.record_id(index)
        try:
            if raw.reason or isinstance(raw.content, str):
                raise RecordError(raw.reason, raw.message)
            rows: list[Row] = []
            for number, item in enumerate(self.dataset.read(raw.content)):
                if isinstance(item, RawResponse):
                    rows.append(self._rate(item, record_id + _letter(len(rows))))
                elif not isinstance(item, RawComparison):
                    rows.append(item)
                elif self.rule == "pairs":
                    rows.append(pair_comparison(item, record_id + _letter(number)))
                else:
                    for found in score_comparison(item, self.rule):
                        rows.append(self._rate(found, record_id + _letter(len(rows))))
            return tuple(rows)
        except DataError as error:
            reason = error.reason if isinstance(error, RecordError) else "unusable_record"
            return Refusal(file, raw.line, record_id, reason, str(error), _storable(raw.content))

    def _rate(self, found: RawResponse, row_id: str) -> RatedResponse:
        if found.rubric is None:
            table = self._ratings
            assert table is not None  # checked for rated data sets before the first record
        else:
            table = _RatingTable(self.dataset, found.rubric)
        derived = found.derived
        scores = table.rate(found.ratings, () if self.keep_derived else derived)
        if not scores:
            if derived and not self.keep_derived:
                raise RecordError("only_derived", "all scores are derived from preferences, and those are left out")
            message = f"none of the rubric's attributes is rated; the record rates {list(found.ratings)}"
            raise RecordError("no_rating", message)
        return RatedResponse(
            id=row_id,
            source=self.dataset.name,
            conversation=found.conversation,
            response=found.response,
            scores=scores,
            reference=found.reference,
            rubric=found.rubric,
            derived=tuple(key for key in derived if key in scores) if derived else (),
            metadata=found.metadata,
        )


class _RatingTable:
    """The scores of raw ratings. Ratings are few, so each is checked and put on its scale once."""

    def __init__(self, dataset: Dataset, rubric: Rubric) -> None:
        self._dataset = dataset
        self._rubric = rubric
        self._keys = frozenset(rubric.keys)
        self._scores: dict[tuple[str, type, Any], int | None] = {}
        self._complete: dict[tuple[tuple[str, int], ...], dict[str, int]] = {}

    def rate(self, ratings: Mapping[str, Any], left_out: Collection[str]) -> dict[str, int]:
        """The scores of a row in rubric order, sums included; to be read only, for rows share them."""
        scores = []
        for key, rating in ratings.items():
            try:
                score = self._scores[key, type(rating), rating]
            except (KeyError, TypeError):  # new, or something that has no hash
                score = self._rate(key, rating)
            if score is not None and key not in left_out:
                scores.append((key, score))
        found = tuple(scores)
        complete = self._complete.get(found)
        if complete is None:
            complete = self._rubric.complete(dict(found))
            if len(self._complete) < _MAX_REMEMBERED:
                self._complete[found] = complete
        return complete

    def _rate(self, key: str, rating: Any) -> int | None:
        checked = _check_rating(self._dataset, key, rating)
        known = key in self._keys
        score = rescale(checked, _raw_scale(self._dataset, key), self._rubric[key]) if known else None
        if len(self._scores) < _MAX_REMEMBERED:
            self._scores[key, type(rating), rating] = score
        return score


def needs_rubric(dataset: Dataset, rule: str | None = None) -> bool:
    """Whether a data set gives rated responses, which need a rubric, and not pairs.

    Raises:
        DataError: If the rule is unknown, or the data set holds no comparisons.
    """
    return bool(dataset.scales) or choose_rule(dataset, rule) not in ("", "pairs")


def choose_rule(dataset: Dataset, rule: str | None) -> str:
    """The rule that comparisons are read by: the one asked for, else the data set's own; empty without comparisons.

    Raises:
        DataError: If the rule is unknown, or the data set holds no comparisons.
    """
    if rule is None or rule == dataset.rule:
        return dataset.rule
    if rule not in RULES:
        raise DataError(f"rule {rule!r} is unknown; choose {', '.join(RULES)}")
    if not dataset.rule:
        raise DataError(f"data set {dataset.name!r} holds no comparisons, so the rule {rule!r} has nothing to read")
    return rule


def _raw_scale(dataset: Dataset, key: str) -> tuple[float, float]:
    """The raw scale of an attribute; what a rule made of a comparison is a share."""
    return dataset.scales.get(key, (0, 1))


def _check_rating(dataset: Dataset, key: str, rating: Any) -> int | float | Fraction:
    low, high = sorted(_raw_scale(dataset, key))
    if rating is None:
        raise RecordError("rating_missing", f"{key}: the rating is null; {dataset.name} has {low}-{high}")
    if isinstance(rating, bool) or not isinstance(rating, int | float | Fraction):
        message = f"{key}: expected a number in {low}-{high}, found {describe(rating)}"
        raise RecordError("rating_wrong_type", message)
    strange = isinstance(rating, float) and not math.isfinite(rating)
    if strange or not exact_rating(low) <= exact_rating(rating) <= exact_rating(high):
        found = f"{key}: {str(rating)[:60]} is outside {low}-{high}, the scale of {dataset.name}"
        raise RecordError("rating_out_of_range", found)
    return rating


def rescale(rating: int | float | Fraction, raw_scale: tuple[float, float], attribute: Attribute) -> int:
    """Put a raw rating on an attribute's scale: linearly from end to end, halves rounded up.

    `minimum + (rating - worst) * (maximum - minimum) / (best - worst)`, computed without rounding errors on what
    `exact_rating` makes of floats. Scales of one width are shifted, so nothing is lost; others are stretched or
    squeezed:

    | raw scale | attribute | ratings | become |
    |---|---|---|---|
    | 0-4 | 1-5 | 0, 1, 2, 3, 4 | 1, 2, 3, 4, 5 |
    | 0-4 | 0-4 | 0, 1, 2, 3, 4 | 0, 1, 2, 3, 4 |
    | 0-4 | 1-10 | 0, 1, 2, 3, 4 | 1, 3, 6, 8, 10 |
    | 1-10 | 1-5 | 1, 2, 3, ..., 10 | 1, 1, 2, 2, 3, 3, 4, 4, 5, 5 |
    | 3-0 | 1-5 | 0, 1, 2, 3 | 5, 4, 2, 1 |

    Args:
        rating: A number within the raw scale; means of several raters may be fractions.
        raw_scale: Worst and best raw rating; the first is the larger where less is better.
        attribute: Whose scale to put it on.
    """
    worst, best = map(exact_rating, raw_scale)
    share = (exact_rating(rating) - worst) / (best - worst)
    return math.floor(attribute.minimum + share * (attribute.maximum - attribute.minimum) + Fraction(1, 2))


def move_row(row: RatedResponse, source: Rubric, target: Rubric) -> RatedResponse:
    """A row with its scores put from one rubric's scales onto another's; attributes only one of them has are left out.

    Raises:
        RubricError: If no rated attribute is in both.
    """
    scores = {
        key: rescale(score, (source[key].minimum, source[key].maximum), target[key])
        for key, score in row.scores.items()
        if key in target.keys
    }
    if not scores:
        raise RubricError(
            f"rubric {target.name!r} has {', '.join(target.keys)}; row {row.id} is rated on {', '.join(row.scores)}"
        )
    return dataclasses.replace(row, scores=target.complete(scores))


def is_validation(conversation: Conversation, seed: int, fraction: float) -> bool:
    """Whether a conversation belongs to the validation rows.

    The answer depends on the conversation's own hash and the seed, so equal conversations are never parted, and rows
    stay where they are when others are added.

    Args:
        conversation: What stands before the response.
        seed: Another one gives another split.
        fraction: Expected share of conversations in [0, 1].
    """
    if not fraction:
        return False
    text = json.dumps([seed, [message.to_dict() for message in conversation]], sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode("ascii")).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def row_to_dict(row: RatedResponse, rubric: Rubric) -> dict[str, Any]:
    """A row as it stands in `train.jsonl`: TRL's prompt and completion, and the same as data.

    Args:
        row: What to write.
        rubric: The run's; the row's own comes first.
    """
    used = row.rubric or rubric
    prompt = render_prompt(used, row.conversation, row.response, row.reference)
    turns = [message.to_dict() for message in row.conversation]
    return lay_out_row(row, prompt, render_scores(used, row.scores), turns)


def lay_out_row(row: RatedResponse, prompt: str, completion: str, turns: list[dict[str, str]]) -> dict[str, Any]:
    """A row as it stands in `train.jsonl`, from the judge's prompt, the score sequence, and the turns as data."""
    return {
        "id": row.id,
        "source": row.source,
        "prompt": [{"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": completion}],
        "scores": dict(row.scores),
        "conversation": turns,
        "response": row.response,
        "reference": row.reference,
        "rubric": None if row.rubric is None else row.rubric.to_dict(),
        "derived": list(row.derived),
        "metadata": dict(row.metadata),
    }


def _letter(number: int) -> str:
    """0 is a, 25 is z, 26 is aa."""
    return (_letter(number // 26 - 1) if number > 25 else "") + "abcdefghijklmnopqrstuvwxyz"[number % 26]


def _storable(content: Any, depth: int = 0) -> Any:
    """The content as JSON can hold it."""
    if isinstance(content, str):
        return content if depth else content[:_MAX_TEXT]
    if isinstance(content, bool | int | None) or (isinstance(content, float) and math.isfinite(content)):
        return content
    if depth > _MAX_DEPTH:
        return "(deeper levels are left out)"
    if isinstance(content, Mapping):
        return {str(key): _storable(value, depth + 1) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_storable(value, depth + 1) for value in content]
    return str(content)[:_MAX_TEXT]
