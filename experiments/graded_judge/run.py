"""Which loss makes the better judge from few rows, and by how much beyond label smoothing?

Small judges are trained from random weights on generated responses whose true scores are known, with and without
rater noise, and tested on held-out pairs and rows. See README.md in this folder.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import Any

from design import LOSSES, PRESETS, Preset, Run, plan_runs
from judge_plots import plot_curves, plot_differences
from judge_run import do_run
from judge_summary import summarise, write_tables

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
  smoke   half a minute; its numbers mean nothing
  cpu     a judge of 2 layers and width 32, 4 numbers of rows, 2 of noise, 3 seeds: some 2.5 hours of one core
  full    4 layers and width 256, harder texts, 5 seeds: for a GPU, with --device cuda

Writes runs.jsonl (one line a run), results.json, results.md, and plots (SVG and PNG). Stopped and started again with
the same command, it goes on where it was; more seeds or losses can be added to a finished folder.

examples:
  python experiments/graded_judge/run.py --preset cpu
  python experiments/graded_judge/run.py --preset cpu --losses dist2 dist2_random --seeds 8 --output runs/few
  python experiments/graded_judge/run.py --preset full --device cuda --workers 4
"""


def main(argv: list[str] | None = None) -> int:
    """Do the runs that are not done yet, then write what came of all."""
    losses = f"only these, and ce (default: all of {', '.join(LOSSES)})"
    parser = build_parser("graded_judge", __doc__, EPILOG, PRESETS, losses)
    args = read_arguments(parser, argv, PRESETS)
    preset, output = PRESETS[args.preset], args.output
    try:
        runs = plan_runs(preset, args.seeds, args.losses)
    except ValueError as error:
        parser.error(f"--losses: {error}")
    started = time.monotonic()
    with sole_work(output):
        check_settings(output, settings_of(preset, args.device))
        done = read_runs(output / "runs.jsonl", Run)
        left = [run for run in runs if run not in done]
        if left:
            with open_pool(args.workers) as pool:
                jobs = [(do_run, (run, preset, args.device)) for run in left]
                work_off(pool, jobs, "runs", lambda row: append_run(output / "runs.jsonl", row))
        done = read_runs(output / "runs.jsonl", Run)
        results = summarise([done[run] for run in runs])
        write_results(output, {"preset": args.preset, "seeds": args.seeds, **results}, write_tables(results))
        plot_curves(results["cells"], output / "curves")
        plot_differences(results["contrasts"], output / "differences")
    failed = sum(cell["errors"] for cell in results["cells"])
    used = sum(done[run]["cpu_seconds"] for run in runs) / 60
    print(f"{len(left)} runs done, {len(runs) - len(left)} were there, {failed} diverged; ", end="")
    print(f"{(time.monotonic() - started) / 60:.1f} minutes, and {used:.0f} minutes of processor time for all runs")
    print(f"tables: {output / 'results.md'}")
    return 0


def settings_of(preset: Preset, device: str) -> dict[str, Any]:
    """What must be the same where an experiment is taken up again."""
    settings = {"recipe": asdict(preset.recipe), "epochs": preset.epochs, "noises": preset.noises, "device": device}
    return json.loads(json.dumps(settings))


if __name__ == "__main__":
    sys.exit(main())
