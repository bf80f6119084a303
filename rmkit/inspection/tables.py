"""The tables of an inspection, as text cells that both the terminal and the page show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rmkit.evaluation.texts import make_printable
from rmkit.inspection.columns import PairColumns, RatedColumns
from rmkit.inspection.figures import count_longer
from rmkit.inspection.folder import Inspection

NONE = "-"
"""Stands where there is no figure: nothing to count, or a column that is constant."""

MOST_GROUPS = 12
"""Sources or subsets that are shown apart; the smallest beyond are put together."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table as text.

    Args:
        title: What it shows.
        header: One cell per column.
        rows: As many cells each; the first is the row's name, the others are figures.
        notes: Remarks that stand below.
        has_prose: The last column is text, no figure.
        is_matrix: The figures are correlations.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    has_prose: bool = False
    is_matrix: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that are looked at together: all, those of one source or subset, or those of the many small ones."""

    name: str
    rows: np.ndarray  # bool of shape (N,)


def split_groups(names: Sequence[str], places: np.ndarray, most: int = MOST_GROUPS) -> list[Group]:
    """One group per name, most rows first; those beyond `most` in one."""
    alone = len(names) if len(names) <= most else most - 1
    groups = [Group(names[place] or "(no name)", places == place) for place in range(alone)]
    if alone < len(names):
        groups.append(Group(f"{len(names) - alone} others", places >= alone))
    return groups


def describe_origin(inspection: Inspection) -> str:
    """Where the rows come from: the data set, its source, and the source's revision."""
    source = inspection.manifest.get("source")
    if not isinstance(source, Mapping) or "name" not in source:
        return inspection.name
    revision = f" at revision {source['revision']}" if source.get("revision") else ""
    return make_printable(f"{inspection.name} from {source['name']}{revision}")


def count_files(inspection: Inspection) -> Table:
    """Records and rows, and what became of them."""
    manifest = inspection.manifest
    refused, dropped = (sum(u.count for u in inspection.noted if u.kind == kind) for kind in ("refused", "dropped"))
    known = {
        "raw records": manifest.get("raw_records"),
        "records accepted": manifest.get("accepted"),
        "records refused": refused,
        "rows per accepted record": manifest.get("rows_per_accepted_record"),
        "rows given": manifest.get("rows_given"),
        "rows dropped": dropped if "dropped" in manifest else None,
        "rows without their oldest turns": manifest.get("turns_left_out"),
    }
    rows = [
        *(
            (what, f"{number:,g}" if isinstance(number, float) else write_count(number))
            for what, number in known.items()
            if number is not None
        ),
        *((f"rows in {make_printable(name)}", write_count(file["rows"])) for name, file in manifest["files"].items()),
    ]
    notes = []
    if "raw_records" in manifest and "accepted" in manifest:
        raw, accepted = write_count(manifest["raw_records"]), write_count(manifest["accepted"])
        notes.append(f"{raw} raw records = {accepted} accepted + {write_count(refused)} refused")
    if inspection.rated is not None and not any(
        file["rows"] for name, file in manifest["files"].items() if name.startswith("validation.")
    ):
        notes.append("There are no validation rows: training can't be measured on this folder.")
    if inspection.rated is not None and inspection.rated.own_rubrics:
        notes.append(
            f"{write_count(inspection.rated.own_rubrics)} rows bring a rubric of their own; their scores stand apart."
        )
    if inspection.rated is not None and inspection.rated.not_shown:
        notes.append(f"{write_count(inspection.rated.not_shown)} scores on further attributes are not shown.")
    return Table("Counts", ("what", "count"), tuple(rows), tuple(notes))


def count_sources(inspection: Inspection) -> Table | None:
    """Records and rows of each source; None unless the manifest names several."""
    sources = inspection.manifest.get("sources") or ()
    if len(sources) < 2:
        return None
    counted = ("raw_records", "accepted", "refused", "rows_given", "dropped", "rows")
    rows = tuple(
        (
            make_printable(str(source["name"])),
            make_printable(str(source.get("rule") or NONE)),
            *(write_count(_total(source.get(what, 0))) for what in counted),
        )
        for source in sources
    )
    header = ("source", "rule", "raw records", "accepted", "refused", "rows given", "dropped", "rows")
    return Table("Sources", header, rows, ("rule: how preferences were read.",))


def _total(counts: Any) -> int:
    return sum(counts.values()) if isinstance(counts, Mapping) else counts


def count_noted(inspection: Inspection) -> Table | None:
    """Refusals, drops and reports by reason; None where there were none."""
    if not inspection.noted:
        return None
    total = inspection.manifest.get("raw_records")
    rows = tuple(
        (
            item.reason,
            item.kind,
            write_count(item.count),
            write_share(item.count, total) if total and item.kind == "refused" else NONE,
            item.first,
        )
        for item in inspection.noted
    )
    notes = (
        "Raw records are refused; rows are dropped by filters, or only reported and left in. Files of these names "
        "hold each of them.",
    )
    header = ("reason", "", "count", "of records", "the first")
    return Table("Refused, dropped, reported", header, rows, notes, has_prose=True)


def describe_lengths(lengths: Mapping[str, np.ndarray]) -> Table:
    """Least, median, mean, 95 % and most of each named column."""
    rows = []
    for name, values in lengths.items():
        if len(values):
            found = (values.min(), np.median(values), values.mean(), np.quantile(values, 0.95), values.max())
            rows.append((name, *(f"{figure:,.0f}" for figure in found)))
    return Table("Lengths", ("", "least", "median", "mean", "95 %", "most"), tuple(rows))


def list_lengths(rated: RatedColumns) -> dict[str, np.ndarray]:
    """The columns that `describe_lengths` describes."""
    return {
        "messages before the response": rated.turns,
        "conversation, characters": rated.asked,
        "response, characters": rated.answered,
    }


def list_pair_lengths(pairs: PairColumns) -> dict[str, np.ndarray]:
    """The columns of pairs that `describe_lengths` describes."""
    return {
        "conversation, characters": pairs.asked,
        "chosen, characters": pairs.chosen,
        "rejected, characters": pairs.rejected,
    }


def count_subsets(pairs: PairColumns) -> Table:
    """Pairs by subset, and how often the chosen side is the longer one."""
    everything = Group("all", np.ones(len(pairs), dtype=bool))
    groups = split_groups(pairs.subsets, pairs.subset, most=40)
    rows = []
    for group in [*groups, everything] if len(groups) > 1 else groups:
        found = count_longer(pairs.chosen[group.rows], pairs.rejected[group.rows])
        low, high = found.interval
        rows.append((group.name, write_count(found.pairs), f"{found.share:.1%}", f"{low:.1%} to {high:.1%}"))
    header = ("subset", "pairs", "chosen is longer", "95 % interval")
    shapes, numbers = np.unique(pairs.sides, axis=0, return_counts=True)
    notes = [
        "Longer: by the mean number of characters of a side; ties count half. Far from 50 %, length alone tells sides "
        "apart."
    ]
    if (pairs.sides != 1).any():
        most = sorted(zip(numbers, shapes.tolist(), strict=True), key=lambda found: -found[0])[:5]
        parts = (f"{chosen} against {rejected} in {n:,}" for n, (chosen, rejected) in most)
        notes.append(f"Responses chosen against rejected: {', '.join(parts)} pairs.")
    return Table("Pairs by subset", header, tuple(rows), tuple(notes))


def write_count(number: int) -> str:
    """A count with thousands set apart."""
    return f"{number:,}"


def write_share(part: int, whole: int) -> str:
    """A share in per cent; `NONE` of nothing."""
    return f"{part / whole:.1%}" if whole else NONE
