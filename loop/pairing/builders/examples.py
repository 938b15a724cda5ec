"""Builders of examples (single answers with a reward), for losses that do not learn from pairs."""

from collections.abc import Sequence

from sparring.loop.errors import ConfigError
from sparring.loop.pairing.types import Candidates, Pick, Unpaired
from sparring.loop.pairing.values import number, switch, whole
from sparring.loop.traits import builder


@builder(gives="examples")
def threshold(candidates: Candidates, *, at: float, below: float | None = None) -> Sequence[Pick] | Unpaired:
    """Label every scored answer: 1 (desirable) for a score of `at` or more, 0 for one of `below` or less.

    Answers in between are left out; without `below` there are none. For pointwise losses such as KTO, arXiv:2402.01306.
    """
    number("at", at)
    if below is not None:
        number("below", below)
        if below >= at:
            raise ConfigError(f"below is {below:g} and at is {at:g}; expected below to be less than at")
    scored = candidates.scored
    if not scored:
        return _silent(candidates)
    low = at if below is None else below
    labelled = [Pick(s.completion, float(s.score >= at)) for s in scored if s.score >= at or s.score <= low]
    return labelled or Unpaired("filtered", f"all {len(scored)} scores are between below {low:g} and at {at:g}")


@builder(gives="examples")
def group(candidates: Candidates, *, min_size: int = 2, keep_ties: bool = False) -> Sequence[Pick] | Unpaired:
    """All scored answers of the prompt with their score as reward, for GRPO, RLOO and losses over K answers.

    If all scores or all texts are equal, there is nothing to learn from comparing them (the advantage is 0, see dynamic
    sampling in DAPO, arXiv:2503.14476). Such a group is left out unless `keep_ties` is set, which learners with a value
    model need. A prompt with fewer than `min_size` scored answers is left out.
    """
    whole("min_size", min_size, 1)
    switch("keep_ties", keep_ties)
    scored = candidates.scored
    if len(scored) < min_size:
        return _silent(candidates, f"; a group needs min_size {min_size}")
    if not keep_ties and len(scored) > 1 and len({s.completion.text for s in scored}) == 1:
        return Unpaired("identical", f"all {len(scored)} scored completions have the same text")
    if not keep_ties and len({s.score for s in scored}) < 2:
        return Unpaired("tie", f"all {len(scored)} scores are {scored[0].score:g}")
    return [Pick(s.completion, s.score) for s in scored]


def _silent(candidates: Candidates, need: str = "") -> Unpaired:
    n, of = len(candidates.scored), len(candidates.full)
    return Unpaired("abstained", f"the judge scored {n} of {of} completions{need}")
