"""Does the judge teach? A small policy learns by GRPO from a judge alone, and is tested by the true scores.

Everything is generated, so the true score of every text is known by rule; the policy never sees it. See README.md in
this folder.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict

from stages import ARMS, PRESETS, do_run, make_data, make_start, seed_file, stage_seconds, train_judge
from teaching_plot import plot_curve
from teaching_summary import ARM_NAMES, summarise, write_tables

from rmkit.experiment import (
    Job,
    build_parser,
    check_settings,
    open_pool,
    read_arguments,
    sole_work,
    work_off,
    write_results,
)

EPILOG = """\
presets:
  smoke   a minute; its numbers mean nothing
  cpu     two judges, a policy, and three seeds of each of three arms: at most 20 minutes on two idle cores

Writes data, models, seeds/ARM/N.json (what each step and each test gave), results.json, results.md and the plot (SVG
and PNG). Stopped and started again with the same command, it goes on with the stage it was in; more seeds can be added
to a finished folder.

examples:
  python experiments/rlhf_graded/run.py --preset cpu
  python experiments/rlhf_graded/run.py --preset cpu --seeds 6
"""


def main(argv: list[str] | None = None) -> int:
    """Do the stages that are not done yet, then write what came of them."""
    args = read_arguments(build_parser("rlhf_graded", __doc__, EPILOG, PRESETS), argv, PRESETS)
    preset, output, seeds = PRESETS[args.preset], args.output, args.seeds
    started = time.monotonic()
    with sole_work(output):
        check_settings(output, {**asdict(preset), "seeds": None})  # more seeds are no other settings
        make_data(output, preset)
        jobs: dict[str, list[Job]] = {
            arm: [(do_run, (output, preset, arm, seed)) for seed in range(1, seeds + 1)] for arm in ARMS
        }
        first: list[Job] = [(train_judge, (output, preset, "judge")), (make_start, (output, preset))]
        second: list[Job] = [(train_judge, (output, preset, "judge_sampled")), *jobs["generated"]]
        with open_pool(args.workers) as pool:
            work_off(pool, first, "first judge and start", lambda _: None)
            work_off(pool, second, "second judge, and seeds of the first", lambda _: None)
            work_off(pool, [*jobs["sampled"], *jobs["sampled_kl"]], "seeds of the second", lambda _: None)
        runs = {
            arm: [json.loads(seed_file(output, arm, seed).read_text("utf-8")) for seed in range(1, seeds + 1)]
            for arm in ARMS
        }
        results = summarise(runs, stage_seconds(output))
        write_results(output, {"preset": args.preset, **results}, write_tables(results))
        plot_curve(results, output / "curve")
    print("true aggregate, final minus initial, with 95 % intervals:")
    for arm in results["arms"]:
        gain = arm["gain"]["true"]
        low, high = gain["interval"]
        print(f"{ARM_NAMES[arm['arm']]}: {gain['mean']:+.3f} ({low:+.3f} to {high:+.3f})")
    print(f"{(time.monotonic() - started) / 60:.1f} minutes")
    print(f"tables: {output / 'results.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
