"""Score responses or pairs on a Ray cluster of any number of nodes, one copy of the judge in each worker."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

from rmkit.console import run_script
from rmkit.scoring.options import add_scoring_options, score_and_print

_EPILOG = """\
Input, output and exit status are those of score_pairs.py and score_responses.py (see their --help), and a killed run
goes on with the same command. This process reads the input and writes the output; a worker that dies is started anew
and its chunk judged again. Every node needs rmkit[ray] with the engine, and the judge under the same path or hub id.

examples, with `ray start --head` on one node and `ray start --address HEAD:6379` on the others:
  python evaluate/score_ray.py --kind pairs --judge runs/judge --input data/rb --output runs/scores --workers 16
  python evaluate/score_ray.py --kind responses --judge runs/judge_70b --tensor-parallel-size 4 --workers 8 --input ...
"""


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line's options."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=_EPILOG, formatter_class=layout)
    parser.add_argument("--kind", required=True, choices=("pairs", "responses"), help="what the rows of the input are")
    parser.add_argument(
        "--input",
        required=True,
        type=Path,
        metavar="FILE|DIR",
        help="rows in JSON Lines, or a folder of data_prep/prepare.py",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for the scores")
    parser.add_argument("--workers", required=True, type=int, metavar="N", help="copies of the judge")
    parser.add_argument(
        "--address",
        metavar="ADDRESS",
        help="the cluster: HOST:PORT, or local for one on this machine alone (default: the one that `ray start` made, "
        "or else local)",
    )
    add_scoring_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Score, print the summary; returns the exit status."""
    arguments = parse_arguments(argv)
    try:
        from rmkit.scoring.ray import RayJudge  # noqa: PLC0415 (heavy: --help does without)
    except ModuleNotFoundError as error:
        print(f"score_ray: Ray can't be imported: {error}; install rmkit[ray]", file=sys.stderr)
        return 1
    gpus = arguments.tensor_parallel_size or 1
    spread = functools.partial(RayJudge, workers=arguments.workers, gpus=gpus, address=arguments.address)
    return run_script("score_ray", lambda: score_and_print(arguments, arguments.kind, spread))


if __name__ == "__main__":
    sys.exit(main())
