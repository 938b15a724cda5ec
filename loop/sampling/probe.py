"""The probe: checks after every load, before sampling, that engine and trainer agree on the weights.

Stale weights, a wrong dtype or an unfinished reload all show as different log-probs for the same tokens. In bfloat16,
rounding alone is as large as a small update, so the probe checks two things: that the difference is small, and that the
update arrived. The second check looks along the direction in which the update moved the log-probs, where rounding
averages out.
"""

from collections.abc import Sequence
from math import sqrt

from sparring.loop.errors import ProbeError
from sparring.loop.sampling.requests import SamplingEngine
from sparring.loop.types import Checkpoint

# Mean absolute difference of token log-probs, in nats: about twice the rounding seen (docs/loop.md).
TOLERANCE = {"float32": 2e-3, "bfloat16": 0.1}
ARRIVED = (0.7, 1.3)  # share of the update that the engine must show
MEASURABLE = 0.1  # largest standard error of that share; above it the update is too small to measure


def difference(actual: Sequence[float], expected: Sequence[float]) -> float:
    return sum(abs(a - e) for a, e in zip(actual, expected, strict=True)) / len(actual)


def arrived(actual: Sequence[float], expected: Sequence[float], before: Sequence[float]) -> float | None:
    """1 if the engine moved like the trainer from `before` to `expected`, 0 if it stayed, None if it is not measurable.

    This is the least-squares coefficient of (actual - before) on (expected - before).
    """
    move = [e - b for e, b in zip(expected, before, strict=True)]
    size = sum(m * m for m in move)
    share = sum(m * (a - b) for m, a, b in zip(move, actual, before, strict=True)) / size if size else 0.0
    squares = sum((a - b - share * m) ** 2 for m, a, b in zip(move, actual, before, strict=True))
    residual = squares / max(1, len(actual) - 1)
    return share if size and sqrt(residual / size) < MEASURABLE else None


def probe(
    engine: SamplingEngine,
    checkpoint: Checkpoint,
    expected: Sequence[float],
    sequences: list[list[int]],
    before: Sequence[float] | None,
) -> float:
    """The mean absolute difference between engine and trainer, in nats per token.

    `expected` has the trainer's log-probs of `sequences`, and `before` those for the engine's previous weights. Raises
    ProbeError if engine and trainer disagree.
    """
    actual = [x for one in engine.prompt_logprobs(sequences) for x in one]
    apart, limit = difference(actual, expected), TOLERANCE[engine.dtype]
    share = arrived(actual, expected, before) if before is not None else None
    if not apart <= limit or (share is not None and not ARRIVED[0] <= share <= ARRIVED[1]):
        shown = "" if share is None else f", and {share:.0%} of the last update shows in the engine"
        raise ProbeError(
            f"engine and trainer disagree on {checkpoint.id} ({checkpoint.path}): their log-probs differ by "
            f"{apart:.4f} nats per token (expected at most {limit} in {engine.dtype}){shown}. Nothing was sampled. Run "
            "again with a fresh engine. If the error persists, set sample.dtype: float32; otherwise vLLM and "
            "transformers compute this model differently"
        )
    return apart
