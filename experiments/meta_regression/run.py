"""Linear regression in context, answered in number tokens: which loss generalises from few training problems?

The first experiment of arXiv 2503.02379, rebuilt: a small Llama that has learnt rising lines with cross entropy is
trained on a few falling ones, with every score loss of rmkit beside the cross entropy. See README.md in this folder.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from plots import plot_differences, plot_errors
from runs import PRESETS, Run, do_run, make_start, plan_runs, settings_of
from summary import summarise, write_tables

from rmkit.experiment import append_run, check_settings, dump_results, open_pool, read_runs, sole_work, work_off

EPILOG = """\
presets:
  smoke   a few seconds; its numbers mean nothing
  cpu     every loss, 3 numbers of training problems, 6 seeds: at most 15 minutes on two idle cores
  full    a larger model, 6 numbers of training problems, 20 seeds: for a GPU, with --device cuda

Writes runs.jsonl (one line a run), results.json, results.md, and plots (SVG and PNG). Stopped and started again with
the same command, it goes on where it was; more seeds or losses can be added to a finished folder.

examples:
  python experiments/meta_regression/run.py --preset cpu
  python experiments/meta_regression/run.py --preset cpu --losses dist2 dist2_random --seeds 20 --output runs/few
  python experiments/meta_regression/run.py --preset full --device cuda --workers 8
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=layout)
    parser.add_argument("--preset", choices=list(PRESETS), default="cpu", help="how large (default: cpu)")
    parser.add_argument("--output", type=Path, help="folder (default: runs/meta_regression_PRESET)")
    parser.add_argument("--losses", nargs="+", metavar="NAME", help="only these, and ce (default: all)")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds 1 to N (default: as the preset says)")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each (default: 2)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where models run (default: cpu)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Do the runs that are not done yet, then write what came of all."""
    parser = build_parser()
    args = parser.parse_args(argv)
    preset = PRESETS[args.preset]
    seeds = preset.seeds if args.seeds is None else args.seeds
    if seeds < 1 or args.workers < 1:
        parser.error(f"--seeds {seeds} --workers {args.workers}: at least 1 of each")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here")
    try:
        runs = plan_runs(preset, seeds, args.losses)
    except ValueError as error:
        parser.error(f"--losses: {error}")
    output = args.output or Path("runs") / f"meta_regression_{args.preset}"
    (output / "starts").mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with sole_work(output):
        check_settings(output, settings_of(preset, args.device))
        done = read_runs(output / "runs.jsonl", Run)
        left = [run for run in runs if run not in done]
        starts = {(run.spelling, run.seed): f"{run.spelling}_{run.seed}.safetensors" for run in left}
        paths = {key: output / "starts" / name for key, name in starts.items()}
        missing = [
            (make_start, (path, *key, preset.recipe, args.device)) for key, path in paths.items() if not path.exists()
        ]
        jobs = [(do_run, (run, paths[run.spelling, run.seed], preset, args.device)) for run in left]
        if jobs:
            with open_pool(args.workers) as pool:
                work_off(pool, missing, "first trainings", lambda _: None)
                work_off(pool, jobs, "runs", lambda row: append_run(output / "runs.jsonl", row))
        done = read_runs(output / "runs.jsonl", Run)
        results = summarise([done[run] for run in runs])
        text = dump_results({"preset": args.preset, "seeds": seeds, **results})
        (output / "results.json").write_text(text, "utf-8")
        (output / "results.md").write_text(write_tables(results), "utf-8")
        for spelling in results["references"]:
            cells = [cell for cell in results["cells"] if cell["spelling"] == spelling]
            for kind in ("mae", "rmse"):
                plot_errors(cells, kind, output / f"{kind}_{spelling}")
            plot_differences(cells, output / f"differences_{spelling}")
    failed = sum(cell["errors"] for cell in results["cells"])
    print(f"{len(left)} runs done, {len(runs) - len(left)} were there, {failed} diverged; ", end="")
    print(f"{(time.monotonic() - started) / 60:.1f} minutes")
    print(f"tables: {output / 'results.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
