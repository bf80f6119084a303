"""Rank n candidates per prompt with a judge, and write the best one, or chosen and rejected pairs with margins."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rmkit.console import run_script
from rmkit.scoring.best_of_n import CHOICES, write_selection
from rmkit.scoring.items import ScoreInput, find_input
from rmkit.scoring.options import add_scoring_options, score_with_options

_EPILOG = """\
A row of the input is a JSON object with
  conversation, or prompt       a text, or chat messages
  responses, or completions     a list of candidates, each a text or chat messages
  id                            without one, the row gets its line number as its id
  reference, rubric             optional: a reference answer, and a rubric of the row's own

Writes into the output folder what evaluate/score_responses.py writes, going on where an earlier run stopped; then,
once all is scored, best_of_n.json (the numbers) and
  --write best         best.jsonl: prompt, completion, score, in TRL's prompt-completion format
  --write best_worst   preferences.jsonl: prompt, chosen, rejected, margin, in TRL's preference format, for its
                       RewardTrainer (which takes the margin) and DPOTrainer
  --write best_rest    the same, the best candidate against each other one
A candidate that can't be judged is counted, and never chosen or rejected. Equal ones make no pair.

examples:
  python evaluate/best_of_n.py --judge runs/judge --input candidates.jsonl --output runs/best --write best
  python evaluate/best_of_n.py --scores runs/best --input candidates.jsonl --output runs/pairs --least-margin 0.1

exit status: 0; 1 for an error, or if no row could be written; 130 if stopped from the keyboard
"""


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line's options."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=_EPILOG, formatter_class=layout)
    parser.add_argument("--input", required=True, type=Path, metavar="FILE", help="candidates in JSON Lines")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for scores and choices")
    parser.add_argument("--scores", type=Path, metavar="DIR", help="in place of --judge: a folder this script scored")
    parser.add_argument("--write", choices=CHOICES, default="best_worst", help="see below (default: best_worst)")
    parser.add_argument(
        "--least-margin",
        type=float,
        default=0.0,
        metavar="X",
        help="a pair needs a margin above this: a difference of aggregates, which lie in [0, 1] where no weight is "
        "negative (default: 0)",
    )
    names = add_scoring_options(parser, required=False)
    arguments = parser.parse_args(argv)
    if (arguments.judge is None) == (arguments.scores is None):
        parser.error("name a --judge, or the folder with its --scores")
    if arguments.scores is not None:
        for name in names:
            if getattr(arguments, name) != parser.get_default(name):
                parser.error(f"--{name.replace('_', '-')} says how to score, which needs a --judge")
    if not arguments.least_margin >= 0:  # written so that NaN fails too
        parser.error("--least-margin must be at least 0")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Score if a judge is given, choose, print the numbers; returns the exit status."""
    arguments = parse_arguments(argv)

    def work() -> int:
        if arguments.judge is not None:
            score_with_options(arguments, "candidates", arguments.input, arguments.output)
        source = ScoreInput(find_input(arguments.input, "candidates"), "candidates")
        scores = arguments.scores or arguments.output
        selection = write_selection(source, scores, arguments.output, arguments.write, arguments.least_margin)
        print(selection.render())
        return selection.exit_status

    return run_script("best_of_n", work)


if __name__ == "__main__":
    sys.exit(main())
