"""Turn judgements into preference pairs. Pure: no model, no database.

A builder looks at one prompt's scored completions. It returns pairs, or the reason why there are none; so each prompt
ends with exactly one outcome and none is dropped in silence: prompts = paired + tie + identical + abstained + failed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from loop.errors import ConfigError
from loop.judging import Reading, mean_scores
from loop.options import check_options
from loop.parts import Pairing
from loop.types import Completion, Experience, Group, Judgement, Outcome, Pair, PromptOutcome, Round, make_id


@dataclass(frozen=True, slots=True)
class Scored:
    score: float
    completion: Completion


@dataclass(frozen=True, slots=True)
class Unpaired:
    """Why a prompt has no pair."""

    outcome: Outcome
    reason: str


Read = Callable[[Sequence[Judgement]], Reading]
Builder = Callable[..., Sequence[tuple[Scored, Scored]] | Unpaired]


def best_worst(
    scored: Sequence[Scored], *, per_prompt: int = 1, min_margin: float = 0.0
) -> Sequence[tuple[Scored, Scored]] | Unpaired:
    """Pair the best answer with the worst, the second best with the second worst, ... up to `per_prompt` pairs.

    A pair needs a score difference above `min_margin` and two different texts. With `per_prompt` 1 this is the recipe
    of SimPO, arXiv:2405.14734. `scored` comes in sample order, which decides among equal scores.
    """
    if len({s.completion.text for s in scored}) == 1:
        return Unpaired("identical", f"all {len(scored)} scored completions have the same text")
    worst = sorted(scored, key=lambda s: s.score)
    best = sorted(scored, key=lambda s: -s.score)
    found = [
        (high, low)
        for high, low in list(zip(best, worst, strict=True))[:per_prompt]
        if high.score - low.score > min_margin and high.completion.text != low.completion.text
    ]
    return found or Unpaired("tie", f"scores from {worst[0].score:g} to {best[0].score:g}, min_margin {min_margin:g}")


BUILDERS: dict[str, Builder] = {"best_worst": best_worst}


def pairing(kind: str, read: Read = mean_scores, /, **options: Any) -> Pairing:
    """The pairing step for a builder by name; `read` is the judge's way to read its judgements.

    Raises ConfigError for a builder or an option that does not exist.
    """
    if kind not in BUILDERS:
        raise ConfigError(f"there is no pair builder {kind!r}; choose one of {', '.join(BUILDERS)}")
    check_options("pair builder", kind, BUILDERS[kind], options, skip=1)

    def build(rnd: Round, experience: Experience) -> list[Pair | PromptOutcome]:
        reading = read(experience.judgements)
        records: list[Pair | PromptOutcome] = []
        for group in experience.groups:
            found = _preferences(group, reading, lambda scored: BUILDERS[kind](scored, **options))
            if isinstance(found, Unpaired):
                records.append(outcome_of(rnd, group.prompt.id, found.outcome, found.reason))
            else:
                records += [_pair(rnd, group.prompt.id, kind, c, r, reading) for c, r in found]
                records.append(outcome_of(rnd, group.prompt.id, "paired"))
        return records

    return build


def _preferences(group: Group, reading: Reading, builder: Builder) -> Sequence[tuple[Scored, Scored]] | Unpaired:
    if len(group.completions) > 1 and len({c.text for c in group.completions}) == 1:
        return Unpaired("identical", f"all {len(group.completions)} completions have the same text")
    scored = [Scored(reading.scores[c.id], c) for c in group.completions if c.id in reading.scores]
    if len(scored) < 2:
        return Unpaired("abstained", f"the judge scored {len(scored)} of {len(group.completions)} completions")
    found = builder(scored)
    if isinstance(found, Unpaired):
        return found
    won = [(c, r) for c, r in found if _p_chosen(c, r, reading) > 0.5]
    return won or Unpaired("tie", f"the judge's own duels do not prefer any of the {len(found)} pairs built on scores")


def _p_chosen(chosen: Scored, rejected: Scored, reading: Reading) -> float:
    """The judge's own probability where it compared these two, else 1: the higher score is better."""
    return reading.duels.get((chosen.completion.id, rejected.completion.id), 1.0)


def _pair(rnd: Round, prompt_id: str, builder: str, chosen: Scored, rejected: Scored, reading: Reading) -> Pair:
    chosen_id, rejected_id = chosen.completion.id, rejected.completion.id
    return Pair(
        id=make_id("pair", run=rnd.run, round=rnd.index, chosen=chosen_id, rejected=rejected_id),
        run=rnd.run,
        round=rnd.index,
        prompt_id=prompt_id,
        chosen_id=chosen_id,
        rejected_id=rejected_id,
        p_chosen=_p_chosen(chosen, rejected, reading),
        margin=chosen.score - rejected.score,
        weight=1.0,
        builder=builder,
    )


def outcome_of(rnd: Round, prompt_id: str, outcome: Outcome, reason: str = "") -> PromptOutcome:
    cause = make_id("outcome", run=rnd.run, round=rnd.index, prompt=prompt_id)
    return PromptOutcome(cause, rnd.run, rnd.index, prompt_id, outcome, reason)
