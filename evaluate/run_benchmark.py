"""Turn the scores of preference pairs into a benchmark's figures, a Markdown table and an HTML report."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rmkit.errors import DataError, RubricError
from rmkit.evaluation.records import read_scoring
from rmkit.evaluation.report import write_report
from rmkit.evaluation.results import BENCHMARKS, evaluate
from rmkit.evaluation.tables import render_markdown

_EPILOG = """\
Reads what evaluate/score_pairs.py wrote; runs on any machine, without the judge. Example:

  python evaluate/run_benchmark.py --benchmark reward_bench --scores runs/scores

Ties count 0.5 in one column and 0 in the other. A pair without a verdict (a side failed or was not scored)
counts as wrong in both and stands under "errors". The same scores and seed give the same figures.
"""


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--benchmark",
        required=True,
        choices=BENCHMARKS,
        help="reward_bench: RewardBench 1 with its sections and weights; pairs: any other pairs, by their own subsets",
    )
    parser.add_argument("--scores", required=True, type=Path, help="folder that evaluate/score_pairs.py wrote")
    parser.add_argument(
        "--pairs",
        type=Path,
        help="pairs file, or the folder that data_prep/prepare.py wrote (default: pairs.jsonl in the scores folder)",
    )
    parser.add_argument("--output", type=Path, help="folder for the report (default: the scores folder)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (default: 0)")
    parser.add_argument(
        "--resamples", type=int, default=2000, help="bootstrap resamples for sections and averages (default: 2000)"
    )
    arguments = parser.parse_args(argv)
    if arguments.resamples < 1 or arguments.seed < 0:
        parser.error("--resamples must be at least 1 and --seed at least 0")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Read scores, compute, write the report, print the table; returns the exit status."""
    arguments = parse_arguments(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        scoring = read_scoring(arguments.scores, arguments.pairs)
        results = evaluate(scoring, arguments.benchmark, arguments.seed, arguments.resamples)
    except (DataError, RubricError) as error:
        print(f"run_benchmark: {error}", file=sys.stderr)
        return 1
    paths = write_report(results, arguments.output or arguments.scores)
    print(render_markdown(results))
    print("\n".join(str(path) for path in paths))
    return 0


if __name__ == "__main__":
    sys.exit(main())
