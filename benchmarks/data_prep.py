"""How fast raw records become score sequences: rmkit's prepare stage beside `datasets.map`, on a generated file.

The file has UltraFeedback's form: per prompt four completions, each with ratings and rationales for four aspects. The
job is the whole way from that file to JSON Lines with one row per completion: prompt, score sequence and the same as
data. Every run is a process of its own and is timed from its start to its end; runs take turns.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
import psutil
from tqdm import tqdm

EPILOG = """\
examples:
  python benchmarks/data_prep.py                                # 64,000 prompts, about 1 GB; some ten minutes
  python benchmarks/data_prep.py --prompts 4000 --repeats 1     # a quick look
"""

ASPECTS = ("instruction_following", "honesty", "truthfulness", "helpfulness")
MODELS = ("alpaca-7b", "falcon-40b-instruct", "gpt-4", "llama-2-70b-chat", "mpt-30b-chat", "starchat", "vicuna-33b")
SYLLABLES = tuple("an ber con da el for ge hi in ka lo mer no or pel qui ra sto ti un ver wi xe yo zu".split())
PEAK_INTERVAL = 0.1  # seconds between two looks at the memory


def generate(path: Path, prompts: int, seed: int = 0) -> None:
    """Write raw records of UltraFeedback's form, with its lengths: about 15 kB of text each."""
    rng = random.Random(seed)
    words = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(5000)]
    sentences = [f"{' '.join(rng.choices(words, k=rng.randint(5, 20))).capitalize()}." for _ in range(20_000)]
    for index in range(0, len(sentences), 25):  # some quotes, accents, other scripts and line breaks, as texts have
        sentences[index] += rng.choice(
            ['\n\n"So" it is.', "\n- déjà vu – naïve café", "\n```\nx = {'a': 1}\n```", " 東京"]
        )

    def text(mean: int) -> str:
        """About so many characters, in some texts many more and in most fewer."""
        return " ".join(rng.choices(sentences, k=max(1, round(rng.lognormvariate(-0.35, 0.8) * mean / 75))))

    def annotate(aspect: str) -> dict[str, Any]:
        rating = "N/A" if aspect == "honesty" and rng.random() < 0.05 else str(rng.choice((1, 2, 3, 4, 4, 5, 5)))
        found: dict[str, Any] = {"Rating": rating, "Rationale": text(200)}
        if aspect in ("truthfulness", "helpfulness"):
            found |= {"Type": [str(rng.randint(1, 3))], "Rationale For Rating": text(180)}
        return found

    def complete() -> dict[str, Any]:
        return {
            "annotations": {aspect: annotate(aspect) for aspect in ASPECTS},
            "custom_system_prompt": text(120),
            "model": rng.choice(MODELS),
            "principle": rng.choice(("helpfulness", "honesty", "truthfulness", "verbalized_calibration")),
            "response": text(1100),
            "critique": text(600),
            "fine-grained_score": rng.randint(4, 20) / 4,
            "overall_score": float(rng.randint(1, 10)),
        }

    with path.open("wb") as file:
        for number in tqdm(range(prompts), desc="generate", disable=None):
            completions = [complete() for _ in range(4)]
            record = {
                "source": rng.choice(("evol_instruct", "false_qa", "flan_v2_niv2", "sharegpt", "ultrachat")),
                "instruction": f"{number}: {text(600)}",
                "models": [completion["model"] for completion in completions],
                "completions": completions,
                "correct_answers": ["None"],
                "incorrect_answers": ["None"],
            }
            file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))


def run_rmkit(raw: Path, output: Path, workers: int) -> None:
    """The job with rmkit: what data_prep/prepare.py does, without validation rows."""
    from rmkit.data import DATASETS  # noqa: PLC0415 - each run loads what it needs, and no more
    from rmkit.preparation.published import PreparationSettings, prepare_published  # noqa: PLC0415

    settings = PreparationSettings(validation_fraction=0.0, workers=workers)
    prepare_published(DATASETS["ultrafeedback"], output, str(raw), settings=settings)


def run_datasets(raw: Path, output: Path, workers: int) -> None:
    """The same job with `datasets`, as its pages on batch mapping and on loading and saving teach."""
    from datasets import load_dataset  # noqa: PLC0415 - as above

    from rmkit.prompts import render_rubric  # noqa: PLC0415 - the rubric's text alone
    from rmkit.rubric import load_rubric  # noqa: PLC0415

    opening = render_rubric(load_rubric("ultrafeedback"))
    names = {aspect: aspect.replace("_", " ").capitalize() for aspect in ASPECTS}
    request = 'Rate the response on each attribute, in order, as "Name: score, Name: score". Write nothing else.'

    def convert(batch: Mapping[str, list[Any]], indices: list[int]) -> dict[str, list[Any]]:
        rows: dict[str, list[Any]] = {name: [] for name in COLUMNS}
        for index, source, instruction, completions in zip(
            indices, batch["source"], batch["instruction"], batch["completions"], strict=True
        ):
            for letter, completion in zip("abcdefgh", completions, strict=False):
                annotations = completion["annotations"]
                ratings = {aspect: annotations[aspect]["Rating"] for aspect in ASPECTS}
                scores = {aspect: int(rating) for aspect, rating in ratings.items() if rating != "N/A"}
                response = completion["response"]
                prompt = f"{opening}[User]\n{instruction}\n\n[Response]\n{response}\n\n{request}"
                sequence = ", ".join(f"{names[aspect]}: {score}" for aspect, score in scores.items())
                rows["id"].append(f"ultrafeedback/{index:06d}{letter}")
                rows["source"].append("ultrafeedback")
                rows["prompt"].append([{"role": "user", "content": prompt}])
                rows["completion"].append([{"role": "assistant", "content": sequence}])
                rows["scores"].append(scores)
                rows["conversation"].append([{"role": "user", "content": instruction}])
                rows["response"].append(response)
                rows["reference"].append(None)
                rows["rubric"].append(None)
                rows["derived"].append([])
                rows["metadata"].append({"source": source, "model": completion["model"]})
        return rows

    num_proc = workers if workers > 1 else None
    data = load_dataset("json", data_files=str(raw), split="train", cache_dir=str(output / "cache"))
    rows = data.map(convert, batched=True, with_indices=True, remove_columns=data.column_names, num_proc=num_proc)
    rows.to_json(output / "train.jsonl", num_proc=num_proc, force_ascii=False)


COLUMNS = (
    "id", "source", "prompt", "completion", "scores", "conversation", "response", "reference", "rubric", "derived",
    "metadata",
)  # fmt: skip
TOOLS = {"rmkit": run_rmkit, "datasets": run_datasets}


@dataclass(frozen=True)
class Run:
    """What one run took.

    Args:
        seconds: From the start of its process to the end.
        cpu: Seconds that all its processes together kept a core busy.
        peak: Most memory of all its processes together, in bytes: the sum of their resident sets.
        private: The same without what is mapped from files.
    """

    seconds: float
    cpu: float
    peak: int
    private: int


def measure(tool: str, raw: Path, output: Path, workers: int) -> Run:
    """Run a tool in a process of its own, in an empty folder."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    os.sync()  # or the last run's output is written to the disk during this one
    command = [sys.executable, __file__, "--run", tool, str(raw), str(output), str(workers)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    begin = time.perf_counter()
    process = subprocess.Popen(command, env=environment)
    peaks = [0, 0]
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(PEAK_INTERVAL):
            for index, size in enumerate(measure_memory(process.pid)):
                peaks[index] = max(peaks[index], size)

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    ended.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"error: {' '.join(command)} ended with {process.returncode}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, *peaks)


def measure_memory(pid: int) -> tuple[int, int]:
    """Memory of a process and all below it, in bytes: resident, and resident but not mapped from files."""
    resident = private = 0
    try:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with process.oneshot():
                memory = process.memory_info()
            resident += memory.rss
            private += memory.rss - memory.shared
    except psutil.Error:  # one has just ended
        pass
    return resident, private


def check_same(first: Path, second: Path) -> int:
    """Compare the rows of two outputs, whose order and keys with null scores may differ; return their number."""
    count = 0
    for one, other in zip(read_rows(first), read_rows(second), strict=True):
        if one != other:
            raise SystemExit(f"error: {first} and {second} differ in {one['id']}")
        count += 1
    return count


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of an output; a score that Arrow has filled up with null counts as left out."""
    with path.open("rb") as file:
        for line in file:
            row = orjson.loads(line)
            row["scores"] = {key: score for key, score in row["scores"].items() if score is not None}
            yield row


def report(title: str, runs: Mapping[tuple[str, int], list[Run]], rows: int) -> str:
    """A Markdown table: rows per second, ratios of the medians, and memory."""
    lines = [
        f"{title}: {rows:,} rows",
        "",
        "| tool | processes | rows/s median | least | most | to datasets | CPU µs/row | peak, MB | without files |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    medians = {key: statistics.median(rows / run.seconds for run in found) for key, found in runs.items()}
    for (tool, workers), found in runs.items():
        rates = [rows / run.seconds for run in found]
        other = medians.get(("datasets", workers))
        ratio = f"{medians[tool, workers] / other:.2f}" if tool == "rmkit" and other else ""
        cpu = statistics.median(run.cpu for run in found) / rows * 1e6
        peak, private = max(run.peak for run in found), max(run.private for run in found)
        lines.append(
            f"| {tool} | {workers} | {medians[tool, workers]:,.0f} | {min(rates):,.0f} | {max(rates):,.0f} | {ratio} "
            f"| {cpu:.1f} | {peak / 1e6:,.0f} | {private / 1e6:,.0f} |"
        )
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=layout)
    parser.add_argument("--prompts", type=int, default=64_000, metavar="N", help="raw records (default: 64000)")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="runs of each tool (default: 3)")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[1, 2], metavar="N", help="processes (default: 1 and 2)"
    )
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS), help="which (default: both)")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/benchmark_data_prep"), metavar="DIR", help="for files; 8 GB"
    )
    parser.add_argument("--keep", action="store_true", help="keep the generated file")
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)  # one run, in its own process
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    args = build_parser().parse_args(argv)
    if args.run:
        tool, raw, output, workers = args.run
        TOOLS[tool](Path(raw), Path(output), int(workers))
        return 0
    args.folder.mkdir(parents=True, exist_ok=True)
    sizes = {"half": args.prompts // 2, "full": args.prompts}
    files = {}
    for title, prompts in sizes.items():
        files[title] = args.folder / f"raw_{prompts}.jsonl"
        if not files[title].exists():
            temporary = files[title].with_suffix(".tmp")
            generate(temporary, prompts)
            temporary.replace(files[title])
    settings = [(tool, workers) for workers in args.workers for tool in args.tools]
    for title, prompts in sizes.items():
        raw, rows = files[title], 4 * prompts
        repeats = args.repeats if title == "full" else 1  # half the rows are run for their memory
        runs: dict[tuple[str, int], list[Run]] = {setting: [] for setting in settings}
        for repeat in range(repeats):
            for tool, workers in settings:
                output = args.folder / tool
                run = measure(tool, raw, output, workers)
                runs[tool, workers].append(run)
                print(f"{title} {tool} {workers}: {run.seconds:.1f} s", file=sys.stderr, flush=True)
            if repeat == 0 and len(args.tools) > 1:
                same = check_same(*(args.folder / tool / "train.jsonl" for tool in args.tools))
                print(f"{title}: {same:,} rows are the same", file=sys.stderr, flush=True)
        print(report(f"{title.capitalize()} ({raw.stat().st_size / 1e6:,.0f} MB raw)", runs, rows), end="\n\n")
    versions = ", ".join(f"{name} {version(name)}" for name in ("rmkit", "datasets", "pyarrow", "orjson"))
    print(f"Python {platform.python_version()}, {versions}; {os.cpu_count()} cores")
    for tool in args.tools:
        shutil.rmtree(args.folder / tool, ignore_errors=True)
    if not args.keep:
        for file in files.values():
            file.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
