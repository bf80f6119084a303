"""Experiments of many runs: command line, a folder for one process at a time, differences paired by seed, results."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from filelock import FileLock, Timeout
from matplotlib.figure import Figure
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW
from tqdm import tqdm

from rmkit.errors import DataError
from rmkit.jsonl import dump_line, read_jsonl
from rmkit.manifest import FORMAT_VERSION, read_json, write_json

LEVEL = 0.95
"""Coverage of every interval, and 1 - the level of every test."""

PLOT_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small files
    "svg.hashsalt": "rmkit",  # ids are random otherwise
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
"""For `matplotlib.rc_context`."""

Job = tuple[Callable[..., Any], tuple[Any, ...]]
_Run = TypeVar("_Run")


def build_parser(
    name: str, description: str | None, epilog: str, presets: Mapping[str, Any], losses: str | None = None
) -> argparse.ArgumentParser:
    """The command line of an experiment.

    Args:
        name: The experiment's; the output folder is called after it.
        description: What `--help` says first.
        epilog: What it says last.
        presets: By name; `cpu` is the default.
        losses: Help of `--losses`; None for an experiment that has neither this option nor `--device`.
    """
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, epilog=epilog, formatter_class=layout)
    parser.add_argument("--preset", choices=list(presets), default="cpu", help="how large (default: cpu)")
    parser.add_argument("--output", type=Path, help=f"folder (default: runs/{name}_PRESET)")
    if losses is not None:
        parser.add_argument("--losses", nargs="+", metavar="NAME", help=losses)
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds 1 to N (default: as the preset says)")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each (default: 2)")
    if losses is not None:
        parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where models run (default: cpu)")
    parser.set_defaults(name=name)
    return parser


def read_arguments(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, presets: Mapping[str, Any]
) -> argparse.Namespace:
    """The options of `build_parser`, with the preset's `seeds` and the default `output` where none were given.

    Raises:
        SystemExit: For a number below 1 or a GPU that is not there, as argparse does.
    """
    args = parser.parse_args(argv)
    if args.seeds is None:
        args.seeds = presets[args.preset].seeds
    if args.seeds < 1 or args.workers < 1:
        parser.error(f"--seeds {args.seeds} --workers {args.workers}: at least 1 of each")
    if getattr(args, "device", "cpu") == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here")
    args.output = args.output or Path("runs") / f"{args.name}_{args.preset}"
    return args


@contextmanager
def sole_work(output: Path) -> Iterator[None]:
    """Make the folder, and let no other process work in it. What may be expected to stop an experiment is said.

    Raises:
        SystemExit: 1 if another process works there, a worker died or there was a `DataError`; 130 after Ctrl-C.
    """
    output.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(output / ".lock", timeout=0):
            yield
    except Timeout:
        _end(f"another process works in {output}; wait for it, or choose another --output", 1)
    except DataError as error:
        _end(str(error), 1)
    except BrokenProcessPool:
        _end("a worker process died (out of memory?); the same command goes on from here", 1)
    except KeyboardInterrupt:
        _end("stopped; the same command goes on from here", 130)


def _end(message: str, status: int) -> None:
    print(f"run.py: {message}", file=sys.stderr)  # noqa: T201 (it speaks for the script)
    raise SystemExit(status)


def read_runs(path: Path, kind: Callable[..., _Run]) -> dict[_Run, dict[str, Any]]:
    """Finished runs. A last line that a kill cut off is taken away, so that the next one starts a line.

    Args:
        path: Of `append_run`; it need not exist yet.
        kind: A frozen dataclass with slots, whose fields say which run it is; each row has them by name.
    """
    if not path.exists():
        return {}
    whole = path.read_bytes()
    kept = whole[: whole.rfind(b"\n") + 1]
    if kept != whole:
        os.truncate(path, len(kept))
    names: Sequence[str] = kind.__slots__  # type: ignore[attr-defined]
    return {kind(*(row[name] for name in names)): row for _, row in read_jsonl(path)}


def append_run(path: Path, row: Mapping[str, Any]) -> None:
    """Add a finished run."""
    with path.open("a", encoding="utf-8") as file:
        file.write(dump_line(row))


def check_settings(output: Path, settings: dict[str, Any]) -> None:
    """Write down what the runs of a folder have in common, or make sure that it is still the same.

    Raises:
        DataError: If it is not.
    """
    path = output / "settings.json"
    if not path.exists():
        write_json(path, settings)
        return
    before = read_json(path)
    changed = [name for name, value in settings.items() if before.get(name) != value]
    if changed:
        raise DataError(
            f"{output} was started with {changed[0]}={before.get(changed[0])!r} and is now told "
            f"{settings[changed[0]]!r}; choose another --output"
        )


def open_pool(workers: int) -> ProcessPoolExecutor:
    """Worker processes that start afresh, and leave Ctrl-C to the main process, which then stops them."""
    return ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    )


def work_off(pool: ProcessPoolExecutor, jobs: Sequence[Job], name: str, keep: Callable[[Any], None]) -> None:
    """Call functions in worker processes, and hand each result over as it comes."""
    futures = [pool.submit(function, *arguments) for function, arguments in jobs]
    try:
        for future in tqdm(as_completed(futures), total=len(futures), desc=name, disable=None):
            keep(future.result())
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def describe(values: Sequence[float]) -> dict[str, Any]:
    """`mean` and 95 % t `interval` of one figure over seeds; None where there are too few."""
    return {"mean": short(float(np.mean(values))) if values else None, "interval": _interval(values)}


def compare(ours: Mapping[Any, float], theirs: Mapping[Any, float]) -> dict[str, Any]:
    """The mean of ours - theirs over what both have (mostly seeds), its t interval, and `p` of the paired t test."""
    differences = [ours[key] - theirs[key] for key in ours if key in theirs]
    result: dict[str, Any] = {**describe(differences), "p": None}
    if result["interval"] is not None:
        # Equal in every seed: the test has no spread to go by, and there is nothing to find.
        result["p"] = short(DescrStatsW(differences).ttest_mean(0)[1]) if np.ptp(differences) > 0 else 1.0
    return result


def correct(family: Sequence[dict[str, Any]]) -> None:
    """Add `holm` to results of `compare`: p corrected by Holm for all of them."""
    tested = [difference for difference in family if difference["p"] is not None]
    for difference in family:
        difference["holm"] = None
    if tested:
        corrected = multipletests([difference["p"] for difference in tested], method="holm")[1]
        for difference, p in zip(tested, corrected, strict=True):
            difference["holm"] = short(p)


def short(value: float) -> float:
    """Four digits: far below what the seeds leave open, and small files."""
    return float(f"{value:.4g}")


def _interval(values: Sequence[float]) -> list[float] | None:
    if len(values) < 2:
        return None
    if np.ptp(values) == 0:
        return [short(values[0])] * 2
    return [short(bound) for bound in DescrStatsW(values).tconfint_mean(1 - LEVEL)]


def write_results(output: Path, results: Mapping[str, Any], tables: str) -> None:
    """Write `results.json`, with a line for each item of its lists, and `results.md`."""
    parts = []
    for key, value in {"format_version": FORMAT_VERSION, **results}.items():
        by_line = isinstance(value, list) and any(isinstance(item, dict) for item in value)
        lines = ",\n".join(json.dumps(item, separators=(",", ":")) for item in value) if by_line else None
        parts.append(f'"{key}": ' + (json.dumps(value) if lines is None else f"[\n{lines}\n]"))
    (output / "results.json").write_text("{\n" + ",\n".join(parts) + "\n}\n", "utf-8")
    (output / "results.md").write_text(tables, "utf-8")


def save_plot(figure: Figure, path: Path) -> None:
    """Write a figure as SVG and PNG, the same bytes from the same figures; `path` is without suffix."""
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None, "Creator": None})
    figure.savefig(path.with_suffix(".png"), dpi=80)
