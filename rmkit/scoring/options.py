"""Command-line options of every script that scores, and what follows from them."""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import hf_hub_download

from rmkit.calibration import Calibration
from rmkit.console import positive, write_out
from rmkit.engines import DTYPES, ENGINES
from rmkit.errors import JudgeError
from rmkit.judge_config import MODES
from rmkit.manifest import sha256_file
from rmkit.prompts import PROMPT_VERSION
from rmkit.rubric import Rubric, load_rubric, ready_rubrics
from rmkit.scoring.items import InputKind, ScoreInput, find_input
from rmkit.scoring.run import ChunkJudge, ScoringSummary, score_file

if TYPE_CHECKING:
    from rmkit.judge import Judge

_JUDGE_FILES = (
    "config.json",
    "judge_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "*.safetensors",
)
_SAMPLES, _SAMPLE_BYTES = 64, 65_536  # 4 MiB of a large file: weights of another training differ everywhere

_ENGINE_OPTIONS = {
    "transformers": ("device",),
    "vllm": ("tensor_parallel_size",),
    "http": ("url", "served_model", "concurrency", "timeout", "retries"),
}

_BATCH_SIZES = {"cuda": 256, "cpu": 32, "ray": 64}  # on a CPU a chunk takes long, and a chunk is what a kill can lose


def add_scoring_options(
    parser: argparse.ArgumentParser, required: bool = True, several_judges: bool = False
) -> list[str]:
    """Add the options that say which judge scores, and how; `--input` and `--output` are the script's own.

    Args:
        parser: The script's parser.
        required: Whether the script can do nothing without a judge.
        several_judges: Whether `--judge` may be given several times, and so gives a list.

    Returns:
        Their names in the parsed options.
    """
    group = parser.add_argument_group("judge")
    options = [
        group.add_argument(
            "--judge",
            required=required,
            action="append" if several_judges else "store",
            metavar="DIR|HUB_ID",
            help="judge folder that train/train.py wrote; or any instruct model with --rubric: the zero-shot baseline"
            + ("; several times: all are scored and compared" if several_judges else ""),
        ),
        group.add_argument(
            "--rubric",
            metavar="NAME|FILE",
            help=f"only for a model that is no trained judge: {', '.join(ready_rubrics())}, or a .yaml file",
        ),
        group.add_argument(
            "--engine",
            choices=ENGINES,
            default="vllm",
            help="vllm is fast, transformers the reference, http a server that runs the judge (default: vllm)",
        ),
        group.add_argument(
            "--dtype",
            choices=DTYPES,
            default="auto",
            help="auto: the checkpoint's own on a GPU, float32 on a CPU (default: auto); not for http",
        ),
        group.add_argument(
            "--device", help="only for transformers: cpu, cuda, cuda:1 (default: a GPU where there is one)"
        ),
        group.add_argument(
            "--tensor-parallel-size",
            type=positive,
            metavar="N",
            help="only for vllm: GPUs per copy of the model (default: 1)",
        ),
        group.add_argument(
            "--data-parallel-size",
            type=positive,
            metavar="N",
            help="only 1 here: for N copies of the model use evaluate/score_ray.py, or a server and --engine http",
        ),
        group.add_argument(
            "--url", help="only for http, which needs it: address of the server, such as http://127.0.0.1:8000"
        ),
        group.add_argument(
            "--served-model",
            metavar="NAME",
            help="only for http: the server's name for the judge (default: its only model)",
        ),
        group.add_argument(
            "--concurrency",
            type=positive,
            metavar="N",
            help="only for http: requests that wait for the server at a time (default: 32)",
        ),
        group.add_argument(
            "--timeout", type=positive, metavar="SECONDS", help="only for http: wait for one answer (default: 300)"
        ),
        group.add_argument(
            "--retries",
            type=int,
            metavar="N",
            help="only for http: how often a request is repeated, with growing waits, that met no server or an "
            "overloaded one (default: 5)",
        ),
        group.add_argument(
            "--mode",
            choices=MODES,
            help="how attributes are read: behind the scores before, or each by itself. A judge brings its own; for a "
            "model used zero-shot (default: sequential)",
        ),
        group.add_argument("--limit", type=positive, metavar="N", help="score only the first N rows of the input"),
        group.add_argument(
            "--truncate-turns",
            action="store_true",
            help="leave out the oldest turns of a conversation that is too long and say so in the record; without it, "
            "such a response gets an error record",
        ),
        group.add_argument(
            "--calibration",
            type=Path,
            metavar="FILE",
            help="of evaluate/calibrate.py: writes rescaled numbers beside the raw ones, which stay what counts",
        ),
        group.add_argument(
            "--retry-errors",
            action="store_true",
            help="judge responses anew that failed before; else errors are final",
        ),
        group.add_argument(
            "--batch-size",
            type=positive,
            metavar="N",
            help="responses handed to the engine, and then written, at a time "
            f"(default: {_BATCH_SIZES['cuda']} on a GPU, {_BATCH_SIZES['cpu']} on a CPU)",
        ),
    ]
    return [option.dest for option in options]


def parse_scoring_arguments(
    argv: Sequence[str] | None, description: str | None, epilog: str, input_help: str
) -> argparse.Namespace:
    """The command line of a script that scores one file into one folder.

    Args:
        argv: The arguments; None for those of the process.
        description: What `--help` says first.
        epilog: What it says last.
        input_help: What it says of `--input`.
    """
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, epilog=epilog, formatter_class=layout)
    parser.add_argument("--input", required=True, type=Path, metavar="FILE|DIR", help=input_help)
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for the scores")
    add_scoring_options(parser)
    return parser.parse_args(argv)


Spread = Callable[[Callable[[], "Judge"], Rubric, str], ChunkJudge]
"""Makes a judge in several processes from what loads a copy, its rubric and its read-out."""


def score_with_options(
    options: argparse.Namespace, kind: InputKind, path: Path, output: Path, spread: Spread | None = None
) -> ScoringSummary:
    """Score a file, or what is still missing of it, as the options of `add_scoring_options` say.

    Args:
        options: The parsed options.
        kind: What the file holds.
        path: The file, or a folder that `data_prep/prepare.py` wrote.
        output: The scoring folder.
        spread: Makes the judge that is used, if it is not to be one in this process.

    Raises:
        DataError: If the input or the folder can't be used.
        JudgeError: If an option does not go with the engine, or the judge can't be loaded or run.
        RubricError: If the rubric can't be read.
        TokenizerError: If the judge's tokenizer can't serve.
    """
    engine_options = _read_engine_options(options)
    source = ScoreInput(find_input(path, kind), kind, options.limit)
    rubric = load_rubric(options.rubric) if options.rubric else None
    name, fingerprint = identify_judge(options.judge)
    if options.engine == "http":
        device = "server"
    else:
        device = "ray" if spread else _device_type(options.device)
    settings = {
        "judge": name,
        "judge_sha256": fingerprint,
        "rubric": rubric.to_dict() if rubric else None,
        "engine": options.engine,
        "dtype": options.dtype,
        "device": device,
        "truncate": options.truncate_turns,
        "prompt_version": PROMPT_VERSION,
        **({"mode": options.mode} if options.mode else {}),
    }
    calibration = None
    if options.calibration is not None:
        calibration = Calibration.load(options.calibration)
        calibration.check_judge(fingerprint, str(options.calibration))
        settings["calibration_sha256"] = sha256_file(options.calibration)

    # In another process, the folder it runs in may be another.
    path_of_judge = str(Path(options.judge).resolve()) if Path(options.judge).is_dir() else options.judge

    def load() -> Judge:
        from rmkit.judge import Judge  # noqa: PLC0415 (heavy: --help and a finished scoring do without)

        load_options = {"truncate": options.truncate_turns, "mode": options.mode, **engine_options}
        return Judge.load(path_of_judge, options.engine, rubric, **load_options)

    def load_spread() -> ChunkJudge:
        from rmkit.judge import find_rubric  # noqa: PLC0415 (heavy, as above)

        assert spread is not None
        config, known = find_rubric(options.judge, rubric)
        return spread(load, known, config.readout if config else "mean")

    batch_size = options.batch_size or _BATCH_SIZES.get(device, _BATCH_SIZES["cuda"])
    loader: Callable[[], Judge | ChunkJudge] = load_spread if spread else load
    return score_file(loader, source, output, settings, batch_size, options.retry_errors, calibration)


def score_and_print(options: argparse.Namespace, kind: InputKind, spread: Spread | None = None) -> int:
    """Score `--input` into `--output` as `score_with_options` does, print the summary, return the exit status."""
    summary = score_with_options(options, kind, options.input, options.output, spread)
    write_out(summary.render())
    return summary.exit_status


def score_in_turn(
    options: argparse.Namespace, judges: Sequence[str], kind: InputKind, path: Path, outputs: Sequence[Path]
) -> list[ScoringSummary]:
    """Score a file with several judges, one after another, as `score_with_options` does with one.

    Each has a process of its own, which leaves nothing of it in memory when the next one comes. Before the first
    scores, all are seen to exist and to have a rubric.

    Raises:
        JudgeError: If a process dies. Otherwise as `score_with_options`.
    """
    from rmkit.judge import find_rubric  # noqa: PLC0415 (heavy: --help does without)

    rubric = load_rubric(options.rubric) if options.rubric else None
    for judge in judges:
        identify_judge(judge)
        find_rubric(judge, rubric)
    summaries = []
    for judge, output in zip(judges, outputs, strict=True):
        one = argparse.Namespace(**{**vars(options), "judge": judge})
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            try:
                summaries.append(process.submit(score_with_options, one, kind, path, output).result())
            except BrokenProcessPool as error:
                raise JudgeError(
                    f"the process that scored with {judge} was killed, perhaps for want of memory; the same command "
                    "goes on from there"
                ) from error
    return summaries


def _read_engine_options(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of the engine.

    Raises:
        JudgeError: If an option belongs to another engine, or one is missing.
    """
    for engine, names in _ENGINE_OPTIONS.items():
        for name in names:
            if engine != options.engine and getattr(options, name) is not None:
                raise JudgeError(f"--{name.replace('_', '-')} belongs to --engine {engine}; leave it out")
    given = {name: getattr(options, name) for name in _ENGINE_OPTIONS[options.engine]}
    found = {name: value for name, value in given.items() if value is not None}
    if (options.data_parallel_size or 1) > 1:
        raise JudgeError(
            "--data-parallel-size: vLLM runs one copy of a model in a process; for several use evaluate/score_ray.py "
            f"--workers {options.data_parallel_size}, or a server that has this option, with --engine http"
        )
    if options.engine != "http":
        return {"dtype": options.dtype, **found}
    if options.url is None:
        raise JudgeError("--engine http needs the --url of the server that runs the judge")
    if options.dtype != "auto":
        raise JudgeError("--dtype is the server's to choose with --engine http; leave it out")
    if "served_model" in found:
        found["model"] = found.pop("served_model")
    return found


def identify_judge(path: str) -> tuple[str, str]:
    """A judge's name, without where it lies, and what tells it from every other judge.

    Returns:
        For a folder, its name and a SHA-256 over its config, tokenizer, and samples of its weights, so that the
        same judge trained further is another one. For a hub id, the id and the commit.

    Raises:
        JudgeError: If there is no such judge.
    """
    folder = Path(path)
    if folder.is_dir():
        digest = hashlib.sha256()
        for pattern in _JUDGE_FILES:
            for file in sorted(folder.glob(pattern)):
                digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
                _add_samples(digest, file)
        return folder.resolve().name, digest.hexdigest()
    if folder.exists() or path.startswith((".", "/")):
        raise JudgeError(f"there is no judge folder {path}")
    try:
        return path, Path(hf_hub_download(path, "config.json")).parent.name
    except (OSError, ValueError) as error:
        raise JudgeError(
            f"{path} is neither a folder here nor a model on the hub that can be reached: {error}"
        ) from error


def _add_samples(digest: Any, file: Path) -> None:
    size = file.stat().st_size
    with file.open("rb") as data:
        if size <= _SAMPLES * _SAMPLE_BYTES:
            digest.update(data.read())
            return
        for sample in range(_SAMPLES):
            data.seek((size - _SAMPLE_BYTES) * sample // (_SAMPLES - 1))
            digest.update(data.read(_SAMPLE_BYTES))


def _device_type(device: str | None) -> str:
    """`cpu` or `cuda`: with `--dtype auto` they give different numbers."""
    if device is not None:
        return device.partition(":")[0]
    import torch  # noqa: PLC0415 (heavy: --help does without)

    return "cuda" if torch.cuda.is_available() else "cpu"
