"""What the server counts, in Prometheus's form."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from rmkit.schema import Judgment
from rmkit.server.dispatcher import Dispatcher

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "rmkit_requests", "Requests that were answered", ["path", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "rmkit_request_seconds",
            "Seconds from a request's headers to its answer",
            ["path"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._accepted = Counter("rmkit_accepted_items", "Items that were accepted", registry=self._registry)
        self._judgments = Counter(
            "rmkit_judgments",
            "Judgements, by outcome: judged, truncated, failed",
            ["outcome"],
            registry=self._registry,
        )
        self._tokens = Counter("rmkit_prompt_tokens", "Tokens of judged prompts", registry=self._registry)
        self._batches = Histogram(
            "rmkit_batch_items", "Items that the engine was given at a time", buckets=_ITEMS, registry=self._registry
        )
        self._open = Gauge("rmkit_open_items", "Items that wait or are being judged", registry=self._registry)

    def watch(self, dispatcher: Dispatcher) -> None:
        """Report how many items are open there."""
        self._open.set_function(lambda: dispatcher.open_items)

    def count_batch(self, items: int) -> None:
        """Count items that the engine was given together."""
        self._batches.observe(items)

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def count_accepted(self, items: int) -> None:
        """Count items that found a place."""
        self._accepted.inc(items)

    def count_judgments(self, judgments: Sequence[Judgment]) -> None:
        """Count judgements by what became of them."""
        for judgment in judgments:
            outcome = "failed" if judgment.error is not None else "truncated" if judgment.truncated else "judged"
            self._judgments.labels(outcome).inc()
            self._tokens.inc(judgment.prompt_tokens)

    def render(self) -> bytes:
        """All of them, in Prometheus's text form."""
        return generate_latest(self._registry)
