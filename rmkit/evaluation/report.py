"""From results to the files of a report: `results.json`, `results.md` and one self-contained `report.html`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rmkit.evaluation import plots, rating_tables, side_by_side, tables
from rmkit.evaluation.excerpts import list_excerpts
from rmkit.evaluation.layout import Figure, KeyFigure, Report, Row, Section, Table
from rmkit.evaluation.markdown import render_card
from rmkit.evaluation.page import render_page
from rmkit.manifest import write_json


def write_report(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write all files of a report, and return their paths; those of an earlier report are replaced.

    Args:
        results: What `evaluate`, `evaluate_judges`, `evaluate_ratings` or `evaluate_rating_judges` gave.
        folder: Where to; it is made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in ("results.json", "results.md", "report.html")]
    write_json(paths[0], dict(results))
    paths[1].write_text(render_markdown(results), "utf-8")
    paths[2].write_text(render_html(results), "utf-8")
    return paths


def render_html(results: Mapping[str, Any]) -> str:
    """The report as one page that loads nothing: tables first, then plots, then what went most wrong."""
    return _make_encodable(render_page(_compose(results)))


def render_markdown(results: Mapping[str, Any]) -> str:
    """The report's main tables as Markdown fit for a model card."""
    return _make_encodable(render_card(_compose(results)))


def _make_encodable(text: str) -> str:
    """The text with lone surrogates, which names from data may hold, written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _compose(results: Mapping[str, Any]) -> Report:
    judges = _judges(results)
    is_rated = results["benchmark"] == "ratings"
    if is_rated:
        sections = [_rating_results(results), *_rating_length(judges), *_rating_plots(judges)]
    else:
        sections = [*_benchmark_results(results), *_benchmark_plots(judges)]
    sections += _disagreements(judges, is_rated)
    errors = _errors(judges, "responses" if is_rated else "pairs")
    return Report(
        title=", ".join(judges),
        subject=results["title"],
        figures=tuple(_key_figures(judges, is_rated)),
        notes=tuple(dict.fromkeys(note for name in judges for note in _notes(judges, name))),
        sections=tuple(section for section in (*sections, errors) if section is not None),
        source=tuple(tables.describe_source(found) for found in judges.values()),
    )


def _judges(results: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """The results of each judge by name; one judge's results are those of one."""
    if "judges" in results:
        return results["judges"]
    return {results["scoring"]["judge"] or "unnamed judge": results}


def _notes(judges: Mapping[str, Mapping[str, Any]], name: str) -> Iterator[str]:
    reason = judges[name].get("average_reason")
    for note in [*judges[name]["notes"], *([f"No average: {reason}."] if reason else [])]:
        shared = len(judges) == 1 or all(note in found["notes"] for found in judges.values())
        yield note if shared else f"{name}: {note}"


def _key_figures(judges: Mapping[str, Mapping[str, Any]], is_rated: bool) -> Iterator[KeyFigure]:
    if is_rated:
        if len(judges) == 1:
            (found,) = judges.values()
            counts = found["responses"]
            yield KeyFigure(f"{counts['judged']:,}", "rated responses with a judgement")
            yield KeyFigure(f"{counts['errors']:,}", "without one")
        return
    for number, (name, found) in enumerate(judges.items()):
        everything = found["all_pairs"]
        official = found.get("average")
        figures = official or everything
        low, high = figures["interval"]["ties_half"]
        interval = f"{tables.percent(low)}\u00a0–\u00a0{tables.percent(high)}"
        what = "average of sections" if official else "accuracy over all pairs"
        label = f"{what}, ties = 0.5; 95 % interval {interval}"
        value = f"{tables.percent(figures['accuracy']['ties_half'])} %"
        if len(judges) > 1:
            yield KeyFigure(value, f"{name}: {label}", number)
        else:
            yield KeyFigure(value, label)
            yield KeyFigure(f"{everything['n']:,}", "comparisons")
            yield KeyFigure(f"{everything['ties']:,}", "ties")
            yield KeyFigure(f"{everything['errors']:,}", "errors, counted as wrong")


def _benchmark_results(results: Mapping[str, Any]) -> Iterator[Section]:
    if "judges" not in results:
        yield Section("Results", (tables.benchmark_table(results),))
        found = (tables.attribute_table(results), tables.correlation_table(results["correlations"], ""))
        yield Section("Attributes", tuple(table for table in found if table))
        yield Section(
            "Length",
            (tables.length_table(results),),
            text=tables.describe_slope(results["length_bias"]["slope"], _PAIR_QUALITY),
        )
        return
    tied = any(found["all_pairs"]["ties"] for found in results["judges"].values())
    conventions = side_by_side.CONVENTIONS if tied else ["ties_half"]
    accuracies = tuple(side_by_side.accuracy_table(results, convention) for convention in conventions)
    yield Section("Results", (*accuracies, side_by_side.rate_table(results)))
    yield Section("Differences", tuple(side_by_side.difference_table(found) for found in results["comparisons"]))
    slopes = {name: found["length_bias"]["slope"] for name, found in results["judges"].items()}
    by_judge = tuple(replace(tables.length_table(found), title=name) for name, found in results["judges"].items())
    yield Section("Length", by_judge, text=side_by_side.slope_sentences(slopes, _PAIR_QUALITY))


_PAIR_QUALITY = "quality (chosen or rejected, within a pair)"


def _benchmark_plots(judges: Mapping[str, Mapping[str, Any]]) -> Iterator[Section]:
    figures = []
    for name, found in judges.items():
        suffix = f" {name}." if len(judges) > 1 else ""
        if found["reliability"]["bins"]:
            error = found["reliability"]["expected_calibration_error"]
            svg = plots.plot_reliability(found["reliability"], name, 0.5, "max(P, 1 - P), P = P(chosen > rejected)")
            caption = (
                "How often the side that the judge prefers is the chosen one. Below the dotted line it is surer than "
                f"it should be. Expected calibration error {error:.3f}.{suffix}"
            )
            figures.append(Figure("Reliability", caption, svg))
        if found["all_pairs"]["judged"]:
            caption = f"Left of the line the rejected response is higher.{suffix}"
            figures.append(Figure("Margins", caption, plots.plot_margins(found, name)))
            caption = (
                "Accuracy by relative length, with 95 % intervals; dotted: over all of them. Level where length plays "
                f"no part.{suffix}"
            )
            figures.append(Figure("Length", caption, plots.plot_length(found, name)))
        if len(found["entropy"]["bins"]) > 1:
            caption = f"A judge that knows when it is unsure errs more where its distributions are broad.{suffix}"
            svg = plots.plot_entropy(found["entropy"], name, "error rate")
            figures.append(Figure("Entropy against error", caption, svg))
    if figures:
        yield Section("Plots", figures=tuple(figures))


def _rating_results(results: Mapping[str, Any]) -> Section:
    if "judges" not in results:
        found = [rating_tables.rating_table(results)]
        for correlations, title in (
            (results["correlations"], "Correlations of the judge's attributes"),
            (results["human_correlations"], "Correlations of the ratings"),
        ):
            table = tables.correlation_table(correlations, title)
            found += [table] if table else []
        return Section("Results", tuple(found))
    differences = [rating_tables.error_difference_table(found) for found in results["comparisons"]]
    return Section("Results", (rating_tables.rating_judges_table(results), *differences))


def _rating_length(judges: Mapping[str, Mapping[str, Any]]) -> Iterator[Section]:
    text = side_by_side.slope_sentences({name: found["length_slope"] for name, found in judges.items()}, "rating")
    if text:
        yield Section("Length", text=text)


def _rating_plots(judges: Mapping[str, Mapping[str, Any]]) -> Iterator[Section]:
    for name, found in judges.items():
        figures = []
        for key, of_key in found["attributes"].items():
            values = next((a["scale"] for a in found["rubric"]["attributes"] if a["key"] == key), None)
            if values is not None:
                svg = plots.plot_ratings(of_key, (values[0], values[1]), f"{name} {key}")
                figures.append(Figure(key, "Mean rating by expected score; dotted: equal.", svg))
            svg = plots.plot_reliability(of_key["reliability"], f"{name} {key}", 0.0, "P(most probable score)")
            caption = "How often the most probable score is the rating; below the dotted line it is too sure."
            figures.append(Figure(key, caption, svg))
            if len(of_key["entropy"]["bins"]) > 1:
                svg = plots.plot_entropy(of_key["entropy"], f"{name} {key}", "absolute error")
                figures.append(Figure(key, "Error by entropy of the distribution.", svg))
        if figures:
            yield Section("Plots" if len(judges) == 1 else f"Plots: {name}", figures=tuple(figures))


def _disagreements(judges: Mapping[str, Mapping[str, Any]], is_rated: bool) -> Iterator[Section]:
    text = (
        "The responses whose scores are furthest from the ratings."
        if is_rated
        else "Lost pairs, the largest margins first."
    )
    for name, found in judges.items():
        if found["disagreements"]:
            title = "Worst disagreements" + ("" if len(judges) == 1 else f": {name}")
            yield Section(title, excerpts=tuple(list_excerpts(found["disagreements"])), text=text)


def _errors(judges: Mapping[str, Mapping[str, Any]], what: str) -> Section | None:
    rows = [Row((item["id"], item["error"])) for found in judges.values() for item in found["error_examples"]]
    if not rows:
        return None
    return Section(f"Without a judgement: the first {what}", (Table(("id", "why"), tuple(rows)),))
