"""Mix several data sets, prepared or raw, into one folder that training and evaluation read."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rmkit.console import write_out
from rmkit.preparation.folder import summarise
from rmkit.preparation.mixing import prepare_mix
from rmkit.preparation.options import add_preparation_options, read_preparation_options, run_preparation

EPILOG = """\
A mix file says what is mixed; paths in it are relative to the working directory:

  rubric: mine.yaml                 # a name, a file, or the rubric itself; default: the union of all attributes
  sources:
  - folder: data/helpsteer2         # prepared by data_prep/prepare.py, or a mix
    weight: 0.5                     # keep half of its rows, drawn by a hash of each row's id
    rename: {correctness: accuracy}
  - dataset: ultrafeedback          # raw; also input, rubric, rule and keep_derived, as prepare.py has them
    max_rows: 20000                 # read on to so many rows
  - mapping: shop.yaml              # a file of your own, see docs/datasets.md
    input: shop.csv
    name: shop                      # stands in the ids of its rows

Rows come in this order, and are put on one rubric. Two sources that define an attribute differently are refused:
rename one of them, or name a rubric for all. All rows are split anew by their conversations, so no conversation
stands on both sides, and adding a source moves no row of another. Duplicates are looked for across all sources; the
first one stays. Writes the same files as data_prep/prepare.py; manifest.json lists each source with its counts.

examples:
  python data_prep/mix.py mix.yaml --output data/mix
  python data_prep/mix.py mix.yaml --dedupe near --decontaminate reward_bench --output data/mix
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 on success, 1 if nothing could be mixed."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=layout)
    parser.add_argument("mix", type=Path, metavar="FILE", help="YAML that names the data sets, see below")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to write")
    add_preparation_options(parser)
    args = parser.parse_args(argv)

    def work() -> None:
        manifest = prepare_mix(args.mix, args.output, read_preparation_options(parser, args))
        for source in manifest["sources"]:
            write_out(f"{source['name']}: {source['raw_records']} records, {source['rows']} rows")
        write_out(summarise(manifest, args.output))

    return run_preparation(work)


if __name__ == "__main__":
    sys.exit(main())
