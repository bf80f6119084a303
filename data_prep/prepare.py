"""Turn raw ratings or preferences into score sequences: one folder that training and evaluation read."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from itertools import chain
from pathlib import Path

from tqdm import tqdm

from rmkit.console import write_out
from rmkit.data import DATASETS
from rmkit.data.graded import GradedSettings, generate_pairs, generate_rows
from rmkit.preparation.conversion import move_row
from rmkit.preparation.folder import PAIR_FILES, RATED_FILES, summarise, write_prepared
from rmkit.preparation.mapping import load_mapping
from rmkit.preparation.options import add_preparation_options, read_preparation_options, run_preparation
from rmkit.preparation.preferences import RULES
from rmkit.preparation.published import PreparationSettings, prepare_published
from rmkit.rubric import load_rubric, ready_rubrics

EPILOG = """\
Writes train and validation (rated responses) or pairs, as .jsonl or .parquet; refused.jsonl (raw records that gave
nothing, and why), dropped.jsonl (rows that cleaning left out, and why), and last of all manifest.json: where it is,
the folder is complete. What an earlier run wrote is replaced, other files are left alone. The same input and
settings give the same bytes, with any number of workers; a run that was stopped or killed goes on from its finished
parts when the same command is run again. Nothing is dropped unless an option asks for it.

examples:
  python data_prep/prepare.py --dataset helpsteer2 --output data/helpsteer2
  python data_prep/prepare.py --dataset helpsteer2 --input train.jsonl.gz --rubric dist2_paper --output data/paper
  python data_prep/prepare.py --dataset ultrafeedback --input *.jsonl --dedupe near --decontaminate reward_bench \\
      --max-tokens 3000 --tokenizer models/base --output data/ultrafeedback
  python data_prep/prepare.py --mapping mine.yaml --input mine.csv --balance helpfulness --output data/mine
  python data_prep/prepare.py --dataset hh_rlhf_harmless --rule pairs --output data/hh_pairs
  python data_prep/prepare.py --dataset reward_bench --input filtered.parquet --output data/reward_bench
  python data_prep/prepare.py --dataset graded --rows 20000 --pairs 1000 --rater-noise 0.2 --output data/graded
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=layout)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--dataset", choices=sorted([*DATASETS, "graded"]), help="which data set; graded is generated")
    source.add_argument(
        "--mapping", type=Path, metavar="FILE", help="YAML that says what the columns of a data set of your own mean"
    )
    parser.add_argument(
        "--input",
        nargs="+",
        metavar="PATH|HUB_ID",
        help="raw files (.jsonl, .json, .csv, each also .gz; .parquet) or owner/name@revision on the Hugging Face hub "
        "(default: the data set's own home there, at the revision its adapter was written for)",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--rubric",
        metavar="NAME|FILE",
        help=f"attributes and scales: {', '.join(ready_rubrics())}, or a .yaml file; ratings are put on its scales "
        "linearly (default: the data set's own rubric)",
    )
    parser.add_argument(
        "--max-rows", type=int, metavar="N", help="read no further than to this many rows or pairs (default: all)"
    )
    add_preferences(parser)
    add_preparation_options(parser)
    graded = parser.add_argument_group("graded", "generated data with known true scores")
    graded.add_argument("--rows", type=int, metavar="N", help="rated responses (default: 20000)")
    graded.add_argument("--pairs", type=int, metavar="N", help="held-out pairs (default: 1000)")
    graded.add_argument("--difficulty", type=float, metavar="D", help="0 to 1: how little shows (default: 0.3)")
    graded.add_argument("--rater-noise", type=float, metavar="P", help="probability that a score is off (default: 0)")
    return parser


def add_preferences(parser: argparse.ArgumentParser) -> None:
    """Options of what preferences become."""
    group = parser.add_argument_group("preferences", "what comparisons without ratings become")
    group.add_argument(
        "--rule",
        choices=RULES,
        help="rank: scores evenly spread by rank; margin: two scores as far apart as the preference is strong; label: "
        "the best get the highest score, all others the lowest; pairs: no scores, but pairs of chosen and rejected "
        "responses (default: the data set's own rule)",
    )
    group.add_argument("--no-derived", action="store_true", help="leave out scores that a preference was made into")


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
    return write_prepared(
        args.output, outcomes, files, rubric, args.seed, args.validation_fraction, origin, args.format
    )


def prepare_raw(args: argparse.Namespace, settings: PreparationSettings) -> dict:
    """Read a published data set, or one of the user's own, write it, and return the manifest."""
    return prepare_published(
        load_mapping(args.mapping) if args.mapping else DATASETS[args.dataset],
        args.output,
        args.input,
        args.rubric,
        settings,
        max_rows=args.max_rows,
        rule=args.rule,
        keep_derived=not args.no_derived,
    )


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options that don't go together."""
    generated = args.dataset == "graded"
    raw_only = ("input", "max_rows", "workers", "rule", "no_derived", "dedupe_threshold", "drop_blank", "languages",
                "max_tokens", "tokenizer", "truncate", "decontaminate", "balance")  # fmt: skip
    for option in raw_only if generated else ("rows", "pairs", "difficulty", "rater_noise"):
        if getattr(args, option) is not None and getattr(args, option) is not False:  # 0 is given, too
            source = f"--dataset {args.dataset}" if args.dataset else "--mapping"
            parser.error(f"--{option.replace('_', '-')} does not go with {source}")
    if generated and (args.dedupe, args.contamination) != ("none", "drop"):
        parser.error("--dedupe and --contamination do not go with --dataset graded")
    if args.max_rows is not None and args.max_rows < 1:
        parser.error(f"--max-rows {args.max_rows}: at least 1")
    if args.rubric == "":
        parser.error("--rubric is empty: name one, or leave it out for the data set's own")
    for given in args.input or ():
        if Path(given).resolve().parent == args.output.resolve():
            parser.error(f"--input {given} lies in the output folder, whose files are replaced; choose another one")


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 on success, 1 if nothing could be prepared."""
    parser = build_parser()
    args = parser.parse_args(argv)
    check_arguments(parser, args)

    def work() -> None:
        settings = read_preparation_options(parser, args)
        manifest = prepare_graded(args) if args.dataset == "graded" else prepare_raw(args, settings)
        write_out(summarise(manifest, args.output))

    return run_preparation(work)


if __name__ == "__main__":
    sys.exit(main())
