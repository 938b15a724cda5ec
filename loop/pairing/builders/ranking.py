"""Builders that rank one prompt's full answers by score and choose the pairs."""

from collections.abc import Sequence
from typing import Literal

from sparring.loop.errors import ConfigError
from sparring.loop.pairing.types import Candidates, Choice, Scored, Unpaired
from sparring.loop.pairing.values import number, one_of, whole
from sparring.loop.traits import builder
from sparring.loop.types import derive_seed


@builder()
def best_worst(candidates: Candidates, *, per_prompt: int = 1, min_margin: float = 0.0) -> Sequence[Choice] | Unpaired:
    """Pair the best answer with the worst, the second best with the second worst, ... up to `per_prompt` pairs.

    A pair needs a score difference above `min_margin` and two different texts. With `per_prompt` 1 this is the recipe
    of SimPO, arXiv:2405.14734. Equal scores are ranked in sample order.
    """
    whole("per_prompt", per_prompt, 1)
    number("min_margin", min_margin, 0)
    scored = rankable(candidates)
    if isinstance(scored, Unpaired):
        return scored
    worst = sorted(scored, key=lambda s: s.score)
    best = sorted(scored, key=lambda s: -s.score)
    opposite = [Choice(high, low) for high, low in list(zip(best, worst, strict=True))[:per_prompt]]
    return [c for c in opposite if _differ(c, min_margin)] or _tie(scored, min_margin)


@builder()
def best_random(candidates: Candidates, *, seed: int = 0, min_margin: float = 0.0) -> Sequence[Choice] | Unpaired:
    """Pair the best answer with a random one of those that score more than `min_margin` below it.

    The recipe of Zephyr, arXiv:2310.16944: more varied and harder than the worst answer. The draw is a hash of seed,
    prompt and completion, so it does not depend on any order.
    """
    whole("seed", seed, 0)
    number("min_margin", min_margin, 0)
    scored = rankable(candidates)
    if isinstance(scored, Unpaired):
        return scored
    best = max(scored, key=lambda s: s.score)
    below = [c for c in (Choice(best, other) for other in scored) if _differ(c, min_margin)]
    drawn = sorted(below, key=lambda c: derive_seed(seed, best.completion.prompt_id, c.rejected.completion.id))
    return drawn[:1] or _tie(scored, min_margin)


@builder()
def all_margin(
    candidates: Candidates, *, min_margin: float = 0.0, per_prompt: int | None = None
) -> Sequence[Choice] | Unpaired:
    """All pairs with a score difference above `min_margin`, or the `per_prompt` pairs with the largest differences.

    All pairs of a ranking of K answers train the reward model of InstructGPT, arXiv:2203.02155.
    """
    number("min_margin", min_margin, 0)
    if per_prompt is not None:
        whole("per_prompt", per_prompt, 1)
    scored = rankable(candidates)
    if isinstance(scored, Unpaired):
        return scored
    return _by_margin(scored, min_margin)[:per_prompt] or _tie(scored, min_margin)


@builder()
def contrast(
    candidates: Candidates, *, mode: Literal["high", "low", "mixed"] = "high", min_margin: float = 0.0
) -> Sequence[Choice] | Unpaired:
    """The pair with the largest score difference (high), the smallest above `min_margin` (low), or either (mixed).

    After arXiv:2412.15282, where high contrast beats low and a mixture is often best. `mixed` takes high or low by the
    hash of the prompt, so that every mode gives the same number of pairs and can be compared. The mixture is our
    reading of the paper.
    """
    one_of("mode", mode, ("high", "low", "mixed"))
    number("min_margin", min_margin, 0)
    scored = rankable(candidates)
    if isinstance(scored, Unpaired):
        return scored
    choices = _by_margin(scored, min_margin)
    if mode == "mixed":
        mode = "low" if derive_seed(scored[0].completion.prompt_id) % 2 else "high"
    return (choices[:1] if mode == "high" else choices[-1:]) or _tie(scored, min_margin)


@builder(needs="reference")
def ranked(candidates: Candidates, *, min_margin: float = 0.0) -> Sequence[Choice] | Unpaired:
    """Rank the reference's sample with the policy's answers, pair best with worst, and keep the sample with the pair.

    SELM (arXiv:2405.19332, Algorithm 1) takes the reference's greedy answer, XPO (arXiv:2405.21046) a random sample of
    it. Their optimism term needs that sample whether or not it is in the pair. The first of several samples is kept.
    Raises ConfigError if the experience has none.
    """
    number("min_margin", min_margin, 0)
    samples = [c for c in candidates.full if c.origin == "reference"]
    if candidates.completions and not samples:
        raise ConfigError(
            f"pair builder 'ranked' found no sample of the reference among the {len(candidates.completions)} "
            f"completions of prompt {candidates.completions[0].prompt_id}; set sample.extra to sample one"
        )
    scored = rankable(candidates)
    if isinstance(scored, Unpaired):
        return scored
    if not any(s.completion.origin == "reference" for s in scored):
        return Unpaired("abstained", f"the judge scored none of the {len(samples)} samples of the reference")
    pair = Choice(max(scored, key=lambda s: s.score), min(scored, key=lambda s: s.score), samples[0])
    return [pair] if _differ(pair, min_margin) else _tie(scored, min_margin)


def rankable(candidates: Candidates) -> list[Scored] | Unpaired:
    """The scored full answers in sample order: at least two, and at least two different texts."""
    full, scored = candidates.full, candidates.scored
    if len(full) > 1 and len({c.text for c in full}) == 1:
        return Unpaired("identical", f"all {len(full)} completions have the same text")
    if len(scored) < 2:
        return Unpaired("abstained", f"the judge scored {len(scored)} of {len(full)} completions")
    if len({s.completion.text for s in scored}) == 1:
        return Unpaired("identical", f"all {len(scored)} scored completions have the same text")
    return scored


def _by_margin(scored: Sequence[Scored], min_margin: float) -> list[Choice]:
    """All pairs above `min_margin`, the largest difference first, then in sample order."""
    choices = [c for c in (Choice(high, low) for high in scored for low in scored) if _differ(c, min_margin)]
    return sorted(choices, key=lambda c: c.rejected.score - c.chosen.score)


def _differ(choice: Choice, min_margin: float) -> bool:
    apart = choice.chosen.score - choice.rejected.score > min_margin
    return apart and choice.chosen.completion.text != choice.rejected.completion.text


def _tie(scored: Sequence[Scored], min_margin: float) -> Unpaired:
    scores = [s.score for s in scored]
    return Unpaired("tie", f"scores from {min(scores):g} to {max(scores):g}, min_margin {min_margin:g}")
