"""Builders that need no judge: an answer that was given with the prompt is better by what it is."""

from collections.abc import Sequence
from itertools import cycle

from sparring.loop.pairing.types import Candidates, Choice, Pick, Scored, Unpaired
from sparring.loop.pairing.values import whole
from sparring.loop.traits import builder
from sparring.loop.types import Completion


@builder(scores=False, needs="dataset")
def gold(candidates: Candidates, *, per_prompt: int = 1) -> Sequence[Choice] | Unpaired:
    """Pair the given answer with the first `per_prompt` of the policy's own: self-play, SPIN (arXiv:2401.01335).

    The given answer (origin `dataset` or `human`) is always chosen; of several, each in turn. No score and no duel has
    a say, for what is learned is to tell given from own: the scores are these labels, 1 and 0, so the margin is 1.
    """
    whole("per_prompt", per_prompt, 1)
    given = _given(candidates)
    own = [c for c in candidates.full if c.origin == "policy"]
    if not given or not own:
        return Unpaired("failed", f"{len(given)} given answers, {len(own)} of the policy's own; wanted one of each")
    texts = {c.text for c in given}
    other = [c for c in own if c.text not in texts]
    if not other:
        return Unpaired("identical", f"all {len(own)} of the policy's own answers have the text of a given one")
    return [Choice(Scored(1.0, g), Scored(0.0, o)) for g, o in zip(cycle(given), other[:per_prompt], strict=False)]


@builder(gives="examples", scores=False, needs="dataset")
def dataset(candidates: Candidates) -> Sequence[Pick] | Unpaired:
    """Every given answer (origin `dataset` or `human`) as an example with reward 1: supervised fine-tuning."""
    given = _given(candidates)
    return [Pick(c, 1.0) for c in given] or Unpaired("failed", "no given answer (of origin dataset or human)")


def _given(candidates: Candidates) -> list[Completion]:
    return [c for c in candidates.full if c.origin in ("dataset", "human")]
