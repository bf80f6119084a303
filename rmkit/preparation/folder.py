"""The folder that the prepare stage writes: rows, refusals, and last of all the manifest."""

from __future__ import annotations

import errno
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rmkit import __version__
from rmkit.errors import DataError
from rmkit.jsonl import read_jsonl
from rmkit.manifest import read_json, sha256_file, write_json
from rmkit.preparation.conversion import Outcome
from rmkit.preparation.part import LINE_NAMES, REFUSED, PartBuilder, PartForm, Tally
from rmkit.preparation.part_merge import FolderMerger
from rmkit.preparation.parts_folder import PartsFolder
from rmkit.preparation.row_rendering import PAIRS, ROW_NAMES, TRAIN, VALIDATION
from rmkit.raw.chunks import CHUNK_RECORDS
from rmkit.row_files import ROW_FORMATS, find_rows
from rmkit.rubric import Rubric

RATED_NAMES = (TRAIN, VALIDATION)
"""Names, without suffix, of the files of rated responses."""

RATED_FILES = ("train.jsonl", "validation.jsonl")
PAIR_FILES = ("pairs.jsonl",)
REFUSED_FILE = "refused.jsonl"
DROPPED_FILE = "dropped.jsonl"
REPORTED_FILE = "reported.jsonl"
MANIFEST_FILE = "manifest.json"

PARTS_FOLDER = ".parts"
"""Folder within the output that a run holds, with its finished parts, until the manifest is written."""


def write_prepared(
    output: Path,
    outcomes: Iterable[Outcome],
    files: Sequence[str],
    rubric: Rubric | None,
    seed: int,
    validation_fraction: float,
    origin: Mapping[str, Any],
    row_format: str = "jsonl",
) -> dict[str, Any]:
    """Write a prepared folder from outcomes that are there, and return its manifest.

    Memory use does not grow with the rows. What an earlier run left under these file names is replaced, its manifest
    first, so that an interrupted run never looks complete; other files are not touched. The same input and settings
    give the same bytes. `rmkit.preparation.published` does the same from raw files, with cleaning, and on several
    processes.

    Args:
        output: The folder; made where there is none.
        outcomes: What became of each raw record, in order.
        files: Which files rows go to, by their names as JSON Lines: `RATED_FILES`, `PAIR_FILES` or both.
        rubric: The rubric of the rated rows; None where there are only pairs.
        seed: Of the split.
        validation_fraction: Expected share of conversations whose rows go to validation, in [0, 1).
        origin: What else the manifest says, such as data set, source and its revision.
        row_format: One of `rmkit.row_files.ROW_FORMATS`.

    Raises:
        DataError: If no record was accepted. `refused.jsonl` then says why, and is the only file. As `claim_folder`.
    """
    check_split(validation_fraction)
    form = PartForm(rubric, seed, validation_fraction, row_format)
    names = [name.partition(".")[0] for name in files]
    with claim_folder(output) as parts, FolderMerger(output, (*names, REFUSED), row_format) as merger:
        index = 0
        for chunk in _cut(outcomes):
            builder = PartBuilder(form, index)
            for outcome in chunk:
                builder.add(outcome)
            merger.add(builder.finish())
            index += len(chunk)
        try:
            manifest = finish_folder(output, merger, form, origin)
        except DataError:
            shutil.rmtree(parts.path)
            raise
        shutil.rmtree(parts.path)
        return manifest


def _cut(outcomes: Iterable[Outcome]) -> Iterator[list[Outcome]]:
    outcomes = iter(outcomes)
    while chunk := list(islice(outcomes, CHUNK_RECORDS)):
        yield chunk


def check_split(validation_fraction: float) -> None:
    """Check the share of conversations that go to validation.

    Raises:
        DataError: If it is outside [0, 1): a training set must be left.
    """
    if not 0 <= validation_fraction < 1:
        raise DataError(f"validation fraction {validation_fraction} is outside [0, 1)")


@contextmanager
def claim_folder(output: Path) -> Iterator[PartsFolder]:
    """Take a folder for one run: no other may write there meanwhile, and what an earlier run left is removed.

    Gives the folder for parts within it. Where that stays behind, the run did not finish.

    Raises:
        DataError: If another process holds it, it has a file that no run wrote and this one would replace, it can't be
            written, or the disk becomes full.
    """
    _refuse_foreign(output)
    parts = PartsFolder(output / PARTS_FOLDER)
    lock = FileLock(parts.path / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise DataError(f"{output}: another process is preparing data into this folder; wait for it to end") from error
    try:
        clear_folder(output)
        yield parts
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                f"{output}: the disk is full ({error}); the folder is not complete: make room, and run the same "
                "command again. Finished parts are kept, so for a while the rows take their space twice"
            ) from error
        raise
    finally:
        lock.release()


def _refuse_foreign(output: Path) -> None:
    """Nothing is replaced but what an earlier run left: its manifest is there, or its parts are."""
    path = output / MANIFEST_FILE
    advice = "and this run would replace it; choose another output folder, or move the file away"
    if path.is_file():
        try:
            manifest = json.loads(path.read_bytes())
        except ValueError:
            manifest = None
        if not isinstance(manifest, dict) or "files" not in manifest:
            raise DataError(f"{path} is no manifest of a prepared folder, {advice}")
    elif not (output / PARTS_FOLDER).is_dir():
        found = [row_file for name in ROW_NAMES if (row_file := find_rows(output, name))]
        if found:
            raise DataError(f"{found[0]} has no {MANIFEST_FILE} beside it, so data_prep/ did not write it, {advice}")


def clear_folder(output: Path) -> None:
    """Make the folder, and remove what an earlier run left under the names of its files, the manifest first.

    Raises:
        DataError: If it can't be written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / MANIFEST_FILE).unlink(missing_ok=True)
        for name in LINE_NAMES:
            for suffix in ROW_FORMATS:
                (output / f"{name}.{suffix}").unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"output folder {output}: can't be written ({error})") from error


def finish_folder(
    output: Path,
    merger: FolderMerger,
    form: PartForm,
    origin: Mapping[str, Any],
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Close the files, write the manifest, and return it.

    Args:
        output: The folder.
        merger: It has been given all parts.
        form: What they were made of.
        origin: What the manifest begins with.
        more: What it says behind the counts.

    Raises:
        DataError: If no record was accepted, or no row is left; what was refused and dropped stays to be read.
    """
    tally, files = merger.tally, merger.finish()
    rows = sum(tally.rows.values())
    if not rows:
        for name in files:
            empty = not files[name]["rows"] and name != REFUSED_FILE
            if empty or name.partition(".")[0] in ROW_NAMES:
                (output / name).unlink()
        if not tally.accepted:
            why = _list_counts(tally.refused) or "the input is empty"
            first = "".join(
                f"; the first is {row['file']}:{row['line']}: {row['message'][:200]}"
                for _, row in islice(read_jsonl(output / REFUSED_FILE), 1)
            )
            raise DataError(f"no record was accepted ({why}); see {output / REFUSED_FILE}{first}")
        see = f"; see {output / DROPPED_FILE}" if (output / DROPPED_FILE).is_file() else ""
        raise DataError(f"no row is left (dropped: {_list_counts(tally.dropped)}){see}")
    unused = [name for name in files if name.partition(".")[0] == PAIRS and not files[name]["rows"]]
    for name in unused:  # one of several data sets might have given pairs
        (output / name).unlink()
        del files[name]
    manifest = {
        **origin,
        **count_rows(tally),
        "files": files,
        "histogram": _count_scores(tally, form.rubric),
        "rubric": None if form.rubric is None else form.rubric.to_dict(),
        "seed": form.seed,
        "validation_fraction": form.validation_fraction,
        **(more or {}),
        "rmkit_version": __version__,
    }
    write_json(output / MANIFEST_FILE, manifest)
    return manifest


def count_rows(tally: Tally) -> dict[str, Any]:
    """The counts as they stand in a manifest: raw records = accepted + refused, rows = given - dropped."""
    rows = sum(tally.rows.values())
    return {
        "raw_records": tally.raw,
        "accepted": tally.accepted,
        "refused": _sorted_counts(tally.refused),
        "rows_given": tally.given,
        "dropped": _sorted_counts(tally.dropped),
        "reported": _sorted_counts(tally.reported),
        "turns_left_out": tally.shortened,
        "rows": rows,
        "rows_per_accepted_record": round(tally.given / tally.accepted, 6) if tally.accepted else 0.0,
    }


def _sorted_counts(counts: Mapping[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in sorted(counts.items()) if count}


def _list_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in _sorted_counts(counts).items())


def _count_scores(tally: Tally, rubric: Rubric | None) -> dict[str, dict[str, int]]:
    histogram = {}
    for attribute in rubric.attributes if rubric else ():
        counts = tally.histogram.get(attribute.key, Counter())
        histogram[attribute.key] = {str(value): counts[str(value)] for value in attribute.values}
    return histogram


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared folder.

    Raises:
        DataError: If there is none, so that the folder is not complete, or it can't be read.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise DataError(
            f"{folder} has no {MANIFEST_FILE}: it is no prepared folder, or its preparation did not finish; "
            "run data_prep/prepare.py"
        )
    manifest = read_json(path)
    if "files" not in manifest:
        raise DataError(f"{path} names no files, so {folder} is no prepared folder; name one of data_prep/prepare.py")
    files = manifest["files"]
    found = list(files.values()) if isinstance(files, dict) else [files]
    if not all(isinstance(file, dict) and {"rows", "sha256"} <= file.keys() for file in found):
        raise DataError(f"{path}: each of its files must have rows and a sha256; run data_prep/prepare.py again")
    return manifest


def check_folder(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared folder whose files are all what it says; each is read for that.

    Raises:
        DataError: If the folder is not complete, or a file is another one.
    """
    manifest = read_manifest(folder)
    for name, file in manifest["files"].items():
        if not (folder / name).is_file() or sha256_file(folder / name) != file["sha256"]:
            raise DataError(f"{folder / name} is missing or not the file that was prepared; run data_prep/prepare.py")
    return manifest


def summarise(manifest: Mapping[str, Any], output: Path) -> str:
    """What a run did, in a few lines: records, refusals and drops by reason, rows per file, histograms, the path."""
    refused = manifest["refused"]
    lines = [
        f"{manifest['dataset']} from {manifest['source']['name']}: {manifest['raw_records']} records, "
        f"{manifest['accepted']} accepted, {sum(refused.values())} refused"
    ]
    benchmarks = (manifest.get("cleaning") or {}).get("decontaminate") or ()
    if benchmarks:
        kinds = {**manifest.get("dropped", {}), **manifest.get("reported", {})}
        hits = sum(count for reason, count in kinds.items() if reason.startswith("contamination"))
        looked = ", ".join(f"{found['prompts']} prompts of {found['name']}" for found in benchmarks)
        lines.append(f"decontamination: {hits} rows hold one of {looked}")
    for what in ("refused", "dropped", "reported"):
        if manifest.get(what):
            lines.append(f"{what}: {_list_counts(manifest[what])}")
    if manifest.get("turns_left_out"):
        lines.append(f"shortened: {manifest['turns_left_out']} rows are without their oldest turns")
    if manifest.get("duplicate_index"):
        index = manifest["duplicate_index"]
        lines.append(f"duplicate index: {index['rows']} rows, {index['bytes_per_row']:g} bytes of memory per row")
    noted = (REFUSED_FILE, DROPPED_FILE, REPORTED_FILE)
    counts = {name: file["rows"] for name, file in manifest["files"].items() if name not in noted}
    empty = any(name.startswith(VALIDATION) and not count for name, count in counts.items())
    hint = " (raise --validation-fraction for validation rows)" if empty else ""
    lines.append("rows: " + ", ".join(f"{name} {count}" for name, count in counts.items()) + hint)
    shown, hidden = list(manifest["histogram"].items())[:6], list(manifest["histogram"])[6:]
    width = max((len(key) for key, _ in shown), default=0)
    for key, counts_by_score in shown:
        seen = {score: n for score, n in counts_by_score.items() if n or len(counts_by_score) <= 21}
        lines.append(f"{key:{width}}  " + "  ".join(f"{score}: {n}" for score, n in seen.items()))
    if hidden:
        lines.append(f"and {len(hidden)} more: {', '.join(hidden)}")
    lines.append(f"written to {output}")
    return "\n".join(lines)
