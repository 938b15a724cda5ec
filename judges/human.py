"""People as judges: which two answers a person sees, on which side, and how a choice becomes a judgement. Pure.

A person sees two answers once, so the side is drawn by a hash of the duel and the person. The hash is always the same,
so one duel is one row whichever page or process asks. A skip is a judgement without an answer. An answer may fill it
later; nothing else about it ever changes.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from sparring.loop.errors import ConfigError
from sparring.loop.judgements import Scores, duel_id, duels, from_duels
from sparring.loop.types import Completion, Group, JudgeInfo, Judgement, Prompt, digest

QUESTION = "Which answer is better?"

Choice = Literal["left", "right", "tie", "skip"]
Both = frozenset[str]  # the ids of two answers, in no order
P_LEFT: dict[Choice, float | None] = {"left": 1.0, "right": 0.0, "tie": 0.5, "skip": None}


def people_judge(who: str) -> JudgeInfo:
    """A person as the store keeps them. Raises ConfigError for a name that is not one word."""
    if not re.fullmatch(r"[\w.@+-]{1,64}", who):
        raise ConfigError(
            f"the name of a person is {who!r}; expected up to 64 letters, digits or . _ @ + -: give --who NAME"
        )
    return JudgeInfo(f"people:{who}", "people", {"who": who, "question": QUESTION})


@dataclass(frozen=True)
class Question:
    """Two answers to a prompt, `completion` and `rival` as any judge of pairs is asked about them."""

    prompt: Prompt
    completion: Completion
    rival: Completion

    @property
    def both(self) -> Both:
        return frozenset((self.completion.id, self.rival.id))

    def order(self, judge: str) -> Literal[0, 1]:
        """0: this person sees the completion on the left, 1: on the right."""
        return 1 if int(digest([judge, self.completion.id, self.rival.id], 1), 16) % 2 else 0

    def shown(self, judge: str) -> tuple[str, str]:
        """The texts on the left and on the right."""
        texts = (self.completion.text, self.rival.text)
        return texts if self.order(judge) == 0 else (texts[1], texts[0])

    def judgement(self, judge: str, choice: Choice) -> Judgement:
        order, value = self.order(judge), P_LEFT[choice]
        if value is not None and order == 1:
            value = 1 - value
        id = duel_id(judge, self.completion, self.rival, order)
        why = "skipped" if choice == "skip" else ""
        return Judgement(id, judge, self.completion.id, self.rival.id, "", "", order, value, why)


def questions(groups: Iterable[Group], paired: Set[Both], seed: int) -> list[Question]:
    """The questions to ask, in an order drawn by the seed: every duel of a group with rivals, one of any other group.

    That one is among the `paired` duels if the group has any, because the policy learns from those. Two texts are asked
    about once, however many samples have them.
    """
    picked = [Question(g.prompt, a, b) for g in groups for a, b in _of_group(g, paired, seed)]
    return sorted(picked, key=lambda q: _draw(seed, q.completion, q.rival))


def _of_group(group: Group, paired: Set[Both], seed: int) -> list[tuple[Completion, Completion]]:
    by_text: dict[Both, tuple[Completion, Completion]] = {}
    for a, b in sorted(duels(group), key=lambda duel: frozenset((duel[0].id, duel[1].id)) not in paired):
        by_text.setdefault(frozenset((a.text, b.text)), (a, b))
    distinct = list(by_text.values())
    if group.rivals:
        return distinct
    preferred = [(a, b) for a, b in distinct if frozenset((a.id, b.id)) in paired] or distinct
    return sorted(preferred, key=lambda duel: _draw(seed, *duel))[:1]


def _draw(seed: int, completion: Completion, rival: Completion) -> str:
    return digest([seed, completion.id, rival.id])


def answered(judgements: Iterable[Judgement]) -> set[Both]:
    """The duels that have an answer in either order."""
    return {frozenset((j.completion_id, j.rival_id)) for j in judgements if j.rival_id and j.value is not None}


def read(judgements: Sequence[Judgement]) -> Scores:
    """Duels from people's judgements. One order is enough, since the sides are drawn; several answers are averaged."""
    values = defaultdict(list)
    for j in judgements:
        if j.rival_id is not None and j.value is not None:
            values[j.completion_id, j.rival_id].append(j.value)
    return from_duels({duel: fmean(p) for duel, p in values.items()})
