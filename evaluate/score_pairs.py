"""Score both sides of preference pairs with a judge; killed and started again, it goes on where it stopped."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rmkit.console import run_script
from rmkit.scoring.options import parse_scoring_arguments, score_and_print

_EPILOG = """\
Writes into the output folder, one line for each response, in the order of the input:
  settings.json   what the scores depend on; the same folder takes no other settings
  scores.jsonl    id, side, index, the distribution of each attribute, aggregate, error
  pairs.jsonl     the pairs, for evaluate/run_benchmark.py --scores DIR
  manifest.json   comes last: where it is, the folder is complete
A row is {"id", "subset", "conversation", "chosen": [...], "rejected": [...]}; one without an id gets its line
number as its id. A response that can't be judged gets a record with the reason and no number.

examples:
  python evaluate/score_pairs.py --judge runs/judge --input data/reward_bench --output runs/scores
  python evaluate/score_pairs.py --judge Qwen/Qwen3-8B --rubric helpsteer --input pairs.jsonl --output runs/zero_shot

exit status: 0; 3 if some responses could not be judged; 1 for an error, or if none could; 130 if stopped from the
keyboard
"""

_INPUT = "pairs in JSON Lines, or the folder with pairs.jsonl that data_prep/prepare.py wrote"


def main(argv: Sequence[str] | None = None) -> int:
    """Score, print the summary; returns the exit status."""
    arguments = parse_scoring_arguments(argv, __doc__, _EPILOG, _INPUT)
    return run_script("score_pairs", lambda: score_and_print(arguments, "pairs"))


if __name__ == "__main__":
    sys.exit(main())
