"""The shape of a file, and its rows in one form: a conversation, its answers, and their scores or labels.

Rows are read one by one, because a column may hold both texts and conversations, and an error names its row. The later
steps work on columns.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from math import isfinite
from typing import Any

from sparring.loop.errors import ConfigError, DataError
from sparring.store.exchange.turns import TEXTS, Turns, prompt_of, text_of, transcript, turns_of

# The names that a column may have, the usual one first.
NAMES: Mapping[str, tuple[str, ...]] = {
    "prompt": ("prompt", "instruction", "question"),
    "messages": ("messages",),
    "chosen": ("chosen",),
    "rejected": ("rejected",),
    "chosen_score": ("chosen_score", "score_chosen", "chosen_rating", "chosen-rating"),
    "rejected_score": ("rejected_score", "score_rejected", "rejected_rating", "rejected-rating"),
    "p_chosen": ("p_chosen",),
    "margin": ("margin",),
    "weight": ("weight",),
    "response_a": ("response_a",),
    "response_b": ("response_b",),
    "p_a": ("p_a",),
    "label": ("label",),
    "completions": ("completions", "responses"),
    "scores": ("scores",),
    "completion": ("completion", "response"),
    "score": ("score", "overall_score"),
}
ASKED = ("prompt", "messages")
SHAPES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # the columns that a shape needs, and may have
    "comparisons": (("response_a", "response_b"), (*ASKED, "label", "p_a")),
    "pairs": (("chosen", "rejected"), (*ASKED, "chosen_score", "rejected_score", "p_chosen", "margin", "weight")),
    "groups": (("completions",), (*ASKED, "scores", "score")),
    "labels": (("completion",), (*ASKED, "label", "score", "weight")),
}
LABELS = {"a": 1.0, "b": 0.0, "tie": 0.5}
FLAGS = {"true": True, "1": True, "1.0": True, "yes": True, "false": False, "0": False, "0.0": False, "no": False}


class Refused(Exception):
    """A row that cannot be read. The message completes a sentence that begins with the row's number."""


@dataclass(frozen=True, slots=True)
class Given:
    """A row in the one form. `p` is P(first text is better), None if nothing is compared. `scores`: one per text."""

    messages: Turns
    texts: list[str]
    scores: list[float | None]
    p: float | None = None
    margin: float = 0.0
    weight: float = 1.0
    label: bool | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Shape:
    """The shape of a file's rows. `columns`: the columns that are read, with their names in the file."""

    name: str
    columns: Mapping[str, str]

    def read(self, row: Any) -> Given:
        """A row in the one form. Raises Refused."""
        if not isinstance(row, Mapping):
            raise Refused(f"is a JSON {type(row).__name__}, expected an object")
        seen = {column: row.get(name) for column, name in self.columns.items()}
        read = set(self.columns.values())
        rest = {name: value for name, value in row.items() if name not in read}
        item = READ[self.name](seen, self, rest)
        rest.update({self.columns[c]: seen[c] for c in ASKED if _unread(c, seen, item.messages)})
        if not item.messages or not item.messages[-1]["content"].strip():
            raise Refused("has no prompt; expected a text in prompt, or role and content in messages")
        return item


def shape_of(keys: Sequence[str], named: Mapping[str, str], path: str) -> Shape:
    """The shape of rows with the columns `keys`, some of which `named` names. Raises ConfigError or DataError."""
    for column, name in named.items():
        _check_name(column, name, keys, path)
    usual = {column: next((n for n in names if n in keys), None) for column, names in NAMES.items()}
    columns = {c: n for c, n in usual.items() if n is not None and n not in named.values()} | dict(named)
    for shape, (needs, may) in SHAPES.items():
        if all(column in columns for column in needs):
            return Shape(shape, {c: n for c, n in columns.items() if c in (*needs, *may)})
    raise DataError(
        f"{path} has the columns {', '.join(keys) or '(none)'}; expected chosen and rejected, or response_a and "
        "response_b with label or p_a, or completions, or completion; name them with --columns chosen=NAME,..."
    )


def _check_name(column: str, name: str, keys: Sequence[str], path: str) -> None:
    if column not in NAMES:
        near = get_close_matches(column, NAMES, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ConfigError(f"--columns names {column!r}{hint}; expected one of {', '.join(NAMES)}")
    if name not in keys and column != "score":  # in a group, `score` is a field of each answer
        raise ConfigError(f"--columns says {column}={name}, and {path} has {', '.join(keys)}")


def _unread(column: str, seen: Mapping[str, Any], messages: Turns) -> bool:
    """Whether the row has two prompts and this is not the one that was read. It is then kept with the other fields."""
    if seen.get(column) is None:
        return False
    return (column == "prompt" and seen.get("messages") is not None) or prompt_of(seen[column]) != messages


def _two(seen: Mapping[str, Any], shape: Shape, rest: dict[str, Any]) -> Given:
    columns = SHAPES[shape.name][0]
    one, other = (_answer(seen, shape, column) for column in columns)
    names = " and ".join(shape.columns[column] for column in columns)
    if one[:-1] != other[:-1]:
        raise Refused(f"has {names} that differ before their last turn")
    messages = _conversation(seen, one)
    texts = [one[-1]["content"], other[-1]["content"]]
    if shape.name == "comparisons":
        return Given(messages, texts, [None, None], _preference(seen, shape, rest), fields=rest)
    scores = [_number(seen, shape, "chosen_score"), _number(seen, shape, "rejected_score")]
    margin, p = _number(seen, shape, "margin"), _number(seen, shape, "p_chosen")
    if p is not None and not 0.5 <= p <= 1:
        raise Refused(f"has p_chosen {p:g}, expected 0.5 to 1")
    if margin is None:
        margin = 0.0 if scores[0] is None or scores[1] is None else scores[0] - scores[1]
    return Given(messages, texts, scores, 1.0 if p is None else p, margin, _weight(seen, shape), fields=rest)


def _weight(seen: Mapping[str, Any], shape: Shape) -> float:
    weight = _number(seen, shape, "weight")
    return 1.0 if weight is None else weight


def _preference(seen: Mapping[str, Any], shape: Shape, rest: dict[str, Any]) -> float:
    """P(a beats b). The label decides whether it is a tie, as where two of three votes are ties and one is for a."""
    label, p = seen.get("label"), _number(seen, shape, "p_a")
    preference = p if label is None else LABELS.get(str(label).lower())
    if p is None:
        p = preference
    apart = preference is not None and p is not None and preference != 0.5 and (preference > 0.5) is not (p > 0.5)
    if preference is None or p is None or not 0 <= p <= 1 or apart or (preference != 0.5 and p == 0.5):
        raise Refused(f"has label {label!r} and p_a {p!r}, expected a, b or tie, or p_a from 0 to 1, and both alike")
    if preference == 0.5 != p:
        rest[shape.columns["p_a"]] = p
    return 0.5 if preference == 0.5 else p


def _group(seen: Mapping[str, Any], shape: Shape, rest: dict[str, Any]) -> Given:
    answers, name = seen["completions"], shape.columns["completions"]
    if not isinstance(answers, list) or not answers:
        raise Refused(f"has no list in {name}")
    texts = [text for text in map(text_of, answers) if text is not None]
    if len(texts) < len(answers):
        raise Refused(f"has an answer in {name} that is neither a text nor one turn")
    scores = seen.get("scores")
    if scores is None:
        inside = (shape.columns["score"],) if "score" in shape.columns else NAMES["score"]
        scores = [next((e[n] for n in inside if e.get(n) is not None), None) if isinstance(e, Mapping) else None
                  for e in answers]  # fmt: skip
    if not isinstance(scores, list) or len(scores) != len(texts):
        raise Refused(f"has {len(texts)} answers in {name} and other scores: {str(scores)[:60]}")
    if any(isinstance(each, Mapping) for each in answers):  # the other fields of an answer are kept, but not its text
        rest[name] = [_without_text(each) for each in answers]
    return Given(_conversation(seen, []), texts, [_float(s, name) for s in scores], fields=rest)


def _one(seen: Mapping[str, Any], shape: Shape, rest: dict[str, Any]) -> Given:
    turns = _answer(seen, shape, "completion")
    flag, score = seen.get("label"), _number(seen, shape, "score")
    label = FLAGS.get(str(flag).lower())
    if flag is not None and label is None:
        raise Refused(f"has {shape.columns['label']} {flag!r}, expected true or false")
    if label is not None and "score" in shape.columns:
        rest[shape.columns["score"]] = seen["score"]
    scores, weight = [score if label is None else float(label)], _weight(seen, shape)
    messages = _conversation(seen, turns)
    return Given(messages, [turns[-1]["content"]], scores, weight=weight, label=label, fields=rest)


READ: Mapping[str, Callable[[Mapping[str, Any], Shape, dict[str, Any]], Given]] = {
    "comparisons": _two,
    "pairs": _two,
    "groups": _group,
    "labels": _one,
}


def _conversation(seen: Mapping[str, Any], answer: Turns) -> Turns:
    """The conversation before the answer: the answer's own turns before the last, or the messages, or the prompt."""
    turns = turns_of(seen.get("messages"), "user") or prompt_of(seen.get("prompt"))
    before = answer[:-1]
    if before and turns and len(turns) > 1 and turns not in (before, answer):
        raise Refused("has a conversation as prompt that is not the beginning of its answers")
    return before or turns


def _answer(seen: Mapping[str, Any], shape: Shape, column: str) -> Turns:
    """The turns of an answer: the last one, and those before it if it is a conversation or a text in HH's form."""
    value = seen[column]
    has_prompt = any(seen.get(each) is not None for each in ASKED)
    turns = [] if has_prompt or not isinstance(value, str) else transcript(value)
    turns = turns or turns_of(value, "assistant")
    if not turns:
        raise Refused(f"has no text or conversation in {shape.columns[column]}")
    if turns[-1]["role"] != "assistant":
        raise Refused(f"has a {shape.columns[column]} that ends with a turn of {turns[-1]['role']}, expected assistant")
    return turns


def _without_text(answer: Any) -> Any:
    return {k: v for k, v in answer.items() if k not in TEXTS} if isinstance(answer, Mapping) else answer


def _number(seen: Mapping[str, Any], shape: Shape, column: str) -> float | None:
    return _float(seen.get(column), shape.columns.get(column, column))


def _float(value: Any, name: str) -> float | None:
    try:
        number = None if value is None else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if number is not None and not isfinite(number):
        raise Refused(f"has {str(value)[:40]!r} in {name}, expected a number")
    return number
