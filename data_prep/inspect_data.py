"""Show what is in a prepared folder: counts, score histograms, lengths, correlations, refusals, examples."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rmkit.errors import DataError
from rmkit.inspection import inspect_folder

EPILOG = """\
example:
  python data_prep/inspect_data.py data/helpsteer2
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 on success, 1 for a folder that is not a complete one."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=layout)
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder that data_prep/prepare.py wrote")
    parser.add_argument("--examples", type=int, default=3, metavar="N", help="rows to show in full (default: 3)")
    args = parser.parse_args(argv)
    try:
        print(inspect_folder(args.folder, args.examples))
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
