"""A server that speaks OpenAI's chat completions over HTTP, knows every right verdict, and spoils calls as it is told.

An answer states its merit, as in "merit 17"; the greater merit is the better answer. As a program it judges into a
store: python -m tests.helpers.flaky_server URL STORE COUNT.
"""

import hashlib
import json
import math
import os
import re
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from sparring.judges.llm import LLMJudge, llm_judge
from sparring.loop.types import Group, Prompt
from sparring.store.store import DuckStore
from tests.helpers.experience import completion

KINDS = ("hang", "429", "500", "cut", "cut body", "prose", "both", "refusal", "refused", "not json", "reset")
EMPTY: Mapping[str, str] = {}
P_RIGHT = 0.7 + 0.1  # of the right label, as two tokens
P_WRONG = 0.1
IN_FLIGHT = 4  # of the program

Spoil = Callable[[str, int], str]  # of a question's text and how often it was asked before: a kind, or ""


def seeded(share: float, seed: int = 0) -> Spoil:
    """Spoils about `share` of the calls, each in a way that its text and its number decide."""

    def kind(text: str, before: int) -> str:
        drawn = hashlib.sha256(f"{seed} {before} {text}".encode()).digest()
        spoilt = int.from_bytes(drawn[:4]) < share * 2**32
        return KINDS[int.from_bytes(drawn[4:8]) % len(KINDS)] if spoilt else ""

    return kind


def never(text: str, before: int) -> str:
    return ""


@dataclass(frozen=True)
class Call:
    text: str  # of the question
    spoilt: str
    at: float  # seconds, time.monotonic
    body: dict[str, Any] = field(repr=False)


class FlakyServer:
    """Answers at `url` while its block lasts. `calls` are all it was asked, `most` the most at the same time."""

    def __init__(
        self, spoil: Spoil = never, *, delay: float = 0.0, always: str = "", retry_after: str = "0.05"
    ) -> None:
        self.spoil, self.delay, self.always, self.retry_after = spoil, delay, always, retry_after
        self.calls: list[Call] = []
        self.busy, self.most, self.lost = 0, 0, 0
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.flaky = self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> "FlakyServer":
        threading.Thread(target=self._http.serve_forever, args=(0.02,), name="flaky", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()

    def enter(self, text: str, body: dict[str, Any]) -> str:
        with self.lock:
            spoilt = self.spoil(text, sum(call.text == text for call in self.calls))
            self.calls.append(Call(text, spoilt, time.monotonic(), body))
            self.busy += 1
            self.most = max(self.most, self.busy)
        return spoilt

    def leave(self) -> None:
        with self.lock:
            self.busy -= 1


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    flaky: FlakyServer


class _Handler(BaseHTTPRequestHandler):
    server: _Http  # HTTP/1.0, the default: one call a connection, so that none is lost without being seen

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        flaky = self.server.flaky
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        spoilt = flaky.enter(body["messages"][0]["content"], body)
        try:
            flaky.closing.wait(flaky.delay)
            self._respond(spoilt, body)
        except OSError:
            flaky.lost += 1
        finally:
            flaky.leave()

    def _respond(self, spoilt: str, body: dict[str, Any]) -> None:
        flaky = self.server.flaky
        if spoilt == "hang":
            self._hang()
        elif spoilt == "drip":
            self._drip()
        elif spoilt == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        elif spoilt.isdigit():
            # The header is repeated, as a careless gateway does: no key may get into a record or a message. And half a
            # character, which no store can hold.
            error = {"error": {"message": f"spoilt, with {self.headers['Authorization']} \ud83d"}}
            self._send(int(spoilt), json.dumps(error), {"Retry-After": flaky.retry_after} if spoilt == "429" else EMPTY)
        else:
            text = json.dumps(_completion(spoilt, body, flaky.always, self.headers["Authorization"]))
            self._send(200, text, cut=spoilt == "cut body")

    def _hang(self) -> None:
        """Say nothing until the caller hangs up, or the server closes."""
        while not self.server.flaky.closing.is_set():
            if select.select([self.connection], [], [], 0.02)[0] and not self.connection.recv(1, socket.MSG_PEEK):
                return

    def _drip(self) -> None:
        """Send a space now and then: something always comes, and it never ends."""
        self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n")
        while not self.server.flaky.closing.wait(0.05):
            self.wfile.write(b" ")

    def _send(self, status: int, text: str, headers: Mapping[str, str] = EMPTY, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(text)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode()[: len(text) // 2 if cut else None])


def _completion(spoilt: str, body: dict[str, Any], always: str, key: str) -> dict[str, Any]:
    """The body of a response: a right verdict in the form that was asked for, spoilt or not."""
    merits = [int(found) for found in re.findall(r"merit (\d+)", body["messages"][0]["content"])]
    text, wrong = always or ("A" if merits[0] > merits[-1] else "B"), "B" if (always or merits[0] > merits[-1]) else "A"
    logprobs: dict[str, Any] | None = None
    if body.get("logprobs"):
        assert body["max_tokens"] == 1 and body["top_logprobs"] == 20 and body["temperature"] == 0
        first = [(text, 0.7), (f" {text}", 0.1), (wrong, P_WRONG), ("The", 0.05)]
        listed = [{"token": token, "logprob": math.log(p), "bytes": None} for token, p in first]
        logprobs = {"content": [listed[0] | {"top_logprobs": listed}]}
    elif "response_format" in body:
        schema = body["response_format"]["json_schema"]["schema"]
        assert body["response_format"]["json_schema"]["strict"] and body["temperature"] == 0
        told = {"verdict": text} if "verdict" in schema["properties"] else {"score": merits[0]}
        text = json.dumps({"rationale": f"Said to {key}: more merit."} | told)
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if spoilt:
        message, logprobs = _spoil(spoilt, text, wrong), None
    choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": "stop"}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [choice],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    }


def _spoil(kind: str, text: str, wrong: str) -> dict[str, Any]:
    """A message that is no verdict, though it looks like one, or (prose) is one with words around it."""
    if kind == "refused":
        return {"role": "assistant", "content": None, "refusal": "I cannot judge this."}
    in_json = text.startswith("{")
    contents = {
        "cut": text[: len(text) - 2] if in_json else "",
        "cut body": text,
        "prose": f"Sure! Here it is:\n```json\n{text}\n```\nI hope this helps." if in_json else f"I say {text}.",
        "both": f"{text}\n{json.dumps({'rationale': 'or', 'verdict': wrong})}" if in_json else f"{text} or {wrong}",
        "refusal": "I'm sorry, but as an AI I cannot say which answer is better.",
        "not json": f"The verdict is {wrong}",
    }
    return {"role": "assistant", "content": contents[kind]}


def groups(count: int, answers: int = 2) -> list[Group]:
    """`count` prompts with `answers` each, no two of one merit; which is better does not hang on the place."""
    made = []
    for i in range(count):
        prompt = Prompt.make([{"role": "user", "content": f"question {i}"}], "train", "", {})
        merits = [(37 * i + 61 * k * (-1) ** i) % 1009 for k in range(answers)]
        made.append(Group(prompt, tuple(completion(prompt.id, k, f"merit {m}") for k, m in enumerate(merits))))
    return made


def merit(text: str) -> int:
    return int(text.split()[1])


def endpoint(url: str, **options: Any) -> dict[str, Any]:
    """Options that are patient enough for a busy machine, and quick."""
    return {"base_url": url, "timeout": 1.5, "backoff": 0.01, "concurrency": 8, **options}


def judge_into(store: DuckStore, url: str, count: int) -> LLMJudge:
    """Judge what the store does not hold yet, each chunk in one transaction."""
    judge = llm_judge(model="judge", verdict="json", endpoint=endpoint(url, concurrency=IN_FLIGHT))
    everything = groups(count)
    ids = [c.id for g in everything for c in g.completions]
    known = store.judged(judge.name, ids) if store.db.path.exists() else []
    store.add(judge.judge([replace(g, judged=tuple(known)) for g in everything]))
    return judge


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    judge_into(DuckStore(Path(sys.argv[2])), sys.argv[1], int(sys.argv[3]))
