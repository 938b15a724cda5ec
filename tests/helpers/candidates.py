"""What one prompt's builders see, from a few words: answers of any origin, of a tree, scored by members."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sparring.loop.judgements import Scores, mean_scores
from sparring.loop.pairing import Candidates, Choice, Pick, Unpaired
from sparring.loop.types import Completion, Experience, Group, Judgement, Origin, Prompt
from tests.helpers.experience import completion


@dataclass(frozen=True)
class Answer:
    """`score` may be of several members, by name. `parent` is the place of the partial answer in the prompt's list."""

    text: str
    score: float | Mapping[str, float | None] | None = None
    origin: Origin = "policy"
    parent: int | None = None
    tokens: Sequence[int] | None = None  # by default the code points of its text


def completions(prompt: str, answers: Sequence[Answer]) -> tuple[Completion, ...]:
    made = [completion(prompt, i, a.text, a.origin) for i, a in enumerate(answers)]
    return tuple(
        replace(
            c,
            origin=a.origin,
            parent_id=None if a.parent is None else made[a.parent].id,
            token_ids=[ord(letter) for letter in a.text] if a.tokens is None else a.tokens,
        )
        for c, a in zip(made, answers, strict=True)
    )


def said(of: Completion, score: float | Mapping[str, float | None] | None) -> list[Judgement]:
    by_member = score if isinstance(score, Mapping) else {"": score}
    return [Judgement(f"{of.id}/{m}", "judge", of.id, None, m, "", 0, value) for m, value in by_member.items()]


def gathered(answers: Mapping[str, Sequence[Answer]]) -> Experience:
    groups, judgements = [], []
    for prompt, given in answers.items():
        made = completions(prompt, given)
        groups.append(Group(Prompt(prompt, ({"role": "user", "content": prompt},)), made))
        judgements += [j for c, a in zip(made, given, strict=True) for j in said(c, a.score)]
    return Experience(tuple(groups), tuple(judgements))


def seen(*answers: Answer, duels: Mapping[tuple[str, str], float] | None = None, prompt: str = "p") -> Candidates:
    (group,) = (experience := gathered({prompt: answers})).groups
    reading = mean_scores(experience.judgements)
    return Candidates(group.completions, Scores(reading.scores, duels or {}), experience.judgements)


def flat(found: Sequence[Choice] | Sequence[Pick] | Unpaired) -> list[tuple[str, str, float]] | tuple[str, str]:
    """Choices as (chosen, rejected, margin), picks as (text, "", reward), otherwise (outcome, reason)."""
    if isinstance(found, Unpaired):
        return found.outcome, found.reason
    return [
        (item.completion.text, "", item.reward)
        if isinstance(item, Pick)
        else (item.chosen.completion.text, item.rejected.completion.text, item.chosen.score - item.rejected.score)
        for item in found
    ]
