"""Builders that need no judge: an answer that came with the prompt counts as the better one."""

from collections.abc import Sequence
from itertools import cycle

from sparring.loop.pairing.types import Candidates, Choice, Pick, Scored, Unpaired
from sparring.loop.pairing.values import whole
from sparring.loop.traits import builder
from sparring.loop.types import Completion


@builder(scores=False, needs="dataset")
def gold(candidates: Candidates, *, per_prompt: int = 1) -> Sequence[Choice] | Unpaired:
    """Pair the gold answer with the first `per_prompt` of the policy's own: self-play, SPIN (arXiv:2401.01335).

    The gold answer (origin `dataset` or `human`) is always chosen; several take turns. Scores and duels are ignored,
    because the policy learns to tell gold answers from its own. The labels, 1 and 0, stand in for scores, so the margin
    is 1.
    """
    whole("per_prompt", per_prompt, 1)
    gold = _gold(candidates)
    own = [c for c in candidates.full if c.origin == "policy"]
    if not gold or not own:
        return Unpaired("failed", f"{len(gold)} gold answers, {len(own)} of the policy's own; expected one of each")
    texts = {c.text for c in gold}
    other = [c for c in own if c.text not in texts]
    if not other:
        return Unpaired("identical", f"all {len(own)} of the policy's own answers have the text of a gold one")
    return [Choice(Scored(1.0, g), Scored(0.0, o)) for g, o in zip(cycle(gold), other[:per_prompt], strict=False)]


@builder(gives="examples", scores=False, needs="dataset")
def dataset(candidates: Candidates) -> Sequence[Pick] | Unpaired:
    """Every gold answer (origin `dataset` or `human`) as an example with reward 1: supervised fine-tuning."""
    return [Pick(c, 1.0) for c in _gold(candidates)] or Unpaired("failed", "no gold answer (origin dataset or human)")


def _gold(candidates: Candidates) -> list[Completion]:
    return [c for c in candidates.full if c.origin in ("dataset", "human")]
