"""Mixing data sets: prepared folders and raw sets read as one, on one rubric, with weights and other names."""

from __future__ import annotations

import dataclasses
import heapq
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from rmkit.cleaning.balance import draw
from rmkit.cleaning.drop import Drop, Row
from rmkit.data.dataset import Dataset, RawComparison, RawResponse, RecordError
from rmkit.errors import DataError, RubricError
from rmkit.manifest import sha256_file
from rmkit.preparation.conversion import rescale
from rmkit.preparation.folder import MANIFEST_FILE, check_folder
from rmkit.preparation.mix_file import Mix, MixSource, load_mix
from rmkit.preparation.published import PreparationSettings, PreparationSource, prepare_sources
from rmkit.preparation.row_rendering import PAIRS, ROW_NAMES
from rmkit.row_files import read_row_file
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import PreferencePair, RatedResponse

Found = RawResponse | RawComparison | RatedResponse | PreferencePair
_PACKED = ("scores", "rubric", "metadata")  # what Parquet holds as JSON


@dataclass(frozen=True, slots=True)
class Sample:
    """Keeps a share of the rows, whichever others there are: a hash of the seed and the row's id decides.

    Args:
        weight: The share, in (0, 1]. The rows of a smaller share are among those of a larger one.
        seed: Another one keeps other rows.
        reason: What drops are counted under.
    """

    weight: float
    seed: int
    reason: str = "weight"

    def check(self, row: Row) -> Row | Drop:
        """The row, or a drop."""
        if draw_sample(row.id, self.seed) < self.weight:
            return row
        return Drop(self.reason, f"one row in {1 / self.weight:.3g} is kept", noted=False)


def draw_sample(row_id: str, seed: int) -> float:
    """A number in [0, 1) that depends on the seed and the id alone."""
    # Not the draw of balancing, which would keep all rows that were kept here.
    return draw(f"weight\n{row_id}", seed)


def find_share(ids: Iterable[str], max_rows: int, seed: int) -> float:
    """The weight at which a sample has so many rows, or all of them if there are fewer. Memory grows with `max_rows`.

    Args:
        ids: Of all rows, each once.
        max_rows: At least 1.
        seed: Of the sample.
    """
    lowest = heapq.nsmallest(max_rows + 1, (draw_sample(row_id, seed) for row_id in ids))
    return lowest[max_rows] if len(lowest) > max_rows else 1.0


@dataclass(frozen=True, slots=True)
class RenamedReader:
    """Reads a raw set's records with other keys of attributes.

    Args:
        read: The set's own function.
        keys: Attributes that are read, by their old keys.
        rename: New keys by their old ones.
        prefix: What is put before the published ids of pairs.
    """

    read: Callable[[Mapping[str, Any]], Iterable[Found]]
    keys: tuple[str, ...]
    rename: Mapping[str, str]
    prefix: str

    def __call__(self, record: Mapping[str, Any]) -> Iterator[Found]:
        """What the set's own function gives, renamed."""
        for found in self.read(record):
            if isinstance(found, RawComparison):
                attribute = self.rename.get(found.attribute, found.attribute)
                pair_id = f"{self.prefix}{found.id}" if found.id else ""
                yield dataclasses.replace(found, attribute=attribute, id=pair_id)
            elif isinstance(found, PreferencePair):
                yield dataclasses.replace(found, id=f"{self.prefix}{found.id}")
            elif isinstance(found, RawResponse) and found.rubric is None:
                ratings = {self.rename.get(key, key): found.ratings[key] for key in found.ratings if key in self.keys}
                derived = tuple(self.rename.get(key, key) for key in found.derived)
                yield dataclasses.replace(found, ratings=ratings, derived=derived)
            else:
                yield found


@dataclass(frozen=True, slots=True)
class PreparedReader:
    """Reads the rows of a prepared folder as they are, with scores put on another rubric's scales.

    Args:
        source: The folder's rubric; None where it holds only pairs.
        target: The other rubric.
        rename: New keys of attributes by their old ones.
        prefix: What is put before ids; the source of the rows is then called so, without the slash at its end.
    """

    source: Rubric | None
    target: Rubric | None
    rename: Mapping[str, str]
    prefix: str

    def __call__(self, record: Mapping[str, Any]) -> Iterator[Found]:
        """The row.

        Raises:
            RecordError: `broken_row` for what is no row of the folder's rubric; `no_rating` if the other rubric has
                none of its attributes.
        """
        try:
            texts = {key: json.loads(record[key]) for key in _PACKED if isinstance(record.get(key), str)}
            record = {**record, **texts}
            if "chosen" in record:
                pair = PreferencePair.from_dict(record)
                yield dataclasses.replace(pair, id=self.prefix + pair.id)
                return
            row = self._move(RatedResponse.from_dict(record))
        except RecordError:
            raise
        except (DataError, RubricError, RecursionError, TypeError, ValueError) as error:
            raise RecordError("broken_row", f"it is no row of a prepared folder ({error})") from error
        name = self.prefix.removesuffix("/") or row.source
        yield dataclasses.replace(row, id=self.prefix + row.id, source=name)

    def _move(self, row: RatedResponse) -> RatedResponse:
        if row.rubric is not None:
            row.rubric.complete(row.scores)
            return row
        if self.source is None or self.target is None:
            raise RubricError("the folder's manifest has no rubric")
        scores = {}
        for key, score in self.source.complete(row.scores).items():
            new = self.rename.get(key, key)
            if new in self.target.keys:
                old, found = self.source[key], self.target[new]
                scores[new] = _move_score(score, old.minimum, old.maximum, found.minimum, found.maximum)
        if not scores:
            raise RecordError("no_rating", f"it rates {', '.join(row.scores)}, none of which the mix has")
        derived = tuple(self.rename.get(key, key) for key in row.derived)
        return dataclasses.replace(
            row, scores=self.target.complete(scores), derived=tuple(key for key in derived if key in scores)
        )


@lru_cache(maxsize=4096)  # scores are few, rows are many
def _move_score(score: int, lowest: int, highest: int, minimum: int, maximum: int) -> int:
    return rescale(score, (lowest, highest), Attribute("score", "Score", minimum=minimum, maximum=maximum))


def rename_dataset(source: MixSource) -> Dataset:
    """A raw set of a mix, with its name there, the attributes of its rubric, and their new keys."""
    dataset, rename = source.dataset, source.rename
    assert dataset is not None
    keys = source.rubric.keys if source.rubric is not None else ()
    renamed = {rename.get(key, key): scale for key, scale in dataset.scales.items() if key in keys}
    return dataclasses.replace(
        dataset,
        name=source.name,
        read=RenamedReader(dataset.read, keys, rename, source.prefix),
        scales={**dataset.scales, **renamed},  # those of old keys are for responses with a rubric of their own
        numeric=tuple(dataset.scales) if dataset.numeric is None else dataset.numeric,
    )


def read_folder(source: MixSource, target: Rubric | None, rated: bool) -> Dataset:
    """A prepared folder of a mix as a data set, whose records are rows of the folder.

    Args:
        source: The folder.
        target: The mix's rubric; None where it has only pairs.
        rated: Whether the records are rated responses, or else pairs.
    """
    rubric = source.rubric
    scales = {source.rename.get(a.key, a.key): (a.minimum, a.maximum) for a in (rubric.attributes if rubric else ())}
    return Dataset(
        name=source.name,
        hub_id="",
        revision="",
        split="",
        read=PreparedReader(rubric, target, source.rename, source.prefix),
        scales=scales if rated else {},
    )


def list_files(folder: Path) -> dict[str, Path]:
    """The files of rows in a prepared folder, by their name without suffix.

    Raises:
        DataError: If the folder is not complete, or a file is not what its manifest says.
    """
    files = {Path(name).stem: folder / name for name in check_folder(folder)["files"]}
    return {name: files[name] for name in ROW_NAMES if name in files}


def list_sources(mix: Mix, seed: int) -> list[PreparationSource]:
    """What is prepared for a mix, in its order; a folder's pairs are a source of their own.

    Args:
        mix: The mix.
        seed: Of the weights.

    Raises:
        DataError: If a folder is not what its manifest says.
    """
    found: list[PreparationSource] = []
    for source in mix.sources:
        notes: dict[str, Any] = {"weight": source.weight, "rename": dict(sorted(source.rename.items()))}
        checks = (Sample(source.weight, seed),) if source.weight < 1 else ()
        if source.folder is not None:
            found += _list_folder(source, mix.rubric, seed, checks, notes)
            continue
        dataset = rename_dataset(source)
        rule, keep_derived, max_rows = source.rule, source.keep_derived, source.max_rows
        found.append(PreparationSource(dataset, source.inputs, rule, keep_derived, max_rows, checks, notes))
    return found


def _list_folder(
    source: MixSource, target: Rubric | None, seed: int, checks: tuple[Sample, ...], notes: Mapping[str, Any]
) -> Iterator[PreparationSource]:
    folder = source.folder
    assert folder is not None
    files = list_files(folder)
    notes = {"folder": folder.name, "manifest_sha256": sha256_file(folder / MANIFEST_FILE), **notes}
    notes |= {"max_rows": source.max_rows}
    for rated in (True, False):
        paths = [path for name, path in files.items() if (name != PAIRS) is rated]
        if not paths:
            continue
        limit: tuple[Sample, ...] = ()
        if source.max_rows is not None:  # the first rows would all be training rows, so it is a sample
            ids = (f"{source.prefix}{row['id']}" for path in paths for _, row in read_row_file(path))
            limit = (Sample(find_share(ids, source.max_rows, seed), seed, "max_rows"),)
        dataset = read_folder(source, target, rated)
        yield PreparationSource(dataset, tuple(map(str, paths)), checks=(*checks, *limit), notes=notes)


def prepare_mix(path: Path, output: Path, settings: PreparationSettings) -> dict[str, Any]:
    """Prepare what a mix file names into one folder, and return its manifest.

    Rows come in the file's order. All are split anew by their conversations, so that none stands on both sides, and
    adding a source moves no row of another.

    Args:
        path: The mix file.
        output: The folder.
        settings: Split, format, cleaning and workers.

    Raises:
        DataError: If a source can't be read, or lies in the output folder.
        RubricError: If the rubrics of the sources don't go together.
    """
    mix = load_mix(path)
    sources = list_sources(mix, settings.seed)
    for given in (given for source in sources for given in source.inputs):
        if Path(given).resolve().parent == output.resolve():
            raise DataError(
                f"{given} lies in the output folder {output}, whose files are replaced; choose another one"
            )
    return prepare_sources(sources, output, mix.rubric, settings, mix.name)
