"""Linear regression in context, answered in number tokens: which loss generalises from few training problems?

The first experiment of arXiv 2503.02379, rebuilt: a small Llama that has learnt rising lines with cross entropy is
trained on a few falling ones, with every score loss of rmkit beside the cross entropy. See README.md in this folder.
"""

from __future__ import annotations

import sys
import time

from plots import plot_differences, plot_errors
from runs import PRESETS, Run, do_run, make_start, plan_runs, settings_of
from summary import summarise, write_tables

from rmkit.experiment import (
    append_run,
    build_parser,
    check_settings,
    open_pool,
    read_arguments,
    read_runs,
    sole_work,
    work_off,
    write_results,
)

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


def main(argv: list[str] | None = None) -> int:
    """Do the runs that are not done yet, then write what came of all."""
    parser = build_parser("meta_regression", __doc__, EPILOG, PRESETS, "only these, and ce (default: all)")
    args = read_arguments(parser, argv, PRESETS)
    preset, output = PRESETS[args.preset], args.output
    try:
        runs = plan_runs(preset, args.seeds, args.losses)
    except ValueError as error:
        parser.error(f"--losses: {error}")
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
        write_results(output, {"preset": args.preset, "seeds": args.seeds, **results}, write_tables(results))
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
