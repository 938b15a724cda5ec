"""Labelled pairs: two answers to a prompt, and the probability that the first one is better.

The answers are `a` and `b`, not chosen and rejected, so that no judge and no metric can depend on which comes first.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparring.loop.errors import DataError
from sparring.loop.prompts import messages_of, read_rows
from sparring.loop.types import Message, digest, make_id

Answer = str | Sequence[Mapping[str, str]]
LABELS = {"a": 1.0, "b": 0.0, "tie": 0.5}


@dataclass(frozen=True, slots=True)
class Preference:
    """`p_a` is the probability that `a` is better: 1, 0, 0.5 for a tie, or a share of votes."""

    id: str
    messages: tuple[Message, ...]
    a: str
    b: str
    p_a: float
    margin: float = 0.0  # how much better the better one is, on the scale of a reward
    weight: float = 1.0
    subset: str = ""

    @property
    def prompt(self) -> str:
        """A key for the prompt: pairs of one prompt stay on one side of a split."""
        return digest(list(map(dict, self.messages)))

    @classmethod
    def make(cls, messages: Sequence[Message], a: str, b: str, p_a: float, **fields: Any) -> "Preference":
        rows = tuple(dict(m) for m in messages)
        return cls(make_id("preference", messages=rows, a=a, b=b, p_a=p_a), rows, a, b, p_a, **fields)


def read_preferences(source: str) -> list[Preference]:
    """All labelled pairs of a source (see loop.prompts: a file, a saved dataset's folder, or a hub dataset id).

    A row has `prompt` or `messages`, and either `response_a`, `response_b` with `p_a` or `label` (a, b or tie), or
    `chosen` and `rejected` (texts or conversations, with or without a prompt, as TRL reads them). A field `subset` is
    kept. Repeated rows are kept once. Raises DataError for a row that lacks these fields.
    """
    rows = enumerate(read_rows(source), start=1)
    pairs = {p.id: p for p in (_preference(row, i, source) for i, row in rows)}
    if not pairs:
        raise DataError(f"{source} has no rows; expected labelled pairs")
    return list(pairs.values())


def split_by_prompt(
    preferences: Iterable[Preference], share: float, seed: int
) -> tuple[list[Preference], list[Preference]]:
    """(train, held out): about `share` of the prompts are held out, each with all of its pairs."""
    train: list[Preference] = []
    held_out: list[Preference] = []
    for p in preferences:
        place = int(digest([seed, p.prompt], 4), 16) / 2**32
        (held_out if place < share else train).append(p)
    return train, held_out


def folds(preferences: Sequence[Preference], k: int, seed: int) -> list[int]:
    """The fold of each pair, 0 to k-1, which depends on its prompt only. Folds differ by at most one prompt."""
    prompts = sorted({p.prompt for p in preferences}, key=lambda prompt: digest([seed, prompt]))
    fold = {prompt: i % k for i, prompt in enumerate(prompts)}
    return [fold[p.prompt] for p in preferences]


def _preference(row: Mapping[str, Any], number: int, source: str) -> Preference:
    where = f"{source} row {number}"
    subset = str(row.get("subset") or "")
    if row.get("response_a") is not None and row.get("response_b") is not None:
        p_a = row["p_a"] if row.get("p_a") is not None else LABELS.get(str(row.get("label")))
        if p_a is None or not 0 <= float(p_a) <= 1:
            raise DataError(f"{where} has label {row.get('label')!r} and p_a {row.get('p_a')!r}; expected a, b or tie")
        messages = messages_of(row, where)
        return Preference.make(messages, row["response_a"], row["response_b"], float(p_a), subset=subset)
    if row.get("chosen") is None or row.get("rejected") is None:
        raise DataError(
            f"{where} has no pair: found fields {sorted(row)}, expected response_a and response_b with label or p_a, "
            "or chosen and rejected"
        )
    messages, chosen, rejected = _conversations(row, where)
    # Which of the two is `a` must not reveal which is better, so the hash of the row decides.
    if int(digest([messages, chosen, rejected], 1), 16) % 2:
        return Preference.make(messages, chosen, rejected, 1.0, subset=subset)
    return Preference.make(messages, rejected, chosen, 0.0, subset=subset)


def _conversations(row: Mapping[str, Any], where: str) -> tuple[list[Message], str, str]:
    chosen, rejected = _turns(row["chosen"]), _turns(row["rejected"])
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise DataError(f"{where}: one of chosen and rejected is a text, the other a conversation; expected the same")
    if isinstance(chosen, str) or isinstance(rejected, str):
        return list(messages_of(row, where)), str(chosen), str(rejected)
    if len(chosen) > 1 and list(chosen[:-1]) != list(rejected[:-1]):
        raise DataError(f"{where}: chosen and rejected differ before their last turn; expected one shared prompt")
    prompt = list(chosen[:-1]) or list(messages_of(row, where))
    return prompt, chosen[-1]["content"], rejected[-1]["content"]


def _turns(value: Any) -> str | list[Mapping[str, str]]:
    if isinstance(value, str) and value.lstrip().startswith('[{"'):
        value = json.loads(value)
    return value if isinstance(value, str) else [dict(m) for m in value]
