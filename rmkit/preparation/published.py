"""Preparing data sets: from raw records to one folder, on several processes, going on where a run was killed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

import rmkit
from rmkit.cleaning.balance import Balance, keeping_probabilities
from rmkit.cleaning.drop import Check
from rmkit.cleaning.options import CleaningOptions
from rmkit.data.dataset import Dataset
from rmkit.errors import DataError, RubricError
from rmkit.preparation.conversion import Refusal, choose_rule, needs_rubric, refuse_repeated
from rmkit.preparation.folder import (
    MANIFEST_FILE,
    RATED_NAMES,
    check_split,
    claim_folder,
    count_rows,
    finish_folder,
)
from rmkit.preparation.part import (
    DROPPED,
    REFUSED,
    REPORTED,
    AnyPart,
    ChunkPlace,
    PartForm,
    PartMaker,
    PartPlan,
    Tally,
    read_index,
)
from rmkit.preparation.part_merge import FolderMerger, LineSelector, count_training_scores
from rmkit.preparation.part_pool import PartJob, PartPool
from rmkit.preparation.parts_folder import PartsFolder
from rmkit.preparation.row_rendering import PAIRS
from rmkit.raw.chunks import CHUNK_RECORDS
from rmkit.raw.source import open_source
from rmkit.row_files import ROW_FORMATS, read_row_file
from rmkit.rubric import Rubric, load_rubric


@dataclass(frozen=True, slots=True)
class PreparationSource:
    """A data set that goes into a folder.

    Args:
        dataset: The data set.
        inputs: Raw files or hub ids, read one after the other; empty for the data set's own home.
        rule: How comparisons are read; None for the data set's own rule.
        keep_derived: Whether scores that were derived from preferences count.
        max_rows: Read no further than to this many rows that passed all checks of one row; None for all.
        checks: What its rows are put through, before the checks of all. It must be possible to pickle them.
        notes: What else the manifest says of it.
    """

    dataset: Dataset
    inputs: tuple[str, ...] = ()
    rule: str | None = None
    keep_derived: bool = True
    max_rows: int | None = None
    checks: tuple[Check, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PreparationSettings:
    """What is the same for all data sets of a folder.

    Args:
        seed: Of the split and of sampling.
        validation_fraction: Expected share of conversations whose rows go to validation, in [0, 1).
        row_format: One of `rmkit.row_files.ROW_FORMATS`.
        cleaning: Which rows are left out.
        workers: Processes; the output does not depend on their number.
        chunk_records: Records that are made a part at once; the output does not depend on it.
    """

    seed: int = 0
    validation_fraction: float = 0.05
    row_format: str = "jsonl"
    cleaning: CleaningOptions = CleaningOptions()
    workers: int = 1
    chunk_records: int = CHUNK_RECORDS


def prepare_published(
    dataset: Dataset,
    output: Path,
    given: str | Sequence[str] | None = None,
    rubric_name: str | None = None,
    settings: PreparationSettings | None = None,
    *,
    max_rows: int | None = None,
    rule: str | None = None,
    keep_derived: bool = True,
) -> dict[str, Any]:
    """Read, convert and write a published data set, and return the folder's manifest.

    Args:
        dataset: The data set.
        output: The folder.
        given: Raw files or hub ids; None for the data set's own hub id.
        rubric_name: A ready rubric or a YAML file; None for the data set's own.
        settings: Split, format, cleaning and workers; None for the usual ones.
        max_rows: As for `PreparationSource`.
        rule: As for `PreparationSource`.
        keep_derived: As for `PreparationSource`.

    Raises:
        DataError: If the source can't be read, or gives no row.
        RubricError: If the rubric can't be read, or does not fit the data set.
    """
    named = rubric_name or (dataset.rubric if needs_rubric(dataset, rule) else "")
    rubric = load_rubric(named) if isinstance(named, str) and named else named or None
    inputs = (given,) if isinstance(given, str) else tuple(given or ())
    source = PreparationSource(dataset, inputs, rule, keep_derived, max_rows)
    if rubric is not None and not needs_rubric(dataset, rule):
        raise RubricError(f"data set {dataset.name!r} gives pairs, which have no scores: leave the rubric out")
    return prepare_sources([source], output, rubric, settings or PreparationSettings())


def prepare_sources(
    sources: Sequence[PreparationSource],
    output: Path,
    rubric: Rubric | None,
    settings: PreparationSettings,
    name: str = "",
) -> dict[str, Any]:
    """Prepare one or several data sets into one folder, and return its manifest.

    The records are cut into chunks, and each becomes a part of its own, made by any worker and kept in a file. The
    parts are then put together in order, so the disk must hold the rows twice for a while. Killed at any moment and
    called again with the same arguments, it goes on from the parts that are finished, and the folder is the same to
    the byte as that of an undisturbed run. The same holds for any number of workers.

    Records of one data set are numbered on from source to source. Where a pair's id stands on an earlier pair, its
    record is refused; of duplicates, the first stays.

    Args:
        sources: The data sets, in their order.
        output: The folder; what an earlier run left under the names of its files is replaced.
        rubric: Onto whose scales ratings are put; None where all sources give pairs.
        settings: The rest.
        name: What the manifest calls the whole; empty for the names of the data sets.

    Raises:
        DataError: If a source can't be read, no record was accepted, no row is left. As `claim_folder`.
        RubricError: If the rubric does not fit a data set.
    """
    check_split(settings.validation_fraction)
    if settings.row_format not in ROW_FORMATS:
        raise DataError(f"format {settings.row_format!r} is unknown; choose {', '.join(ROW_FORMATS)}")
    if rubric is not None:
        rubric.select(settings.cleaning.balance)
    elif settings.cleaning.balance:
        raise DataError("balance: pairs have no scores, so there is nothing to balance")
    _check_places(sources, output, settings.cleaning)
    preparation = _Preparation(sources, output, rubric, settings, name)
    with claim_folder(output) as parts:
        try:
            manifest = preparation.run(parts)
        except DataError:
            if preparation.is_merged:
                shutil.rmtree(parts.path)
            raise
        shutil.rmtree(parts.path)
        return manifest


def _check_places(sources: Sequence[PreparationSource], output: Path, cleaning: CleaningOptions) -> None:
    """Refuse benchmarks that this run would remove, and a file that stands twice in one data set."""
    for given in cleaning.decontaminate:
        for path in (Path(given), Path(given.partition("=")[2] or given)):
            place = path.resolve()
            if path.exists() and output.resolve() in (place, place.parent):
                what = f"benchmark {given} lies in the output folder {output}"
                raise DataError(f"{what}, whose files are replaced; choose another one")
    for source in sources:
        files = [str(Path(given).resolve()) if Path(given).exists() else given for given in source.inputs]
        for given, file in zip(source.inputs, files, strict=True):
            if files.count(file) > 1:
                raise DataError(f"input {given} is given more than once, so its rows would be repeated; give it once")


class _Preparation:
    """One run of `prepare_sources`."""

    def __init__(
        self,
        sources: Sequence[PreparationSource],
        output: Path,
        rubric: Rubric | None,
        settings: PreparationSettings,
        name: str,
    ) -> None:
        self._sources = tuple(sources)
        self._output = output
        self._settings = settings
        self._name = name
        self.is_merged = False
        cleaning = settings.cleaning
        self._gives_pairs = not all(needs_rubric(source.dataset, source.rule) for source in sources)
        self._forms_index = cleaning.duplicates != "none" or bool(cleaning.balance) or self._gives_pairs
        self._form = PartForm(
            rubric=rubric,
            seed=settings.seed,
            validation_fraction=settings.validation_fraction,
            row_format=settings.row_format,
            checks=cleaning.checks(),
            reports=cleaning.reports(),
            duplicates=cleaning.duplicates,
            indexed=self._forms_index,
        )
        self._plans = [self._plan(source) for source in sources]
        for plan in self._plans:
            PartMaker(plan)  # says what does not fit before anything is written
        self._opened = [
            [open_source(source.dataset, given) for given in source.inputs or (None,)] for source in sources
        ]
        self._notes = cleaning.to_dict()

    def _plan(self, source: PreparationSource) -> PartPlan:
        form = self._form
        checks = (*source.checks, *form.checks)
        return PartPlan(source.dataset, dataclasses.replace(form, checks=checks), source.rule, source.keep_derived)

    def run(self, parts: PartsFolder) -> dict[str, Any]:
        """Make all parts that are not there yet, put them together, and return the manifest."""
        self._parts_folder = parts
        if not (parts.is_begun and parts.go_on(self._key())):
            parts.begin()
        balances = self._weigh() if self._settings.cleaning.balance else {}
        selector = self._selector(balances)
        names = [*(RATED_NAMES if self._form.rubric is not None else ()), *([PAIRS] if self._gives_pairs else [])]
        names += [REFUSED, DROPPED, *([REPORTED] if self._form.reports else [])]
        tallies = [Tally() for _ in self._sources]
        with FolderMerger(self._output, names, self._settings.row_format) as merger:
            for job, part in self._parts("records"):
                left_out = None
                if self._forms_index:
                    left_out = selector.select(read_index(part), self._sources[job.plan].dataset.name)
                tallies[job.plan].add(merger.add(part, left_out, _Refuser(job, self._sources[job.plan].dataset.name)))
            for digest in (opened.digest for group in self._opened for opened in group):
                if digest is not None:
                    digest.check_unchanged()
            self.is_merged = True
            more: dict[str, Any] = {"format": self._settings.row_format, "cleaning": self._notes}
            if selector.index is not None:
                index = selector.index
                more["duplicate_index"] = {"rows": len(index), "bytes_per_row": round(index.bytes_per_row, 1)}
            return finish_folder(self._output, merger, self._form, self._origin(tallies), more)

    def _selector(self, balances: Mapping[str, Sequence[Balance]]) -> LineSelector:
        cleaning = self._settings.cleaning
        return LineSelector(cleaning.duplicates, cleaning.threshold, balances)

    def _weigh(self) -> dict[str, list[Balance]]:
        """What the training rows of each data set are balanced by, from the scores of all that are no duplicates."""
        counts: dict[str, dict[str, Counter[int]]] = {}
        selector = self._selector({})
        for job, part in self._parts("records, counted"):
            name = self._sources[job.plan].dataset.name
            left_out = selector.select(read_index(part), name)
            count_training_scores(read_index(part), left_out, counts.setdefault(name, {}))
        attributes = self._settings.cleaning.balance
        for attribute in attributes:
            if not any(attribute in found for found in counts.values()):
                raise DataError(f"balance: no training row has a score of {attribute!r}; balance one that is rated")
        return {
            name: [
                Balance(attribute, keeping_probabilities(found[attribute]), self._settings.seed)
                for attribute in attributes
                if attribute in found
            ]
            for name, found in counts.items()
        }

    def _parts(self, unit: str) -> Iterator[tuple[PartJob, AnyPart]]:
        """Each part in its order, up to the most rows of its source."""
        room = {number: source.max_rows for number, source in enumerate(self._sources)}
        jobs = (job for number in range(len(self._sources)) for job in self._jobs(number, room))
        with PartPool(self._plans, self._settings.workers) as pool, tqdm(unit=f" {unit}", disable=None) as bar:
            for job, file in pool.run(jobs):
                left = room[job.plan]
                if left is not None and left <= 0:
                    continue  # made ahead
                part: AnyPart = file
                rows = sum(file.tally.rows.values())
                if left is not None and rows >= left:
                    part = pool.maker(job.plan).make(job.chunk, job.place, left)
                    room[job.plan] = 0
                else:
                    room[job.plan] = None if left is None else left - rows
                bar.update(part.tally.raw)
                yield job, part
                if not self._parts_folder.is_noted and self._is_hashed():
                    self._parts_folder.note(self._key())

    def _jobs(self, number: int, room: Mapping[int, int | None]) -> Iterator[PartJob]:
        source = self._sources[number]
        earlier = [index for index in range(number) if self._sources[index].dataset.name == source.dataset.name]
        first = sum(self._count_records(index) for index in earlier)
        count = 0
        for opened in self._opened[number]:
            for chunk in opened.cut(self._settings.chunk_records):
                if room[number] == 0:
                    return
                path, key = self._parts_folder.part(number, count)
                yield PartJob(number, chunk, ChunkPlace(opened.name, first), path, key)
                first += chunk.records
                count += 1

    def _count_records(self, number: int) -> int:
        return sum(chunk.records for opened in self._opened[number] for chunk in opened.cut(CHUNK_RECORDS))

    def _is_hashed(self) -> bool:
        return all(opened.is_hashed for group in self._opened for opened in group)

    def _key(self) -> str:
        """What determines the parts; it waits for the hashes of the files."""
        form = self._form
        data = [
            rmkit.__version__,
            _hash_code(),
            None if form.rubric is None else form.rubric.to_dict(),
            [form.seed, form.validation_fraction, form.row_format, form.indexed],
            self._notes,
            self._settings.chunk_records,
            [
                [
                    _hash_object((source.dataset, source.checks)),
                    choose_rule(source.dataset, source.rule),
                    source.keep_derived,
                    [opened.to_dict() for opened in opened_inputs],
                ]
                for source, opened_inputs in zip(self._sources, self._opened, strict=True)
            ],
        ]
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

    def _origin(self, tallies: Sequence[Tally]) -> dict[str, Any]:
        names = dict.fromkeys(source.dataset.name for source in self._sources)
        inputs = [opened.to_dict() for group in self._opened for opened in group]
        together = names if len(self._sources) > 1 else [str(found["name"]) for found in inputs]
        several = {"name": ", ".join(together), "revision": None, "sha256": None}
        parts = [
            {
                "name": source.dataset.name,
                "inputs": [opened.to_dict() for opened in opened_inputs],
                "rule": choose_rule(source.dataset, source.rule) or None,
                "keep_derived": source.keep_derived,
                "max_rows": source.max_rows,
                **source.notes,
                **count_rows(tally),
            }
            for source, opened_inputs, tally in zip(self._sources, self._opened, tallies, strict=True)
        ]
        return {
            "dataset": self._name or "+".join(names),
            "source": inputs[0] if len(inputs) == 1 else several,
            "max_rows": self._sources[0].max_rows if len(self._sources) == 1 else None,
            "sources": parts,
        }


@dataclass(frozen=True, slots=True)
class _Refuser:
    """Refuses a record of a chunk after all."""

    job: PartJob
    name: str

    def __call__(self, record: int, pair_id: str) -> Refusal:
        place = self.job.place
        (raw,) = islice(self.job.chunk.read(), record - place.index, record - place.index + 1)
        return refuse_repeated(raw, f"{self.name}/{record:06d}", place.file, pair_id)


def _hash_object(value: object) -> str:
    """A hash of anything; of what can't be pickled, such as a function within another one, a new one each time."""
    try:
        content = pickle.dumps(value)
    except (pickle.PicklingError, AttributeError, TypeError):
        content = os.urandom(32)
    return hashlib.sha256(content).hexdigest()


def _hash_code() -> str:
    """A hash of this package's code: parts that another state of it made are not reused."""
    digest = hashlib.sha256()
    root = Path(rmkit.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def ensure_published(dataset: Dataset, folder: Path) -> Path:
    """The folder of a published data set, prepared from the hub unless it is complete already."""
    if not (folder / MANIFEST_FILE).is_file():
        prepare_published(dataset, folder)
    return folder


def check_prepared(path: Path) -> None:
    """Do nothing for a folder, or a file whose first row is a prepared pair.

    Raises:
        DataError: For any other file: it is taken for one as it is published.
    """
    if path.is_file():
        where, row = next(read_row_file(path), (str(path), {}))
        if "conversation" not in row:
            found = ", ".join(row) or "no rows"
            raise DataError(
                f"{where}: no field 'conversation', so these are no prepared pairs (found {found[:120]}); name a "
                "published file with --raw"
            )
