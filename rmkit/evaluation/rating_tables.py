"""The tables of agreement with human ratings, for one judge and for several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rmkit.evaluation.layout import Drawing, Row, Table
from rmkit.evaluation.tables import decimal, with_interval, with_sign

_MEASURES = ("Spearman", "kappa", "mean absolute error")
_NOTE = (
    "With 95 % intervals, by a bootstrap that draws conversations with all their responses. Error and Spearman's rank "
    "correlation (drawn) of the expected score; quadratic weighted kappa and calibration error of the likeliest one."
)


def rating_table(results: Mapping[str, Any]) -> Table:
    """Agreement of one judge with the ratings of each attribute."""
    rows = [
        Row(
            (
                key,
                str(figures["n"]),
                decimal(figures["human_mean"], 2),
                decimal(figures["judge_mean"], 2),
                *_measures(figures),
                decimal(figures["calibration_error"], 3),
                decimal(figures["outside_mass"], 4),
            ),
            drawings=_draw_correlation(figures),
        )
        for key, figures in results["attributes"].items()
    ]
    header = (
        "attribute", "responses", "mean rating", "mean score", *_MEASURES, "calibration error",
        "outside the scale",
    )  # fmt: skip
    return Table(header, tuple(rows), note=_NOTE, axis=(-1, 1), drawn_at=4, card=True)


def _measures(figures: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(with_interval(figures[name], figures["intervals"][name], 3) for name in ("spearman", "qwk", "mae"))


def _draw_correlation(figures: Mapping[str, Any]) -> tuple[Drawing, ...]:
    interval = figures["intervals"]["spearman"]
    if interval is None or figures["spearman"] is None:
        return ()
    return (Drawing(interval[0], figures["spearman"], interval[1], 0.0),)


def rating_judges_table(results: Mapping[str, Any]) -> Table:
    """Agreement of several judges, a row for each attribute and judge."""
    rows = []
    for key in dict.fromkeys(key for found in results["judges"].values() for key in found["attributes"]):
        rows.append(Row((key, *[""] * (len(_MEASURES) + 1)), strong=True))
        for name, found in results["judges"].items():
            if key in found["attributes"]:
                figures = found["attributes"][key]
                cells = (name, str(figures["n"]), *_measures(figures))
                rows.append(Row(cells, indented=True, drawings=_draw_correlation(figures)))
    return Table(("", "responses", *_MEASURES), tuple(rows), note=_NOTE, axis=(-1, 1), drawn_at=2, card=True)


def error_difference_table(comparison: Mapping[str, Any]) -> Table:
    """The difference of two judges' mean absolute errors on each attribute."""
    found = comparison["attributes"]
    known = {key: figures for key, figures in found.items() if figures["interval"] is not None}
    reach = max([0.05, *(abs(end) for figures in known.values() for end in figures["interval"])])
    rows = [
        Row(
            (
                key,
                str(figures["n"]),
                with_sign(figures["mae_difference"], 3),
                " to ".join(with_sign(end, 3) for end in figures["interval"]),
            ),
            drawings=(Drawing(figures["interval"][0], figures["mae_difference"], figures["interval"][1], 0.0),),
        )
        for key, figures in known.items()
    ]
    title = f"{comparison['first']} minus {comparison['second']}"
    note = "Of mean absolute errors over the responses that both judged, paired; below 0 the first is better."
    header = ("attribute", "responses", "difference", "95 % interval")
    return Table(header, tuple(rows), title, note, axis=(-reach, reach), drawn_at=4, card=True)
