"""A service that scores answers over HTTP, as judge http asks it: the longer, the better."""

import json
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Row = Mapping[str, Any]
HANG = "hang"


@dataclass(frozen=True)
class Reply:
    body: Any  # bytes as they are, HANG for no reply, anything else as JSON
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    rows: Sequence[Row]
    headers: Mapping[str, str]
    path: str
    at: float  # seconds, time.monotonic

    @property
    def ids(self) -> list[str]:
        return [row["id"] for row in self.rows]


def score(row: Row) -> float:
    return float(len(row["completion"]))


def scores(request: Request, before: int) -> Reply:
    return Reply({"scores": [score(row) for row in request.rows]})


Answer = Callable[[Request, int], Reply]  # of a request and how many came before it


class ScoreServer:
    """Answers at `url` while its block lasts. `requests` are all that it was sent, `most` the most at a time."""

    def __init__(self, answer: Answer = scores, *, delay: float = 0.0) -> None:
        self.answer, self.delay = answer, delay
        self.requests: list[Request] = []
        self.busy = self.most = 0
        self.closing, self.lock = threading.Event(), threading.Lock()
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.scores = self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/score"

    def __enter__(self) -> "ScoreServer":
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    scores: ScoreServer


class _Handler(BaseHTTPRequestHandler):
    server: _Http

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        server = self.server.scores
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = Request(body["rows"], dict(self.headers.items()), self.path, time.monotonic())
        with server.lock:
            reply = server.answer(request, len(server.requests))
            server.requests.append(request)
            server.busy += 1
            server.most = max(server.most, server.busy)
        try:
            server.closing.wait(server.delay)
            self._send(reply)
        finally:
            with server.lock:
                server.busy -= 1

    def _send(self, reply: Reply) -> None:
        if reply.body == HANG:
            self._hang()
            return
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(body)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _hang(self) -> None:
        """Say nothing until the caller hangs up, or the server closes."""
        while not self.server.scores.closing.is_set():
            if select.select([self.connection], [], [], 0.02)[0] and not self.connection.recv(1, socket.MSG_PEEK):
                return
