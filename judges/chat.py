"""OpenAI's chat completions protocol: a question as a request, and the answer in a response's body."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparring.judges.calls import Heard
from sparring.judges.llm_client import Question
from sparring.judges.verdicts import ROUNDING, by_label, storable, unreadable

TOP = 20  # the most log-probs per token that the protocol allows
KEPT = 2000  # characters kept of a body that is not an answer


@dataclass(frozen=True)
class Said(Heard):
    """The outcome of one call."""

    logprobs: Mapping[str, float] = field(default_factory=dict)


def request(question: Question, model: str) -> dict[str, Any]:
    """The arguments of `chat.completions.create`: greedy, for one token with log-probs or for JSON under a schema."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [dict(m) for m in question.messages],
        "temperature": 0,
        "max_tokens": question.max_tokens,
    }
    if question.labels:
        body |= {"max_tokens": 1, "logprobs": True, "top_logprobs": TOP}
    elif question.schema is not None:
        form = {"name": "answer", "strict": True, "schema": dict(question.schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    return body


def read(body: str, question: Question) -> Said:
    """The answer in the body of a response with status 200. Every field may be missing or of the wrong type."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return Said(storable(body[:KEPT]), "the body is cut or no JSON")
    choice = _at(data, "choices", 0)
    text = _at(choice, "message", "content")
    refusal = _at(choice, "message", "refusal")
    logprobs, error = _first_token(_at(choice, "logprobs", "content"), question.labels, text)
    if isinstance(refusal, str) and refusal:
        text, error = refusal, "the model refused"
    elif not isinstance(text, str):
        text, error = body[:KEPT], "the body has no text"
    elif _at(choice, "finish_reason") == "content_filter":
        error = "stopped by the endpoint's content filter"
    elif _at(choice, "finish_reason") == "length" and not question.labels:
        error = f"cut at {question.max_tokens} tokens"
    return Said(
        storable(text),
        error or unreadable(question, text, logprobs),
        _count(_at(data, "usage", "prompt_tokens")),
        _count(_at(data, "usage", "completion_tokens")),
        {} if error else logprobs,
    )


def _first_token(tokens: Any, labels: Sequence[str], text: Any) -> tuple[dict[str, float], str]:
    """(log P of each label as the first token, summed over tokens that differ in surrounding space, error)."""
    if not labels or not isinstance(tokens, list) or not tokens:
        return {}, ""
    written = _at(tokens, 0, "token")
    if len(tokens) > 1 or not isinstance(written, str) or text not in (written, written.strip(), ""):
        return {}, "more came than the one token that was asked for"
    listed = _at(tokens, 0, "top_logprobs")
    likely = {}  # by token: the token that was written may be listed too
    for entry in [*(listed if isinstance(listed, list) else ()), tokens[0]]:
        token, logprob = _at(entry, "token"), _at(entry, "logprob")
        if isinstance(token, str) and token.strip() in labels:
            if not isinstance(logprob, int | float) or not logprob <= ROUNDING:
                return {}, f"token {token!r} has the log-prob {logprob!r}"
            likely[token] = float(logprob)
    return by_label((token.strip(), logprob) for token, logprob in likely.items()), ""


def _at(value: Any, *path: str | int) -> Any:
    """The value at the end of the path; None if there is none."""
    for step in path:
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, dict) else None
        else:
            value = value[step] if isinstance(value, list) and len(value) > step else None
    return value


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
