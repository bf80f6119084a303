"""Where raw records come from: a file, or a split on the Hugging Face hub at a pinned revision."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rmkit.data.dataset import Dataset
from rmkit.errors import DataError
from rmkit.manifest import sha256_file
from rmkit.raw.chunks import CHUNK_RECORDS, RawChunk, cut_file, cut_records, cut_table
from rmkit.raw.files import SUFFIXES, RawRecord, find_format


@dataclass(frozen=True, slots=True)
class RawSource:
    """Raw records and where they come from.

    Args:
        name: The file's name without its folder, or the hub id.
        revision: The hub revision; None for a file.
        cut: Cuts the records into chunks of at most so many.
        digest: The file's hash, on its way; None for the hub, where the revision says it.
    """

    name: str
    revision: str | None
    cut: Callable[[int], Iterator[RawChunk]]
    digest: FileDigest | None = None

    @property
    def sha256(self) -> str | None:
        """The file's hash, waited for if need be; None for the hub."""
        return None if self.digest is None else self.digest.result()

    @property
    def is_hashed(self) -> bool:
        """Whether the hash is known without waiting."""
        return self.digest is None or self.digest.is_done

    @property
    def records(self) -> Iterator[RawRecord]:
        """The records, one by one."""
        return (record for chunk in self.cut(CHUNK_RECORDS) for record in chunk.read())

    def to_dict(self) -> dict[str, str | None]:
        """The origin as it stands in a manifest."""
        return {"name": self.name, "revision": self.revision, "sha256": self.sha256}


class FileDigest:
    """The SHA-256 of a file, computed in a thread, for a large file takes seconds.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state = _read_state(path)
        self._found: str | OSError | None = None
        self._thread = threading.Thread(target=self._compute, daemon=True)
        self._thread.start()

    def _compute(self) -> None:
        try:
            self._found = sha256_file(self._path)
        except OSError as error:
            self._found = error

    def check_unchanged(self) -> None:
        """Check that the file is as it was, so that the hash is that of the records.

        Raises:
            DataError: If it was written to meanwhile, or is no longer there.
        """
        if _read_state(self._path) != self._state:
            raise DataError(
                f"{self._path} has changed while it was read, so its records may be of two versions; run the command "
                "again once it is whole"
            )

    @property
    def is_done(self) -> bool:
        """Whether `result` would give it at once."""
        return not self._thread.is_alive()

    def result(self) -> str:
        """The hash, in hexadecimal.

        Raises:
            DataError: If the file could not be read.
        """
        self._thread.join()
        if not isinstance(self._found, str):
            raise DataError(f"{self._path}: can't be read ({self._found})")
        return self._found


def _read_state(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def open_source(dataset: Dataset, given: str | None = None) -> RawSource:
    """Open a data set's raw records.

    Args:
        dataset: Which data set they are of.
        given: A file, or a hub id `owner/name@revision`. The data set's own hub id needs no revision: the adapter
            pins it where one is known. None means that id.

    Raises:
        DataError: If there is no such file, the hub id pins no revision, the data set is not on the hub, or its source
            can't be read.
    """
    if given is not None:
        path = Path(given)
        if path.is_file():
            numeric = dataset.scales if dataset.numeric is None else dataset.numeric
            find_format(path)
            return RawSource(path.name, None, partial(cut_file, path, tuple(numeric)), FileDigest(path))
        if path.is_dir():
            raise DataError(f"input {given} is a folder; give one of its files ({', '.join(SUFFIXES)})")
        if path.name.removesuffix(".gz").endswith(SUFFIXES):
            raise DataError(f"input {given}: there is no such file")
    elif not dataset.hub_id:
        where = f"download a file from {dataset.url}, and " if dataset.url else ""
        raise DataError(f"{dataset.name} is not on the hub: {where}give its file or hub id as --input")
    hub_id, revision = split_hub_id(given or dataset.hub_id)
    if revision is None:
        if hub_id != dataset.hub_id or not dataset.revision:
            raise DataError(
                f"input {hub_id}: pin a revision, so that a rerun gives the same rows: --input {hub_id}@REVISION, "
                f"with a commit from https://huggingface.co/datasets/{hub_id}/commits/main"
            )
        revision = dataset.revision
    return RawSource(hub_id, revision, open_hub(hub_id, revision, dataset.split, dataset.hub_options))


def split_hub_id(text: str) -> tuple[str, str | None]:
    """Take `owner/name@revision` apart; the revision is None where none is given.

    Raises:
        DataError: If it is no hub id.
    """
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", text, re.ASCII)
    if not match:
        raise DataError(f"input {text}: neither a file nor a hub id; a hub id is owner/name or owner/name@revision")
    return match[1], match[2]


def open_hub(
    hub_id: str, revision: str | None, split: str, options: Mapping[str, str] = MappingProxyType({})
) -> Callable[[int], Iterator[RawChunk]]:
    """Open a split on the hub, or of a local copy of a hub repository; a record's line is its row, from 1.

    The split is downloaded once and memory-mapped, so memory use does not grow with it. No code from there is run.

    Args:
        hub_id: `owner/name`, or a folder.
        revision: The commit.
        split: Which split.
        options: What `datasets.load_dataset` needs besides. The one file that `data_files` names is downloaded and
            read as it is, without a table's types: trees, for example, fit in no table.

    Returns:
        What cuts the records into chunks of at most so many.

    Raises:
        DataError: At once, if it can't be loaded.
    """
    import datasets  # noqa: PLC0415 - takes longer than preparing a small file, which doesn't need it

    try:
        if "data_files" in options:
            path = _fetch(hub_id, revision, options["data_files"])
            find_format(path)
            return partial(cut_file, path, ())
        rows = datasets.load_dataset(hub_id, revision=revision, split=split, **options)
    except Exception as error:  # offline, unknown id, no such split, broken data: they share no base
        raise DataError(
            f"split {split!r} of {hub_id} at revision {revision} can't be loaded ({type(error).__name__}: {error}); "
            "check the network and HF_TOKEN, or download the file and name it with --input (run_benchmark.py: --raw)"
        ) from error
    return partial(_cut_split, rows)


def _cut_split(rows: Any, size: int) -> Iterator[RawChunk]:
    import datasets  # noqa: PLC0415 - as above

    def leaves(feature: Any) -> Iterator[Any]:
        if isinstance(feature, datasets.List | datasets.LargeList):
            yield from leaves(feature.feature)
        elif isinstance(feature, dict):
            for part in feature.values():
                yield from leaves(part)
        else:
            yield feature

    if any(not isinstance(feature, datasets.Value) for feature in leaves(rows.features)):
        # Their columns hold something else than what they stand for, as that of `Json` does.
        yield from cut_records((RawRecord(number, dict(row)) for number, row in enumerate(rows, start=1)), size)
        return
    row = 1
    for table in rows.with_format("arrow").iter(batch_size=size):
        yield cut_table(table, row)
        row += table.num_rows


def read_hub(
    hub_id: str, revision: str | None, split: str, options: Mapping[str, str] = MappingProxyType({})
) -> Iterator[RawRecord]:
    """The records that `open_hub` opens, one by one.

    Raises:
        DataError: As `open_hub` does.
    """
    cut = open_hub(hub_id, revision, split, options)
    return (record for chunk in cut(CHUNK_RECORDS) for record in chunk.read())


def _fetch(hub_id: str, revision: str | None, file: str) -> Path:
    if Path(hub_id).is_dir():
        return Path(hub_id) / file
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 - as above

    return Path(hf_hub_download(hub_id, file, repo_type="dataset", revision=revision))
