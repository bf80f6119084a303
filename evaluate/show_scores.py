"""Score one response and show its score distributions, as text and as a picture.

python evaluate/show_scores.py --judge demo/judge --instruction "Name two fruits." --response "Pear, fig."
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rmkit.display import describe, plot_scores
from rmkit.errors import DataError, JudgeError, RubricError, TokenizerError
from rmkit.judge import Judge
from rmkit.judge_config import MODES
from rmkit.rubric import load_rubric, ready_rubrics


def main(argv: list[str] | None = None) -> int:
    """Print the distributions, and draw them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", required=True, help="judge folder or hub id; with --rubric, any instruct model")
    parser.add_argument("--rubric", help=f"for a model that is no judge: {', '.join(ready_rubrics())} or a .yaml file")
    parser.add_argument(
        "--engine", choices=("transformers", "vllm"), default="transformers", help="default: transformers"
    )
    parser.add_argument("--mode", choices=MODES, help="as in score_responses.py; a judge brings its own")
    parser.add_argument("--instruction", required=True, help="what the user asked")
    parser.add_argument("--response", required=True, help="the answer to judge")
    parser.add_argument("--reference", help="a reference answer that the judge is shown")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="picture to write: .png, .svg or .pdf")
    args = parser.parse_args(argv)
    try:
        rubric = load_rubric(args.rubric) if args.rubric else None
        judge = Judge.load(args.judge, engine=args.engine, rubric=rubric, mode=args.mode)
        [judgment] = judge.score([args.instruction], [args.response], [args.reference])
    except (DataError, JudgeError, RubricError, TokenizerError) as error:
        print(f"show_scores.py: {error}", file=sys.stderr)
        return 1
    print(describe(judgment))
    if judgment.error is not None:
        return 1
    if args.plot:
        plot_scores(judgment).savefig(args.plot, dpi=150)
        print(f"picture: {args.plot}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
