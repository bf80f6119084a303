"""The tables of one judge on a benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rmkit.evaluation.benchmark import PRIOR_SETS
from rmkit.evaluation.layout import Drawing, Row, Table

HEADER = (
    "",
    "pairs",
    "judged",
    "accuracy, ties = 0.5",
    "95 % interval",
    "accuracy, ties = 0",
    "ties",
    "errors",
    "truncated",
    "mean P(chosen > rejected)",
    "accuracy by mode, ties = 0.5",
    "ties = 0",
)
ATTRIBUTE_HEADER = (
    "attribute",
    "responses",
    "mean, chosen",
    "mean, rejected",
    "mass outside the scale",
    "Spearman with true score",
    "mean absolute error",
)
LENGTH_HEADER = (
    "",
    "chosen is longer",
    "judge prefers the longer",
    "difference",
    "95 % interval",
    "accuracy where chosen is longer",
    "where it is shorter",
)
LEGEND = (
    "Accuracies in %. A pair without a verdict counts as wrong. Intervals belong to ties = 0.5: Wilson for subsets "
    "and all pairs, a bootstrap within subsets for sections and average. The last two columns read each attribute by "
    "its most probable score."
)
NOTHING = "–"


def benchmark_table(results: Mapping[str, Any]) -> Table:
    """The main table: sections before their subsets, totals last."""
    rows = [
        _row(label, figures, strong, indented) if figures else Row((label, *[NOTHING] * (len(HEADER) - 1)), strong)
        for label, figures, strong, indented in list_levels(results)
    ]
    return Table(HEADER, tuple(rows), note=legend(results), axis=(0, 1), drawn_at=5, card=True)


def list_levels(results: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any] | None, bool, bool]]:
    """The rows of a benchmark: label, figures (None for an average that can't be given), strong, indented."""
    subsets, everything = results["subsets"], results["all_pairs"]
    if "sections" not in results:
        yield from ((name or "(no subset)", figures, False, False) for name, figures in subsets.items())
        yield "All pairs", everything, True, False
        return
    shown = set()
    for section, figures in results["sections"].items():
        yield section, figures, True, False
        shown.update(figures["subsets"])
        if figures["subsets"] != [section]:
            yield from ((name, subsets[name], False, True) for name in figures["subsets"])
    yield from ((name, figures, False, False) for name, figures in subsets.items() if name not in shown)
    if results["average"] is not None or results["average_reason"]:
        yield "Average of sections", results["average"], True, False
    if results["average_with_prior"] is not None:
        yield f"Average with {PRIOR_SETS}, of half weight", results["average_with_prior"], True, False
    yield from ((f"{name} (average)", figures, False, False) for name, figures in results["slices"].items() if figures)
    yield "All pairs (micro; not the official figure)", everything, False, False


def attribute_table(results: Mapping[str, Any]) -> Table:
    """What the judge says of each attribute."""
    rows = [
        Row(
            (
                key,
                str(figures["n"]),
                decimal(figures["chosen_mean"], 2),
                decimal(figures["rejected_mean"], 2),
                decimal(figures["outside_mass"], 4),
                decimal(figures["spearman"], 3),
                decimal(figures["mae"], 3),
            )
        )
        for key, figures in results["attributes"].items()
    ]
    return Table(ATTRIBUTE_HEADER, tuple(rows), card=True)


def correlation_table(correlations: Mapping[str, Any], title: str) -> Table | None:
    """Rank correlations of each two attributes; None for fewer than two, or where none could be computed."""
    keys, values = correlations["keys"], correlations["spearman"]
    if len(keys) < 2 or not any(value is not None for row in values for value in row):
        return None
    rows = [
        Row((key, *("" if j > i else decimal(values[i][j], 2) for j in range(len(keys)))))
        for i, key in enumerate(keys)
    ]
    note = "Spearman's rank correlations of the expected scores over all judged responses." if not title else ""
    return Table(("", *keys), tuple(rows), title or "Correlations of attributes", note, shaded=True)


def length_table(results: Mapping[str, Any]) -> Table:
    """Length bias of each subset and of all pairs."""
    bias = results["length_bias"]
    subsets = [(name or "(no subset)", figures) for name, figures in bias["subsets"].items()]
    named = [*subsets, ("All pairs", bias["all_pairs"])] if len(subsets) > 1 else subsets
    rows = []
    for name, figures in named:
        excess = figures["excess"]
        interval = excess["interval"]
        rows.append(
            Row(
                (
                    name,
                    share(figures["longer_chosen"]["share"]),
                    share(figures["longer_preferred"]["share"]),
                    signed(excess["mean"]),
                    NOTHING if interval is None else f"{signed(interval[0])} to {signed(interval[1])}",
                    share(figures["accuracy_longer"]["share"]),
                    share(figures["accuracy_shorter"]["share"]),
                ),
                strong=name == "All pairs",
                drawings=() if interval is None else (Drawing(interval[0], excess["mean"], interval[1], 0.0),),
            )
        )
    note = (
        "In % of comparisons of one chosen with one rejected response of another length (characters). Difference: how "
        "much more often the judge prefers the longer response than the longer one is the better; above 0 it favours "
        "length."
    )
    reach = max([0.1, *(abs(end) for row in rows for drawn in row.drawings for end in (drawn.low, drawn.high))])
    return Table(LENGTH_HEADER, tuple(rows), note=note, axis=(-reach, reach), drawn_at=5)


def describe_slope(slope: Mapping[str, Any] | None, quality: str) -> str:
    """The length slope as a sentence; empty where there is none.

    Args:
        slope: From `rmkit.evaluation.length_bias.fit_slope`.
        quality: What quality is, as in "at equal QUALITY".
    """
    if slope is None:
        return ""
    value, low, high = (with_sign(number, 4) for number in (slope["slope"], *slope["interval"]))
    return (
        f"At equal {quality}, twice the length moves the aggregate by {value} (95 % interval {low} to {high}, "
        f"{slope['responses']:,} responses)."
    )


def legend(results: Mapping[str, Any]) -> str:
    """What the main table's figures mean, the official one first."""
    formula = results["formula"]
    return f"Official figure: {formula}. {LEGEND} Pairs of one record are resampled together." if formula else LEGEND


def describe_source(results: Mapping[str, Any]) -> str:
    """Where the figures come from, in one line."""
    scoring, intervals = results["scoring"], results["intervals"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return (
        f"judge {scoring['judge']}, rubric {results['rubric']['name']}, engine {scoring['engine']}, "
        f"input {scoring['input']} (SHA-256 {str(scoring['input_sha256'])[:12]}), scores "
        f"{results['scores_sha256'][:12]}, {intervals['resamples']} resamples, seed {intervals['seed']}, {versions}"
    )


def _row(label: str, figures: Mapping[str, Any], strong: bool, indented: bool) -> Row:
    low, high = figures["interval"]["ties_half"]
    mode = figures["by_readout"]["mode"]
    cells = (
        label,
        *(str(figures.get(key, "")) for key in ("n", "judged")),
        percent(figures["accuracy"]["ties_half"]),
        f"{percent(low)} – {percent(high)}",
        percent(figures["accuracy"]["ties_zero"]),
        *(str(figures.get(key, "")) for key in ("ties", "errors", "truncated")),
        decimal(figures["probability"], 3),
        percent(mode["ties_half"]),
        percent(mode["ties_zero"]),
    )
    return Row(cells, strong, indented, (draw_accuracy(figures),))


def draw_accuracy(figures: Mapping[str, Any], convention: str = "ties_half") -> Drawing:
    """The accuracy with its interval, marked at chance."""
    low, high = figures["interval"][convention]
    return Drawing(low, figures["accuracy"][convention], high, figures.get("chance"))


def percent(value: float) -> str:
    """A share in %."""
    return f"{100 * value:.1f}"


def share(value: float | None) -> str:
    """A share in %, or `NOTHING`."""
    return NOTHING if value is None else percent(value)


def signed(value: float | None) -> str:
    """A difference of shares in %, with its sign, or `NOTHING`."""
    return NOTHING if value is None else with_sign(100 * value, 1)


def with_sign(value: float, places: int) -> str:
    """A number with so many decimals and its sign."""
    return f"{value:+.{places}f}".replace("-", "−")


def decimal(value: float | None, places: int) -> str:
    """A number with so many decimals, or `NOTHING`."""
    return NOTHING if value is None else f"{value:.{places}f}"


def with_interval(value: float | None, interval: Sequence[float] | None, places: int) -> str:
    """A number with low and high end of its interval, or `NOTHING`."""
    if value is None or interval is None:
        return decimal(value, places)
    return f"{value:.{places}f} ({interval[0]:.{places}f} – {interval[1]:.{places}f})"
