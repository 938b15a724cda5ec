"""A server that judges like an LLM over OpenAI's protocol: the answer with more different letters is better.

Its rationale names both. It knows the prompts of judges/prompts/pairwise.jinja and pairwise_json.jinja.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import log
from typing import Any

ANSWER = re.compile(r"BEGIN ANSWER (\w+) \w+\n(.*?)\nEND ANSWER", re.DOTALL)


@contextmanager
def verdict_server() -> Iterator[str]:
    """Its base URL, while the block lasts."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found = _verdict(body["messages"][0]["content"])
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        content = json.dumps(found)
        if body.get("logprobs"):
            label = _label(found["verdict"])
            choice["logprobs"], content = {"content": [label]}, label["token"]
        choice["message"] = {"role": "assistant", "content": content}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        told = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice]}
        text = json.dumps(told | {"usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def _verdict(prompt: str) -> dict[str, str]:
    (a, first), (b, second) = ANSWER.findall(prompt)
    letters = len(set(first)), len(set(second))
    verdict = "tie" if letters[0] == letters[1] else a if letters[0] > letters[1] else b
    return {"rationale": f"{first} has {letters[0]} letters, {second} {letters[1]}", "verdict": verdict}


def _label(verdict: str) -> dict[str, Any]:
    """The label as the next token, at 3 to 1; both alike where neither answer is better."""
    p = {"tie": 0.5, "A": 0.75, "B": 0.25}[verdict]
    a, b = ({"token": t, "logprob": log(q), "bytes": None} for t, q in (("A", p), ("B", 1 - p)))
    return (b if p < 0.5 else a) | {"top_logprobs": [a, b]}
