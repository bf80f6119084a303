"""A judge behind HTTP that can be told to fail in ways in which a whole server does not."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rmkit.judge import Judge
from rmkit.schema import JudgeItem


class FaultyServer(ThreadingHTTPServer):
    """Answers `/health` and `/score` as a judge server does, until it is told to fail; no other path works.

    Attributes:
        fault: `garbage`, `nan`, `half` (of the rows), `strange` (attributes), `gone` (503), `busy` (429), `late`, or
            None for right answers.
        health: What `/health` answers.
        asked: Number of items that `/score` was asked about.
        late: What the fault `late` waits for.
    """

    daemon_threads = True

    def __init__(self, judge: Judge) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.judge = judge
        self.fault: str | None = None
        self.health = {
            "judge": "tiny",
            "judge_sha256": "abc",
            "mode": judge.mode,
            "readout": judge.readout,
            "max_length": judge.max_length,
            "rubric": judge.rubric.to_dict(),
            "open_items": 0,
        }
        self.asked = 0
        self.lock = threading.Lock()
        self.late = threading.Event()

    def start(self) -> None:
        """Serve in a thread."""
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self.late.set()
        self.shutdown()
        self.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def score(self, items: list[JudgeItem]) -> list[dict[str, Any]]:
        self.asked += len(items)
        judged = self.judge.score(
            [item.conversation for item in items],
            [item.response for item in items],
            [item.reference for item in items],
            [item.rubric for item in items],
        )
        return [judgment.to_dict() for judgment in judged]


class _Handler(BaseHTTPRequestHandler):
    server: FaultyServer

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.health["open_items"] += 1  # it is never the same
        found = {"data": [{"id": "tiny"}]} if self.path == "/v1/models" else self.server.health
        self._answer(503 if self.server.fault in ("gone", "busy") else 200, json.dumps(found))

    def do_POST(self) -> None:
        data = json.loads(self.rfile.read(int(self.headers["content-length"])))
        fault = self.server.fault
        if fault in ("gone", "busy") or self.path != "/score":
            return self._answer(429 if fault == "busy" else 503, "{}")
        if fault == "late":
            self.server.late.wait(60)
        with self.server.lock:
            judgments = self.server.score([JudgeItem.from_dict(item) for item in data["items"]])
        if fault == "nan":
            judgments[0]["aggregate"] = float("nan")
        if fault == "strange":
            judgments = [
                {**judged, "attributes": {"charm": judged["attributes"]["verbosity"]}} for judged in judgments
            ]
        if fault == "half":
            judgments = judgments[: len(judgments) // 2]
        text = "<html>It works!</html>" if fault == "garbage" else json.dumps({"judgments": judgments})
        with suppress(ConnectionError if fault == "late" else ()):
            self._answer(200, text)

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())
