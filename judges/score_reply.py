"""From the reply of a service that scores answers to verdicts, or to the reason why there is none."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sparring.judges.calls import Heard
from sparring.judges.verdicts import Verdict


@dataclass(frozen=True)
class Scored(Heard):
    """What one call brought: a verdict for each row, or an error."""

    verdicts: Sequence[Verdict] = ()


def read_scores(body: bytes, count: int) -> list[Verdict] | str:
    """A verdict for each of `count` rows; or, as a string, why the body is no answer to any of them.

    A score that is null or no finite number is no answer to its own row. Other keys than scores and rationales are
    ignored.
    """
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        return "the body is not JSON"
    scores = reply.get("scores") if isinstance(reply, dict) else None
    if not isinstance(scores, list):
        return 'the body has no list "scores"'
    rationales = reply.get("rationales")
    notes = [""] * count if rationales is None else rationales
    if not isinstance(notes, list) or not all(isinstance(note, str | None) for note in notes):
        return '"rationales" is no list of strings'
    if len(scores) != count or len(notes) != count:
        return f"{len(scores)} scores and {len(notes)} rationales for {count} rows"
    return [_verdict(score, note or "") for score, note in zip(scores, notes, strict=True)]


def _verdict(score: Any, note: str) -> Verdict:
    if score is None:
        return Verdict(None, f"no score from the service: {note or 'no reason given'}")
    if isinstance(score, bool) or not isinstance(score, int | float) or not _is_finite(score):
        found = "an array or object" if isinstance(score, list | dict) else json.dumps(score)[:100]
        return Verdict(None, f"the score is {found}; expected a finite number or null")
    return Verdict(float(score), note)


def _is_finite(score: float) -> bool:
    try:
        return math.isfinite(score)
    except OverflowError:  # a whole number beyond every float
        return False
