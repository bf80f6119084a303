"""Mix files: one YAML names several data sets, prepared or raw, that shall become one folder."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rmkit.data import DATASETS
from rmkit.data.dataset import Dataset
from rmkit.errors import DataError
from rmkit.preparation.conversion import choose_rule, needs_rubric
from rmkit.preparation.folder import read_manifest
from rmkit.preparation.mapping import load_mapping
from rmkit.preparation.rubric_union import rename_attributes, unite_rubrics
from rmkit.rubric import Rubric, load_rubric
from rmkit.yaml_files import check_keys, read_yaml, take_text

FORMAT_VERSION = 1
"""Version of a mix file's YAML form."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_OF_ANY = ("name", "weight", "max_rows", "rename")
_OF_RAW = ("dataset", "mapping", "input", "rubric", "rule", "keep_derived")


@dataclass(frozen=True, slots=True)
class MixSource:
    """One of the data sets of a mix.

    Args:
        name: What the manifest calls it: the data set's own name, or the one that the mix file gives.
        prefix: What is put before ids that rows have already: those of a prepared folder, and of published pairs.
        folder: The prepared folder; None for a raw set.
        dataset: The raw set; None for a prepared folder.
        inputs: A raw set's files or hub ids; empty for the set's own home.
        rubric: Whose attributes are read, by their old keys; None without rated rows.
        rule: How a raw set's comparisons are read; None for the set's own rule.
        keep_derived: Whether a raw set's scores that were derived from preferences count.
        weight: Share of the rows that is kept, in (0, 1].
        max_rows: At most so many of those are kept; None for all.
        rename: New keys of attributes by their old ones.
    """

    name: str
    prefix: str
    folder: Path | None
    dataset: Dataset | None
    inputs: tuple[str, ...]
    rubric: Rubric | None
    rule: str | None
    keep_derived: bool
    weight: float
    max_rows: int | None
    rename: Mapping[str, str] = field(default_factory=dict)

    @property
    def renamed_rubric(self) -> Rubric | None:
        """The rubric with the attributes' new keys."""
        return None if self.rubric is None else rename_attributes(self.rubric, self.rename, self.name)


@dataclass(frozen=True, slots=True)
class Mix:
    """A mix file, read and checked.

    Args:
        name: The file's name without its suffix.
        sources: In the file's order, which is that of the rows.
        rubric: Onto whose scales all rows are put; None where no source has rated rows.
    """

    name: str
    sources: tuple[MixSource, ...]
    rubric: Rubric | None


def load_mix(path: Path) -> Mix:
    """Read a mix file. Paths in it are relative to the working directory, like those on a command line.

    | key | value |
    |---|---|
    | `rubric` | a name, a file or a rubric as it is, onto whose scales all rows are put; without it, the union of \
the sources' attributes |
    | `sources` | a list, each entry with one of the next three |
    | `folder` | a prepared folder |
    | `dataset` | a raw set by name; with `input`, `rubric`, `rule` and `keep_derived` as in data_prep/prepare.py |
    | `mapping` | a mapping file (`rmkit.preparation.mapping`), likewise |
    | `weight` | the share of rows that is kept, above 0 and at most 1: a hash of each row's id decides, so that \
other sources change nothing |
    | `max_rows` | so many of those at most, before duplicates are looked for, and as many pairs: of a folder those \
that a smaller weight would keep, of a raw set the first |
    | `rename` | `{old: new}` keys of attributes |
    | `name` | put before the source's ids, so that one set can stand in a mix twice |

    Raises:
        DataError: If the file can't be read, or says something that is no mix; with the source.
        RubricError: If a rubric can't be read, or two sources define an attribute differently.
    """
    data = check_keys(read_yaml(path), ("format_version", "rubric", "sources"), str(path), required=("sources",))
    if data.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
        found = data["format_version"]
        raise DataError(f"{path}: format_version {found!r} is unknown; this rmkit reads {FORMAT_VERSION}")
    items = data["sources"]
    if not isinstance(items, list) or not items:
        raise DataError(f"{path}: sources must be a list of data sets, found {str(items)[:80]!r}")
    sources = tuple(_read_source(item, f"{path}: sources[{number}]") for number, item in enumerate(items))
    taken: dict[str, int] = {}
    for number, source in enumerate(sources):
        for name in _names(source):
            if name in taken:
                where = f"{path}: sources[{taken[name]}] and sources[{number}]"
                raise DataError(f"{where} both have ids that begin with {name!r}; give one of them a name of its own")
            taken[name] = number
    return Mix(path.stem, sources, _read_rubric(data, path, sources))


def _read_rubric(data: Mapping[str, Any], path: Path, sources: tuple[MixSource, ...]) -> Rubric | None:
    renamed = [(source.name, source.renamed_rubric) for source in sources]
    parts = [(name, part) for name, part in renamed if part is not None]
    given = data.get("rubric")
    if not parts:
        if given is not None:
            raise DataError(f"{path}: no source has rated rows, so leave the rubric out")
        return None
    if given is None:
        return unite_rubrics(path.stem, parts)
    if isinstance(given, Mapping):
        rubric = Rubric.from_dict({"name": path.stem, **given}, f"{path}: rubric")
    else:
        rubric = load_rubric(take_text(data, "rubric", str(path)))
    for name, part in parts:
        if not set(part.keys) & set(rubric.keys):
            has = f"rubric {rubric.name!r} has {', '.join(rubric.keys)}"
            raise DataError(f"{path}: {has}, none of which {name!r} rates; it rates {', '.join(part.keys)}")
    return rubric


def _read_source(item: Any, where: str) -> MixSource:
    check_keys(item, ("folder", *_OF_RAW, *_OF_ANY), where)
    kinds = [key for key in ("folder", "dataset", "mapping") if key in item]
    if len(kinds) != 1:
        found = f"found {' and '.join(kinds)}" if kinds else "found none of them"
        raise DataError(f"{where}: name a folder, a dataset or a mapping; {found}")
    strange = [key for key in _OF_RAW if key in item and "folder" in item]
    if strange:
        raise DataError(f"{where}: key {strange[0]!r} does not go with a folder, which is prepared already")
    name = take_text(item, "name", where)
    if name and not _NAME.fullmatch(name):
        raise DataError(f"{where}: the name {name!r} stands in row ids: use letters, digits, '_', '-' and '.'")
    weight, max_rows = item.get("weight", 1), item.get("max_rows")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= 1:
        hint = "to give a set more weight, lower that of the others; to leave it out, remove its entry"
        raise DataError(
            f"{where}: weight is the share of rows that is kept, above 0 and at most 1; found {weight!r}; {hint}"
        )
    if max_rows is not None and (isinstance(max_rows, bool) or not isinstance(max_rows, int) or max_rows < 1):
        raise DataError(f"{where}: max_rows must be a whole number of at least 1, found {max_rows!r}")
    rename = item.get("rename", {})
    if not isinstance(rename, Mapping) or not all(isinstance(key, str) for key in (*rename, *rename.values())):
        raise DataError(f"{where}: rename must map old attribute keys to new ones, found {rename!r}")
    source = _prepared(item, name, where) if "folder" in item else _raw(item, name, where)
    rubric = source.rubric
    if rubric is None and rename:
        raise DataError(f"{where}: it has no rated rows, so there is no attribute to rename")
    if rubric is not None:
        rename_attributes(rubric, rename, where)
    return dataclasses.replace(source, weight=float(weight), max_rows=max_rows, rename=dict(rename))


def _prepared(item: Mapping[str, Any], name: str, where: str) -> MixSource:
    folder = Path(take_text(item, "folder", where))
    manifest = read_manifest(folder)
    rubric = manifest.get("rubric")
    return MixSource(
        name=name or str(manifest["dataset"]),
        prefix=f"{name}/" if name else "",
        folder=folder,
        dataset=None,
        inputs=(),
        rubric=None if rubric is None else Rubric.from_dict(rubric, f"{folder}: rubric"),
        rule=None,
        keep_derived=True,
        weight=1.0,
        max_rows=None,
    )


def _raw(item: Mapping[str, Any], name: str, where: str) -> MixSource:
    if "mapping" in item:
        dataset = load_mapping(Path(take_text(item, "mapping", where)))
    else:
        known = take_text(item, "dataset", where)
        if known not in DATASETS:
            hint = "prepare it and name its folder" if known == "graded" else f"choose {', '.join(sorted(DATASETS))}"
            raise DataError(f"{where}: there is no raw data set {known!r}; {hint}")
        dataset = DATASETS[known]
    keep_derived = item.get("keep_derived", True)
    if not isinstance(keep_derived, bool):
        raise DataError(f"{where}: keep_derived must be true or false, found {keep_derived!r}")
    rule = take_text(item, "rule", where) or None
    inputs = item.get("input", [])
    inputs = [inputs] if isinstance(inputs, str) else inputs
    if not isinstance(inputs, list) or not all(isinstance(given, str) and given for given in inputs):
        raise DataError(f"{where}: input must be a file or hub id, or a list of them; found {str(inputs)[:80]!r}")
    choose_rule(dataset, rule)
    rated = needs_rubric(dataset, rule)
    given = take_text(item, "rubric", where) or (dataset.rubric if rated else "")
    if rated != bool(given):
        hint = "names no rubric; give it one with the key rubric" if rated else "gives pairs; leave the rubric out"
        raise DataError(f"{where}: {dataset.name!r} {hint}")
    rubric = load_rubric(given) if given else None
    if rubric is not None and dataset.scales and not set(dataset.scales) & set(rubric.keys):
        has = f"rubric {rubric.name!r} has {', '.join(rubric.keys)}"
        raise DataError(f"{where}: {has}, none of which {dataset.name!r} rates; it rates {', '.join(dataset.scales)}")
    return MixSource(
        name=name or dataset.name,
        prefix=f"{name}/" if name else "",
        folder=None,
        dataset=dataset,
        inputs=tuple(inputs),
        rubric=rubric,
        rule=rule,
        keep_derived=keep_derived,
        weight=1.0,
        max_rows=None,
    )


def _names(source: MixSource) -> list[str]:
    """What the ids of a source's rows begin with."""
    if source.folder is None or source.prefix:
        return [source.name]
    manifest = read_manifest(source.folder)
    parts = manifest.get("sources", [])
    return list(dict.fromkeys(str(part["name"]) for part in parts)) or [source.name]
