"""One pass over a prepared folder: numbers of every row, texts of a few examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rmkit.errors import DataError
from rmkit.evaluation.texts import make_printable, shorten, shorten_line
from rmkit.inspection.columns import PairColumns, PairReader, RatedColumns, RatedReader
from rmkit.jsonl import read_jsonl
from rmkit.preparation.folder import check_folder
from rmkit.row_files import read_row_file

_RATED = ("train", "validation")
_NOTED = ("refused", "dropped", "reported")  # records without a row, rows taken out, rows written down that stay
_MOST_OF_A_MESSAGE = 160


@dataclass(frozen=True, slots=True)
class Noted:
    """Records or rows that preparation noted, by reason.

    Args:
        kind: `refused` for raw records that gave no row, `dropped` for rows that a filter took out, `reported` for
            rows that a filter wrote down and left in.
        reason: The code under which they are counted.
        count: How many.
        first: The first of them, for people: where it is and what is the matter. Empty if no file tells.
    """

    kind: str
    reason: str
    count: int
    first: str


@dataclass(frozen=True, slots=True)
class Example:
    """A row to read: its id, its file and its texts, each with what it is."""

    id: str
    file: str
    source: str
    texts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is in a prepared folder. All texts are printable.

    Args:
        name: The folder's data set.
        manifest: As read.
        noted: Refusals, drops and reports by reason.
        rated: Rated rows of all files; None if the folder has no file of them.
        pairs: Preference pairs; None likewise.
        examples: A few rows, spread evenly over the first file that has any.
    """

    name: str
    manifest: Mapping[str, Any]
    noted: tuple[Noted, ...]
    rated: RatedColumns | None
    pairs: PairColumns | None
    examples: tuple[Example, ...]


def inspect_folder(folder: Path, examples: int = 3, max_characters: int = 1500) -> Inspection:
    """Read a prepared folder. Memory grows with the rows by a few bytes for each, never by their texts.

    Args:
        folder: What `data_prep/prepare.py` wrote.
        examples: How many rows to keep the texts of.
        max_characters: Longer texts of examples are cut in their middle.

    Raises:
        DataError: If the folder is not complete, or a file is not what the manifest says.
    """
    manifest = check_folder(folder)
    files = {Path(name).stem: name for name in manifest["files"]}
    rated = [files[stem] for stem in _RATED if stem in files]
    paired = [files["pairs"]] if "pairs" in files else []
    if rated and not manifest.get("rubric"):
        raise DataError(f"the manifest of {folder} has no rubric for the rated rows; run data_prep/prepare.py again")
    rated_reader = RatedReader(manifest["rubric"]) if rated else None
    pair_reader = PairReader() if paired else None
    kept: list[Example] = []
    total = sum(manifest["files"][name]["rows"] for name in rated + paired)
    with tqdm(total=total, unit=" rows", disable=None) as bar:
        for name in rated + paired:
            reader = rated_reader if name in rated else pair_reader
            assert reader is not None  # made above for the files there are
            rows = manifest["files"][name]["rows"]
            wanted = set() if kept else _spread(examples, rows)
            for index, (_, row) in enumerate(read_row_file(folder / name)):
                reader.add(row)
                if index in wanted:
                    kept.append(_show_row(row, name, max_characters))
                bar.update()
    return Inspection(
        name=make_printable(str(manifest.get("dataset", folder.name))),
        manifest=manifest,
        noted=tuple(item for kind in _NOTED for item in _read_noted(folder, manifest, kind)),
        rated=rated_reader.finish() if rated_reader else None,
        pairs=pair_reader.finish() if pair_reader else None,
        examples=tuple(kept),
    )


def _spread(examples: int, rows: int) -> set[int]:
    """Row numbers from the first to the last, evenly apart."""
    return {round(step * (rows - 1) / max(examples - 1, 1)) for step in range(min(examples, rows))}


def _show_row(row: Mapping[str, Any], file: str, most: int) -> Example:
    if "completion" in row:
        texts = [("prompt", row["prompt"][0]["content"]), ("scores", row["completion"][0]["content"])]
    else:
        texts = [(message["role"], message["content"]) for message in row["conversation"]]
        texts += [(side, text) for side in ("chosen", "rejected") for text in row[side]]
    source = str(row.get("source", row.get("subset", "")))
    shown = tuple((make_printable(what), shorten(make_printable(text), most)) for what, text in texts)
    return Example(make_printable(str(row["id"])), file, make_printable(source), shown)


def _read_noted(folder: Path, manifest: Mapping[str, Any], kind: str) -> Iterator[Noted]:
    counts = dict(manifest.get(kind) or {})
    first: dict[str, str] = {}
    path = folder / f"{kind}.jsonl"
    if counts and path.name in manifest["files"]:
        for _, record in read_jsonl(path):
            first.setdefault(record["reason"], _describe_first(record))
            if len(first) == len(counts):
                break
    for reason, count in counts.items():
        yield Noted(kind, make_printable(reason), count, first.get(reason, ""))


def _describe_first(record: Mapping[str, Any]) -> str:
    place = f"{record['file']}:{record['line']}" if "line" in record else str(record.get("id", ""))
    return make_printable(shorten_line(f"{place}: {record.get('message', '')}", _MOST_OF_A_MESSAGE))
