"""Turn raw ratings or preferences into score sequences: one folder that training and evaluation read."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from itertools import chain
from pathlib import Path

from tqdm import tqdm

from rmkit.data import DATASETS
from rmkit.data.graded import GradedSettings, generate_pairs, generate_rows
from rmkit.errors import DataError, RubricError
from rmkit.preparation import move_row
from rmkit.prepared_folder import PAIR_FILES, RATED_FILES, summarise, write_prepared
from rmkit.published import prepare_published
from rmkit.rubric import load_rubric, ready_rubrics

EPILOG = """\
Writes train.jsonl and validation.jsonl (rated responses) or pairs.jsonl (pairs), refused.jsonl (what was not used,
and why), and last of all manifest.json: where it is, the folder is complete. These files are replaced if they are
there already, others are left alone. The same input and settings give the same bytes.

examples:
  python data_prep/prepare.py --dataset helpsteer2 --output data/helpsteer2
  python data_prep/prepare.py --dataset helpsteer2 --input train.jsonl.gz --rubric dist2_paper --output data/paper
  python data_prep/prepare.py --dataset reward_bench --input filtered.parquet --output data/reward_bench
  python data_prep/prepare.py --dataset graded --rows 20000 --pairs 1000 --rater-noise 0.2 --output data/graded
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=layout)
    parser.add_argument(
        "--dataset", required=True, choices=sorted([*DATASETS, "graded"]), help="which data set; graded is generated"
    )
    parser.add_argument(
        "--input",
        metavar="PATH|HUB_ID",
        help="raw file (.jsonl, .json, .csv, each also .gz; .parquet) or owner/name@revision on the Hugging Face hub "
        "(default: the data set's own home there, at the revision its adapter was written for)",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--rubric",
        metavar="NAME|FILE",
        help=f"attributes and scales: {', '.join(ready_rubrics())}, or a .yaml file; ratings are put on its scales "
        "linearly (default: the data set's own rubric)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the split, and of generated data (default: 0)")
    parser.add_argument(
        "--validation-fraction",
        type=float,
        default=0.05,
        metavar="F",
        help="expected share of conversations that go to validation.jsonl, with all their rows (default: 0.05)",
    )
    parser.add_argument("--max-rows", type=int, metavar="N", help="stop after this many rows or pairs (default: all)")
    graded = parser.add_argument_group("graded", "generated data with known true scores")
    graded.add_argument("--rows", type=int, metavar="N", help="rated responses (default: 20000)")
    graded.add_argument("--pairs", type=int, metavar="N", help="held-out pairs (default: 1000)")
    graded.add_argument("--difficulty", type=float, metavar="D", help="0 to 1: how little shows (default: 0.3)")
    graded.add_argument("--rater-noise", type=float, metavar="P", help="probability that a score is off (default: 0)")
    return parser


def prepare_graded(args: argparse.Namespace) -> dict:
    """Generate, write, and return the manifest."""
    given = {name: getattr(args, name) for name in ("rows", "pairs", "difficulty", "rater_noise")}
    given = {"rows": 20_000, "pairs": 1_000} | {name: value for name, value in given.items() if value is not None}
    settings = GradedSettings(**given, seed=args.seed)
    own = load_rubric("graded")
    rubric = load_rubric(args.rubric or "graded")
    rows = ((move_row(row, own, rubric),) for row in generate_rows(settings))
    pairs = ((pair,) for pair in generate_pairs(settings))
    outcomes = tqdm(chain(rows, pairs), total=settings.rows + settings.pairs, unit=" rows", disable=None)
    origin = {"dataset": "graded", "source": {"name": "generator", **asdict(settings)}, "max_rows": None}
    files = (*RATED_FILES, *PAIR_FILES)
    return write_prepared(args.output, outcomes, files, rubric, args.seed, args.validation_fraction, origin)


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 on success, 1 if nothing could be prepared."""
    parser = build_parser()
    args = parser.parse_args(argv)
    generated = args.dataset == "graded"
    for option in ("input", "max_rows") if generated else ("rows", "pairs", "difficulty", "rater_noise"):
        if getattr(args, option) is not None:
            parser.error(f"--{option.replace('_', '-')} does not go with --dataset {args.dataset}")
    if args.max_rows is not None and args.max_rows < 1:
        parser.error(f"--max-rows {args.max_rows}: at least 1")
    if args.input and Path(args.input).resolve().parent == args.output.resolve():
        parser.error(f"--input {args.input} lies in the output folder, whose files are replaced; choose another one")
    try:
        if generated:
            manifest = prepare_graded(args)
        else:
            manifest = prepare_published(
                DATASETS[args.dataset],
                args.output,
                args.input,
                args.rubric,
                args.seed,
                args.validation_fraction,
                args.max_rows,
            )
    except (DataError, RubricError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: stopped; the folder is not complete, run the same command again", file=sys.stderr)
        return 130
    print(summarise(manifest, args.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
