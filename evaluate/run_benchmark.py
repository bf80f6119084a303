"""Turn the scores of pairs or rated responses, or a judge that makes them, into a benchmark's figures and a report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rmkit.console import run_script
from rmkit.data import DATASETS
from rmkit.evaluation.benchmarks import BENCHMARKS
from rmkit.evaluation.gathering import add_prior_sets, name_folders, name_judges
from rmkit.evaluation.rated import read_rated
from rmkit.evaluation.ratings import evaluate_rating_judges, evaluate_ratings
from rmkit.evaluation.records import read_scoring
from rmkit.evaluation.report import render_markdown, write_report
from rmkit.evaluation.results import evaluate, evaluate_judges
from rmkit.preparation.published import check_prepared, ensure_published, prepare_published
from rmkit.scoring.items import InputKind
from rmkit.scoring.options import add_scoring_options, score_in_turn, score_with_options

RATINGS = "ratings"
"""In place of a benchmark's name: agreement with human ratings."""

_EPILOG = """\
With --scores, reads what evaluate/score_pairs.py wrote; runs on any machine, without the judge. With --judge,
scores the pairs into the output folder first, as that script does, and goes on where an earlier run stopped.
Several folders, several --judge (each scored into OUTPUT/judges/NAME), or both, are compared record by record. The
report is results.json, results.md (for a model card) and report.html. Examples:

  python evaluate/run_benchmark.py --benchmark reward_bench --scores runs/scores
  python evaluate/run_benchmark.py --benchmark reward_bench --judge runs/judge --output runs/rb
  python evaluate/run_benchmark.py --benchmark reward_bench_2 --judge runs/judge --output runs/rb2
  python evaluate/run_benchmark.py --benchmark rm_bench --raw total_dataset.json --judge runs/judge --output runs/rm
  python evaluate/run_benchmark.py --benchmark reward_bench --judge runs/a --judge runs/b --output runs/a_and_b
  python evaluate/run_benchmark.py --benchmark reward_bench --scores runs/c runs/d --output runs/c_and_d
  python evaluate/run_benchmark.py --benchmark ratings --judge runs/judge --input data/helpsteer2 --output runs/hs2

Of RM-Bench and PPE correctness no commit on the hub is known here: name raw files, or hub ids with one you trust.

Ties count 0.5 in one column (1/k where k responses share the top) and 0 in the other. A pair without a verdict (a
side failed or was not scored) counts as wrong in both and stands under "errors". The same scores and seed give the
same figures.

exit status: 0; with --judge, 3 if some responses could not be judged, 1 if none could; 1 for an error; 130 if stopped
from the keyboard
"""


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--benchmark",
        required=True,
        choices=[*BENCHMARKS, RATINGS],
        help="a published benchmark, with its official figures (docs/benchmarks.md has the formulas); pairs: any "
        "other pairs or best-of-n rows, by their own subsets; ratings: agreement with the scores of rated responses",
    )
    parser.add_argument(
        "--scores",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="folders that evaluate/score_pairs.py wrote (score_responses.py for ratings); several are compared",
    )
    parser.add_argument(
        "--pairs",
        "--input",
        type=Path,
        help="pairs (for ratings: rated rows), or the folder that data_prep/prepare.py wrote; with --judge, what is "
        "scored "
        "(default with --scores: pairs.jsonl in the scores folder; with --judge: the benchmark's own pairs, from the "
        "hub, prepared in OUTPUT/data)",
    )
    parser.add_argument(
        "--raw",
        nargs="+",
        metavar="FILE|HUB_ID@REVISION",
        help="with --judge: the benchmark as it is published, in place of --input; prepared in OUTPUT/data first",
    )
    parser.add_argument(
        "--prior",
        nargs="+",
        default=[],
        metavar="NAME=DIR",
        help="for reward_bench and one judge: scoring folders of its prior sets, for the average with them",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="folder for the report, and for the scores of --judge (default: the scores folder, if there is one)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (default: 0)")
    parser.add_argument(
        "--resamples", type=int, default=2000, help="bootstrap resamples for sections and averages (default: 2000)"
    )
    scoring_options = add_scoring_options(parser, required=False, several_judges=True)
    arguments = parser.parse_args(argv)
    published = DATASETS.get(arguments.benchmark)
    if arguments.judge is None:
        if arguments.scores is None:
            parser.error("name the folder with the --scores, or a --judge to make them")
        if len(arguments.scores) > 1 and arguments.output is None:
            parser.error("several --scores need an --output for the report")
        if arguments.benchmark == RATINGS and arguments.pairs is None:
            parser.error("--benchmark ratings needs --input: the rated rows that were scored")
        for name in [*scoring_options, "raw"]:
            if getattr(arguments, name) != parser.get_default(name):
                parser.error(f"--{name.replace('_', '-')} says how to score, which needs a --judge")
    elif arguments.output is None:
        parser.error("--judge needs --output, for scores and report")
    elif arguments.raw is not None and (published is None or arguments.pairs is not None):
        parser.error("--raw is for a published benchmark, in place of --input")
    elif arguments.raw is None and arguments.pairs is None and (published is None or not published.revision):
        choice = "--input (the pairs)" if published is None else "--raw (the published files) or --input (the pairs)"
        parser.error(f"--judge with --benchmark {arguments.benchmark} needs {choice}")
    names = BENCHMARKS["reward_bench"].prior
    judges = len(arguments.judge or ()) + len(arguments.scores or ())
    if arguments.prior and (arguments.benchmark != "reward_bench" or judges > 1):
        parser.error("--prior is for --benchmark reward_bench and one judge")
    for given in arguments.prior:
        if given.partition("=")[0] not in names or not given.partition("=")[2]:
            parser.error(f"--prior {given}: write NAME=DIR, with a NAME of {', '.join(names)}")
    if arguments.resamples < 1 or arguments.seed < 0:
        parser.error("--resamples must be at least 1 and --seed at least 0")
    return arguments


def prepare_pairs(arguments: argparse.Namespace) -> Path:
    """The pairs to score: those named, or the benchmark's own, prepared beside the scores."""
    if arguments.pairs is not None:
        if arguments.benchmark in DATASETS:
            check_prepared(arguments.pairs)
        return arguments.pairs
    folder = arguments.output / "data"
    if arguments.raw is None:
        return ensure_published(DATASETS[arguments.benchmark], folder)
    # Anew each time, for the folder may hold other files' pairs; the same files give the same bytes.
    prepare_published(DATASETS[arguments.benchmark], folder, arguments.raw)
    return folder


def list_judge_folders(arguments: argparse.Namespace) -> list[Path]:
    """Where the scores of each --judge go."""
    judges = arguments.judge or []
    if len(judges) < 2:
        return [arguments.output] * len(judges)
    return [arguments.output / "judges" / name for name in name_folders(judges)]


def list_folders(arguments: argparse.Namespace) -> list[Path]:
    """The scoring folders to report on; those of --judge come first."""
    return [*list_judge_folders(arguments), *(arguments.scores or [])]


def score(arguments: argparse.Namespace) -> int:
    """Score with each --judge; returns the exit status: 1 if one could judge nothing, 3 if not everything."""
    kind: InputKind = "responses" if arguments.benchmark == RATINGS else "pairs"
    judges, path = arguments.judge, prepare_pairs(arguments)
    if len(judges) == 1:
        one = argparse.Namespace(**{**vars(arguments), "judge": judges[0]})
        return score_with_options(one, kind, path, arguments.output).exit_status
    summaries = score_in_turn(arguments, judges, kind, path, list_judge_folders(arguments))
    statuses = {summary.exit_status for summary in summaries}
    return min(statuses - {0}, default=0)


def evaluate_pairs(arguments: argparse.Namespace) -> dict[str, Any]:
    """The results of one judge, or of several, on pairs."""
    folders = list_folders(arguments)
    # A judge's own folder has a copy of the pairs, and its own input may be a published file.
    pairs = None if arguments.judge is not None else arguments.pairs
    scorings = [read_scoring(folder, pairs) for folder in folders]
    options = (arguments.benchmark, arguments.seed, arguments.resamples)
    if len(scorings) == 1:
        prior = {name: Path(folder) for name, _, folder in (given.partition("=") for given in arguments.prior)}
        return evaluate(add_prior_sets(scorings[0], prior) if prior else scorings[0], *options)
    names = name_judges(folders, [scoring.manifest for scoring in scorings])
    return evaluate_judges(dict(zip(names, scorings, strict=True)), *options)


def evaluate_rated(arguments: argparse.Namespace) -> dict[str, Any]:
    """The agreement of one judge, or of several, with ratings."""
    folders = list_folders(arguments)
    scorings = [read_rated(folder, arguments.pairs) for folder in folders]
    if len(scorings) == 1:
        return evaluate_ratings(scorings[0], arguments.seed, arguments.resamples)
    names = name_judges(folders, [scoring.manifest for scoring in scorings])
    return evaluate_rating_judges(dict(zip(names, scorings, strict=True)), arguments.seed, arguments.resamples)


def main(argv: Sequence[str] | None = None) -> int:
    """Score if a judge is given, read scores, compute, write the report, print the table; returns the status."""
    arguments = parse_arguments(argv)

    def work() -> int:
        status = 0 if arguments.judge is None else score(arguments)
        results = evaluate_rated(arguments) if arguments.benchmark == RATINGS else evaluate_pairs(arguments)
        paths = write_report(results, arguments.output or arguments.scores[0])
        print(render_markdown(results))
        print("\n".join(str(path) for path in paths))
        return status

    return run_script("run_benchmark", work)


if __name__ == "__main__":
    sys.exit(main())
