"""The tables of several judges on the same records: their figures side by side, then each two compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rmkit.evaluation.layout import Drawing, Row, Table
from rmkit.evaluation.tables import (
    NOTHING,
    decimal,
    describe_slope,
    draw_accuracy,
    list_levels,
    percent,
    share,
    signed,
    with_sign,
)

CONVENTIONS = {"ties_half": "ties = 0.5", "ties_zero": "ties = 0"}


def accuracy_table(results: Mapping[str, Any], convention: str) -> Table:
    """Each judge's accuracy with its interval, a column each, for one tie convention."""
    judges = results["judges"]
    rows = []
    for levels in zip(*(list_levels(found) for found in judges.values()), strict=True):
        label, first, strong, indented = levels[0]
        cells = [label, "" if first is None else str(first.get("n", ""))]
        for _, figures, _, _ in levels:
            if figures is None:
                cells.append(NOTHING)
            else:
                low, high = figures["interval"][convention]
                cells.append(f"{percent(figures['accuracy'][convention])} ({percent(low)} – {percent(high)})")
        drawings = tuple(draw_accuracy(figures, convention) for _, figures, _, _ in levels if figures is not None)
        rows.append(Row(tuple(cells), strong, indented, drawings))
    formula = f"Official figure: {results['formula']}. " if results["formula"] else ""
    tied = any(found["all_pairs"]["ties"] for found in judges.values())
    note = f"{formula}Accuracies in % with 95 % intervals. A pair without a verdict counts as wrong."
    note += "" if tied else " No pair is a tie, so ties = 0 gives the same."
    title = f"Accuracy, {CONVENTIONS[convention]}"
    return Table(
        ("", "pairs", *judges),
        tuple(rows),
        title,
        note if convention == "ties_half" else "",
        axis=(0, 1),
        drawn_at=2,
        keyed_from=2,
        card=True,
    )


def rate_table(results: Mapping[str, Any]) -> Table:
    """What else tells the judges apart, over all pairs, a row each."""
    rows = []
    for name, found in results["judges"].items():
        everything, bias = found["all_pairs"], found["length_bias"]
        rows.append(
            Row(
                (
                    name,
                    percent(everything["accuracy"]["ties_half"]),
                    share(everything["tie_rate"]),
                    share(everything["error_rate"]),
                    share(everything["truncation_rate"]),
                    decimal(found["reliability"]["expected_calibration_error"], 3),
                    signed(bias["all_pairs"]["excess"]["mean"]),
                    NOTHING if bias["slope"] is None else with_sign(bias["slope"]["slope"], 4),
                ),
                drawings=(draw_accuracy(everything),),
            )
        )
    header = (
        "judge", "accuracy, all pairs", "ties, %", "errors, %", "truncated, %", "calibration error",
        "prefers the longer, %", "aggregate per doubling of length",
    )  # fmt: skip
    note = (
        "Ties, errors and truncated in % of all pairs. Calibration error: of P(chosen > rejected). Prefers the "
        "longer: more often than the longer one is the better. Last, the change of the aggregate at equal quality."
    )
    return Table(header, tuple(rows), "Over all pairs", note, axis=(0, 1), drawn_at=2)


def difference_table(comparison: Mapping[str, Any]) -> Table:
    """One judge against another: the difference of each level, and McNemar's test."""
    levels = list(_list_differences(comparison))
    reach = max([0.02, *(abs(end) for _, figures, _ in levels for end in figures["interval"]["ties_half"])])
    rows = []
    for label, figures, strong in levels:
        low, high = figures["interval"]["ties_half"]
        value = figures["difference"]["ties_half"]
        test = figures.get("mcnemar")
        zero = figures["interval"]["ties_zero"]
        cells = (
            label,
            signed(value),
            f"{signed(low)} to {signed(high)}",
            signed(figures["difference"]["ties_zero"]),
            f"{signed(zero[0])} to {signed(zero[1])}",
            *(("", "", "") if test is None else _write_test(test)),
        )
        rows.append(Row(cells, strong, drawings=(Drawing(low, value, high, 0.0),)))
    header = (
        "", "difference, ties = 0.5", "95 % interval", "difference, ties = 0", "95 % interval",
        "only the first wins", "only the second", "McNemar's p",
    )  # fmt: skip
    title = f"{comparison['first']} minus {comparison['second']}"
    note = (
        "In percentage points; a bootstrap that draws the same records for both. McNemar's exact test counts strict "
        "wins, where each record is one comparison; its p-values are not corrected for their number."
    )
    return Table(header, tuple(rows), title, note, axis=(-reach, reach), drawn_at=3, card=True)


def _list_differences(comparison: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    if comparison["average"] is not None:
        yield "Average of sections", comparison["average"], True
    sections = comparison["sections"]
    yield from ((name, figures, True) for name, figures in sections.items())
    subsets = comparison["subsets"].items()
    yield from ((name or "(no subset)", figures, False) for name, figures in subsets if name not in sections)
    yield "All pairs", comparison["all_pairs"], not sections


def _write_test(test: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(test["only_first"]), str(test["only_second"]), write_p(test["p_value"])


def write_p(value: float) -> str:
    """A p-value; a small one by its bound."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def slope_sentences(slopes: Mapping[str, Mapping[str, Any] | None], quality: str) -> str:
    """The length slope of each judge, where there is one; a single judge is not named."""
    sentences = {name: describe_slope(slope, quality) for name, slope in slopes.items()}
    named = len(slopes) > 1
    return " ".join(f"{name}: {text}" if named else text for name, text in sentences.items() if text)
