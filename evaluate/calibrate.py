"""Fit how a judge's numbers are to be rescaled (isotonic regression), and say what it gains on records held out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rmkit.errors import DataError, RubricError
from rmkit.evaluation.calibrating import FOLDS, fit_calibration
from rmkit.evaluation.rated import read_rated
from rmkit.evaluation.records import read_scoring

_EPILOG = f"""\
Scored pairs give a curve for P(chosen > rejected), rated responses one for the expected score of each attribute. The
file belongs into the judge's folder; it is used only where a scoring script is told to, with --calibration, and then
writes rescaled numbers beside the raw ones. Fit it to data of the kind that you will score, and not to the benchmark
that you will report.

examples:
  python evaluate/calibrate.py --pairs runs/scores --output runs/judge/calibration.json
  python evaluate/calibrate.py --ratings runs/hs2 --input data/helpsteer2 --output runs/judge/calibration.json

"before" and "after" are calibration errors on records held out ({FOLDS} folds): for preferences the expected
calibration error, for attributes the mean distance of score and rating over bins, in steps of the scale.
"""


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line's options."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=_EPILOG, formatter_class=layout)
    parser.add_argument("--pairs", type=Path, metavar="DIR", help="folder that evaluate/score_pairs.py wrote")
    parser.add_argument("--ratings", type=Path, metavar="DIR", help="folder that evaluate/score_responses.py wrote")
    parser.add_argument("--input", type=Path, metavar="FILE|DIR", help="with --ratings: the rated rows it scored")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="the calibration, in JSON")
    parser.add_argument("--seed", type=int, default=0, help="seed of the folds (default: 0)")
    arguments = parser.parse_args(argv)
    if arguments.pairs is None and arguments.ratings is None:
        parser.error("name scored --pairs, scored --ratings, or both")
    if (arguments.ratings is None) != (arguments.input is None):
        parser.error("--ratings and --input go together: the scores, and the rated rows")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Fit, write, print what it gains; returns the exit status."""
    arguments = parse_arguments(argv)
    try:
        pairs = None if arguments.pairs is None else read_scoring(arguments.pairs)
        rated = None if arguments.ratings is None else read_rated(arguments.ratings, arguments.input)
        calibration, gains = fit_calibration(pairs, rated, arguments.seed)
        calibration.save(arguments.output)
    except (DataError, RubricError, OSError) as error:
        print(f"calibrate: {error}", file=sys.stderr)
        return 1
    for note in (note for found in (pairs, rated) if found is not None for note in found.notes):
        print(f"note: {note}")
    print(f"{'':<20} {'n':>8} {'before':>8} {'after':>8}")
    for gain in gains:
        print(f"{gain.name:<20} {gain.n:>8} {gain.before:>8.4f} {gain.after:>8.4f}")
    print(arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
