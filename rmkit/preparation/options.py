"""Command-line options of every script that prepares data, and what follows from them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from rmkit.cleaning.options import CONTAMINATION, DUPLICATES, CleaningOptions
from rmkit.errors import DataError, RubricError
from rmkit.preparation.part_pool import count_cores
from rmkit.preparation.published import PreparationSettings
from rmkit.row_files import ROW_FORMATS


def add_preparation_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of split, format, processes and cleaning; which data is prepared is the script's own."""
    parser.add_argument(
        "--seed", type=int, default=0, help="of the split, of sampling and of generated data (default: 0)"
    )
    parser.add_argument(
        "--validation-fraction",
        type=float,
        default=0.05,
        metavar="F",
        help="expected share of conversations that go to validation, with all their rows (default: 0.05)",
    )
    parser.add_argument("--format", choices=ROW_FORMATS, default="jsonl", help="of the rows (default: jsonl)")
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that convert records; small inputs use one (default: as many as there are cores)",
    )
    _add_cleaning(parser)


def _add_cleaning(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("cleaning", "rows that are left out; each goes to dropped.jsonl with its reason")
    group.add_argument(
        "--dedupe",
        choices=DUPLICATES,
        default="none",
        help="exact: the same conversation and response up to white space; near: also such that differ in a few words "
        "(default: none)",
    )
    group.add_argument(
        "--dedupe-threshold",
        type=float,
        metavar="T",
        help="similarity from which rows are near-duplicates, 0.7 to 1 (default: 0.8)",
    )
    group.add_argument("--drop-blank", action="store_true", help="rows whose prompt or response shows nothing")
    group.add_argument(
        "--languages", metavar="CODES", help="keep rows whose user writes one of these, such as en,de (default: any)"
    )
    group.add_argument("--max-tokens", type=int, metavar="N", help="rows of more tokens; needs --tokenizer")
    group.add_argument("--tokenizer", metavar="DIR|HUB_ID", help="counts those tokens")
    group.add_argument(
        "--truncate",
        action="store_true",
        help="leave out the oldest turns of rows that are too long, where that helps",
    )
    group.add_argument(
        "--decontaminate",
        nargs="+",
        metavar="BENCHMARK",
        help="rows that hold a prompt of these: a data set (reward_bench), NAME=FILE of it, a prepared folder, or a "
        "file of prompts",
    )
    group.add_argument(
        "--contamination",
        choices=CONTAMINATION,
        default="drop",
        help="report: keep those rows, and only write them to reported.jsonl (default: drop)",
    )
    group.add_argument(
        "--balance",
        nargs="+",
        metavar="ATTRIBUTE",
        help="bring common scores of an attribute down to the mean count, in training rows",
    )


def read_preparation_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> PreparationSettings:
    """The settings that were asked for.

    Raises:
        DataError: If two of them don't go together.
        SystemExit: For a number that makes no sense, as argparse does.
    """
    if args.workers is not None and args.workers < 1:
        parser.error(f"--workers {args.workers}: at least 1")
    if args.dedupe_threshold is not None and args.dedupe != "near":
        parser.error("--dedupe-threshold goes with --dedupe near")
    if args.contamination != "drop" and not args.decontaminate:
        parser.error("--contamination goes with --decontaminate, which names the benchmarks")
    languages = None if args.languages is None else tuple(filter(None, map(str.strip, args.languages.split(","))))
    if languages is not None and not languages:
        parser.error(f"--languages {args.languages!r}: name at least one, such as en,de")
    return PreparationSettings(
        seed=args.seed,
        validation_fraction=args.validation_fraction,
        row_format=args.format,
        cleaning=CleaningOptions(
            duplicates=args.dedupe,
            threshold=0.8 if args.dedupe_threshold is None else args.dedupe_threshold,
            drop_blank=args.drop_blank,
            languages=languages or (),
            max_tokens=args.max_tokens,
            tokenizer=args.tokenizer,
            truncate=args.truncate,
            decontaminate=tuple(args.decontaminate or ()),
            contamination=args.contamination,
            balance=tuple(args.balance or ()),
        ),
        workers=args.workers or count_cores(),
    )


def run_preparation(work: Callable[[], None]) -> int:
    """Do the work of a script that writes a prepared folder; what went wrong is one line on standard error.

    Returns:
        The exit status: 0; 1 if nothing could be prepared; 130 if it was stopped from the keyboard.
    """
    try:
        work()
    except (DataError, RubricError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(
            "error: stopped; the folder is not complete: run the same command again, and it goes on from there\n"
        )
        return 130
    return 0
