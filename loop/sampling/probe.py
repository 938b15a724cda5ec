"""The probe: whether the log-probs that an engine gives to a few texts are those of the weights that it should hold.

Stale weights, a wrong dtype or an unfinished reload all show as different log-probs for the same tokens. In bfloat16,
rounding alone is as large as a small update, so there are three questions:

level: is the difference to the trainer no larger than the rounding that this model is known to have?
stale: are they, to the last bit, what the engine gave with other weights? Rounding is the same for the same weights.
share: how much of the change since the last load shows in the engine? Rounding averages out along its direction.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from math import inf, sqrt
from pathlib import Path
from statistics import median

from sparring.loop.errors import ProbeError
from sparring.loop.learning.probing import Probe, equal_weights
from sparring.loop.sampling.requests import SamplingEngine
from sparring.loop.types import Checkpoint

log = logging.getLogger("sparring.probe")

OFF, ERRORS = 0.05, 8  # the share may differ from 1 by OFF and so many standard errors; see docs/loop.md
FAR = 3  # medians
MEASURABLE = 0.5  # where that is more, the change is too small to tell


@dataclass(frozen=True)
class Load:
    """What the engine said after a load: its log-probs of the completion tokens, beside the trainer's, in nats."""

    checkpoint: str  # id
    weights: str  # hash
    path: str
    texts: str  # hash of the token ids
    engine: tuple[float, ...]
    trainer: tuple[float, ...]
    limit: float  # the largest level that passes
    own: bool = True  # False: a model from outside, which only answers beside the policy

    @property
    def level(self) -> float:
        """The mean absolute difference of engine and trainer, in nats per token."""
        return sum(abs(e - t) for e, t in zip(self.engine, self.trainer, strict=True)) / len(self.engine)


def ask(engine: SamplingEngine, checkpoint: Checkpoint, probe: Probe, limit: float, *, own: bool = True) -> Load:
    """Ask the engine for the log-probs of the probe's texts, each cut where the engine's context ends."""
    texts = list(_texts(probe, engine.context - 1))
    if not texts:
        raise ProbeError(
            f"a context of {engine.context} tokens has no room to compare engine and trainer: expected more than "
            f"{min(len(row.prompt) for row in probe.rows) + 1}. Raise sample.context"
        )
    answers = engine.prompt_logprobs([ids for ids, _, _ in texts])
    actual = [x for values, (_, begin, _) in zip(answers, texts, strict=True) for x in values[begin - 1 :]]
    expected = [x for _, _, values in texts for x in values]
    asked = sha256(json.dumps([text[:2] for text in texts]).encode()).hexdigest()
    who = checkpoint.id, checkpoint.weights_sha256, checkpoint.path
    return Load(*who, asked, tuple(actual), tuple(expected), limit, own)


def _texts(probe: Probe, most: int) -> Iterator[tuple[list[int], int, list[float]]]:
    """(Token ids, where the completion begins, its log-probs by the trainer) of each text, in `most` tokens."""
    logprobs = iter(probe.logprobs)
    for row in probe.rows:
        for tokens in row.completions:
            ids, begin = [*row.prompt, *tokens][:most], len(row.prompt)
            expected = list(islice(logprobs, len(tokens)))
            if len(ids) > begin:
                yield ids, begin, expected[: len(ids) - begin]


def check(load: Load, loads: Sequence[Load], dtype: str) -> None:
    """Raise ProbeError if the engine does not hold the weights of `load`, after `loads`, which passed."""
    same = [other for other in loads if _same_engine_other_weights(load, other)]
    found = _level(load, dtype)
    if any(_equal(load, other, dtype) for other in same):
        log.warning(
            "in %s, the weights of %s equal those of %s: the update is too small to sample from. Raise learn.lr, or "
            "set sample.dtype: float32",
            *(dtype, load.checkpoint, same[-1].checkpoint),
        )
    else:
        found += [*_stale(same), *_share(load, loads)]
    if found:
        raise ProbeError(f"engine and trainer disagree on {load.checkpoint} ({load.path}): {'; '.join(found)}")


def _level(load: Load, dtype: str) -> list[str]:
    if load.level <= load.limit:
        return []
    return [f"their log-probs differ by {load.level:.3g} nats per token (expected at most {load.limit:.3g} in {dtype})"]


def _stale(same: Sequence[Load]) -> list[str]:
    if not same:
        return []
    return [f"the engine's log-probs are, to the last bit, those it gave with the weights of {same[-1].checkpoint}"]


def _equal(load: Load, other: Load, dtype: str) -> bool:
    """Whether the engine's dtype makes their weights the same."""
    return Path(other.path).is_dir() and equal_weights(Path(other.path), Path(load.path), dtype)


def _same_engine_other_weights(load: Load, other: Load) -> bool:
    return (
        other.weights != load.weights
        and other.texts == load.texts
        and other.engine == load.engine
        and other.trainer != load.trainer
    )


def _share(load: Load, loads: Sequence[Load]) -> list[str]:
    before = loads[-1] if loads else None
    if before is None or before.texts != load.texts:
        return []
    moved = [now - then for now, then in zip(load.trainer, before.trainer, strict=True)]
    shown = [now - then for now, then in zip(load.engine, before.engine, strict=True)]
    share, error = slope(*steady(moved, shown))
    room = OFF + ERRORS * error
    if room > MEASURABLE or abs(share - 1) <= room:
        return []
    return [f"{share:.0%} of the change since {before.checkpoint} shows in the engine (expected 100 +- {room:.0%})"]


def steady(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """The pairs whose x is not far larger than most: a token whose expert changes jumps, in one of the two alone."""
    most = FAR * median(abs(a) for a in x)
    kept = [(a, b) for a, b in zip(x, y, strict=True) if abs(a) <= most]
    return [a for a, _ in kept], [b for _, b in kept]


def slope(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """(The least-squares slope of y on x through 0, its standard error); the error is infinite where x is 0."""
    size = sum(a * a for a in x)
    if size == 0:
        return 0.0, inf
    found = sum(a * b for a, b in zip(x, y, strict=True)) / size
    rest = sum((b - found * a) ** 2 for a, b in zip(x, y, strict=True))
    return found, sqrt(rest / max(1, len(x) - 1) / size)
