"""A model's reply to a verdict, or to the reason why there is none. Strict: an unclear reply is no answer."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparring.judges.llm_client import Question
from sparring.loop.thoughts import answer_of

MIN_MASS = 0.5  # least probability of the labels as the next token: with less, the model answers something else
ROUNDING = 1e-3  # a log-prob may be this much above 0
Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`value` None: no answer, and `note` says why. Otherwise `note` is the judge's rationale."""

    value: float | None
    note: str = ""


def label_verdict(labels: Sequence[str], logprobs: Mapping[str, float], text: str) -> Verdict:
    """P(first beats second), from the log-probs of the labels (first, second and, if there is a third, tie).

    p = (P(first) + P(tie) / 2) / P(any label). There is no answer if P(any label) < MIN_MASS. A label without a
    log-prob was not among the likely tokens and counts as 0. Without any log-probs the text must be exactly one label.
    """
    if not logprobs:
        return Verdict(_share(labels, text)) if text.strip() in labels else Verdict(None, f"no label: {_short(text)}")
    values = [logprobs.get(label, -math.inf) for label in labels]
    if not all(value <= ROUNDING for value in values):  # NaN fails too
        return Verdict(None, f"these are not log-probs: {dict(logprobs)}")
    first, second, tie = [math.exp(value) for value in values] + [0.0] * (3 - len(values))
    total = first + second + tie
    if total > 1.01:
        return Verdict(None, f"the labels' probabilities sum to {total:.3g}")
    if total < MIN_MASS:
        return Verdict(None, f"the labels hold {total:.2g} of the probability, expected {MIN_MASS:g}: {_short(text)}")
    return Verdict((first + tie / 2) / total)


def by_label(logprobs: Iterable[tuple[str, float]]) -> dict[str, float]:
    """log P of each label: the log of the summed probabilities of the tokens that stand for it."""
    mass: dict[str, float] = defaultdict(float)
    for label, logprob in logprobs:
        mass[label] += math.exp(logprob)
    return {label: math.log(p) if p else -math.inf for label, p in mass.items()}


def json_verdict(labels: Sequence[str], text: str) -> Verdict:
    """P(first beats second), 1, 0 or 0.5, from {"rationale": ..., "verdict": one of the labels}."""
    answer = read_object(text, verdict_schema(labels))
    if isinstance(answer, str):
        return Verdict(None, answer)
    return Verdict(_share(labels, answer["verdict"]), storable(answer["rationale"]))


def json_score(scale: tuple[int, int], text: str) -> Verdict:
    """The score from {"rationale": ..., "score": a whole number on the scale, both ends included}."""
    answer = read_object(text, score_schema(scale))
    if isinstance(answer, str):
        return Verdict(None, answer)
    if not isinstance(answer["score"], int):  # JSON Schema accepts 7.0 as an integer
        return Verdict(None, f"score is {answer['score']!r}; expected a whole number")
    return Verdict(float(answer["score"]), storable(answer["rationale"]))


def verdict_schema(labels: Sequence[str]) -> dict[str, Any]:
    return strict_schema({"rationale": {"type": "string"}, "verdict": {"type": "string", "enum": list(labels)}})


def score_schema(scale: tuple[int, int]) -> dict[str, Any]:
    score = {"type": "integer", "minimum": scale[0], "maximum": scale[1]}
    return strict_schema({"rationale": {"type": "string"}, "score": score})


def strict_schema(properties: Schema) -> dict[str, Any]:
    """A schema for OpenAI's strict mode: every key is required, and no other is allowed."""
    keys = {"required": list(properties), "additionalProperties": False}
    return {"type": "object", "properties": dict(properties), **keys}


def unreadable(question: Question, text: str, logprobs: Mapping[str, float]) -> str:
    """Why a reply does not answer the question, so that it is worth asking again; "" if it does."""
    if question.labels:
        return "" if logprobs or text.strip() in question.labels else f"no label: {_short(text)}"
    if question.schema is not None:
        answer = read_object(text, question.schema)
        return answer if isinstance(answer, str) else ""
    return "" if text.strip() else "an empty reply"


def read_object(text: str, schema: Schema) -> dict[str, Any] | str:
    """The one JSON object of a text, if it is whole and matches the schema; else, as a string, what is wrong.

    A thought before it is left out. Prose or a markdown fence may surround it, but no further brace: an object inside
    one that was cut, or a second object, is no answer. The text after a verdict must not name another one.
    """
    answer = answer_of(text)
    if answer is None:
        return f"its thought was not closed: {_short(text)}"
    parsed = _only_object(answer)
    if isinstance(parsed, str):
        return parsed
    value, after = parsed
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

    wrong = next(Draft202012Validator(schema).iter_errors(value), None)
    if wrong is not None:
        return f"not as the schema says ({_short(wrong.message)})"
    others = set(schema.get("properties", {}).get("verdict", {}).get("enum", ())) - {value.get("verdict")}
    if other := next((o for o in sorted(others) if re.search(rf"(?<!\w){re.escape(o)}(?!\w)", after)), None):
        return f"the verdict is {value['verdict']}, but the text after it names {other}"
    return value


def storable(text: str) -> str:
    """The text with lone surrogates, which JSON can spell and UTF-8 cannot hold, written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _only_object(text: str) -> tuple[dict[str, Any], str] | str:
    """The object that begins at the first brace, and the text after it; or what is wrong."""
    start = text.find("{")
    if start < 0:
        return f"no JSON object: {_short(text)}"
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        return f"cut or broken JSON ({_short(str(error))}): {_short(text)}"
    if "{" in text[end:] or "}" in text[:start] + text[end:]:
        return f"more than one JSON object: {_short(text)}"
    return value, text[end:]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key occurs twice")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)


def _share(labels: Sequence[str], label: str) -> float:
    return (1.0, 0.0, 0.5)[list(labels).index(label.strip())]


def _short(text: str) -> str:
    return repr(text if len(text) <= 120 else text[:120] + "...")
