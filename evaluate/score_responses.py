"""Score single responses with a judge; killed and started again, it goes on where it stopped."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rmkit.console import run_script
from rmkit.scoring.options import parse_scoring_arguments, score_and_print

_EPILOG = """\
A row of the input is a JSON object with
  conversation, or prompt       a text, or chat messages
  response, or completion       a text, or chat messages
  id                            without one, the row gets its line number as its id
  reference, rubric             optional: a reference answer, and a rubric of the row's own
Where both names stand, as in train.jsonl, conversation and response are used.

Writes into the output folder, one line for each row, in the order of the input:
  settings.json   what the scores depend on; the same folder takes no other settings
  scores.jsonl    id, side "response", the distribution of each attribute, aggregate, error
  manifest.json   comes last: where it is, the folder is complete
A response that can't be judged gets a record with the reason and no number.

examples:
  python evaluate/score_responses.py --judge runs/judge --input responses.jsonl --output runs/scores
  python evaluate/score_responses.py --judge Qwen/Qwen3-8B --rubric helpsteer --input data/hs2 --output runs/zero_shot

exit status: 0; 3 if some responses could not be judged; 1 for an error, or if none could; 130 if stopped from the
keyboard
"""

_INPUT = "responses in JSON Lines, or a folder of data_prep/prepare.py, of which validation.jsonl is scored"


def main(argv: Sequence[str] | None = None) -> int:
    """Score, print the summary; returns the exit status."""
    arguments = parse_scoring_arguments(argv, __doc__, _EPILOG, _INPUT)
    return run_script("score_responses", lambda: score_and_print(arguments, "responses"))


if __name__ == "__main__":
    sys.exit(main())
