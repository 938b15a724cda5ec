"""Active choice of duels: a cheap judge scores every answer, and says which two a dear one should compare.

Online exploration for alignment as in SEA (arXiv:2411.01493): an ensemble, the explorer, stands for what is not known
yet of the oracle's preferences, and the oracle is asked only what tells most.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from sparring.judges.choosing import CHOICES
from sparring.judges.inner import Inner
from sparring.loop import traits
from sparring.loop.errors import ConfigError
from sparring.loop.judgements import EXPLORER, Scores
from sparring.loop.options import nearest
from sparring.loop.parts import Judge
from sparring.loop.types import Completion, Group, JudgeCall, Judgement, derive_seed, digest

ORACLE = "oracle"
Chunk = list[Judgement | JudgeCall]


class Ensemble(Judge, Protocol):
    """A judge of single answers with several members, such as a reward_model of several."""

    @property
    def members(self) -> int:
        """How many score each completion."""
        ...

    def member_scores(self, judgements: Sequence[Judgement]) -> Mapping[str, Sequence[float]]:
        """Of each completion that all members scored, their scores on one scale, in one order."""
        ...


@traits.judge(
    parts={EXPLORER: "one", ORACLE: "one"},
    cannot_measure="it has an opinion of two answers per prompt, and held-out answers need one each",
    cannot_join={
        "panel": "the members of a panel judge the same duels",
        "active": "its oracle and its explorer judge what they are given",
    },
)
class ActiveJudge:
    """Puts two answers a prompt to `oracle`, chosen by the scores of `explorer`; the oracle's reading decides.

    `choose` is thompson, uncertainty or best_vs_uncertain (see judges.choosing). Draws come from `seed`, the round and
    the prompt. The two differ in text, and all the explorer's members have scored them; without two such answers
    nothing is asked. What was once put to the oracle stands. Rows of both are kept: `member` begins with "explorer" or
    "oracle". It has no opinion of other answers, so it cannot measure a policy: nor does it take rivals.
    Raises ConfigError for an explorer without members that can disagree, and for options out of range.
    """

    def __init__(self, explorer: Judge, oracle: Judge, *, choose: str = "thompson", seed: int = 0) -> None:
        if choose not in CHOICES:
            known = ", ".join(CHOICES)
            raise ConfigError(f"judge active: choose is {choose!r}{nearest(choose, CHOICES)}; wanted one of {known}")
        if type(seed) is not int or seed < 0:
            raise ConfigError(f"judge active: seed is {seed!r}; wanted a whole number of at least 0")
        self._ensemble, self.oracle = _ensemble(explorer), oracle
        self._choose, self._seed = CHOICES[choose], seed
        self.name = f"active-{digest([explorer.name, oracle.name, choose, seed])}"
        self.compares = oracle.compares
        self._explorer = Inner(explorer, self.name, EXPLORER)
        self._oracle = Inner(oracle, self.name, ORACLE)

    @property
    def weights(self) -> Sequence[str]:
        return (*self._ensemble.weights, *self.oracle.weights)

    def close(self) -> None:
        for judge in (self._ensemble, self.oracle):
            if close := getattr(judge, "close", None):
                close()

    def missing(self, group: Group) -> int:
        """Which two will be asked about is open while scores are missing, but not how many judgements that takes."""
        to_score = self._explorer.missing(group)
        duel = self._chosen(group) or (_texts(group.completions)[:2] if to_score else [])
        return to_score + (self._oracle.missing(_only(group, duel)) if len(duel) > 1 else 0)

    def judge(self, groups: Sequence[Group]) -> Iterator[Chunk]:
        """All scores first; then the duels that they choose."""
        said: dict[str, list[Judgement]] = defaultdict(list)
        for chunk in self._explorer.ask(groups):
            for row in (record for record in chunk if isinstance(record, Judgement)):
                said[row.completion_id].append(row)
            yield chunk
        scored = [_with(group, said) for group in groups]
        yield from self._oracle.ask(_only(group, self._chosen(group)) for group in scored)

    def read(self, judgements: Sequence[Judgement]) -> Scores:
        return self._oracle.read(judgements)

    def _chosen(self, group: Group) -> list[Completion]:
        """The two answers of the duel, in the order of the group, or none."""
        told = self._oracle.told(group.judged)
        asked = {j.completion_id for j in told} | {j.rival_id for j in told}
        if len(stands := [c for c in group.completions if c.id in asked]) > 1:
            return stands
        scores = self._ensemble.member_scores(self._explorer.told(group.judged))
        arms = _texts([c for c in group.completions if c.id in scores])
        if len(arms) < 2:
            return []
        chosen = self._choose([scores[c.id] for c in arms], derive_seed(self._seed, arms[0].round, group.prompt.id))
        return [arms[i] for i in sorted(chosen)]


def _ensemble(explorer: Judge) -> Ensemble:
    found = getattr(explorer, "members", 1) if hasattr(explorer, "member_scores") else 1
    if explorer.compares or found < 2:
        raise ConfigError(
            f"judge active: its explorer {explorer.name} has no members that could disagree; wanted an ensemble of "
            "judges of single answers, such as {kind: reward_model, model: [one, another], scales: [...]}"
        )
    return explorer  # type: ignore[return-value]


def _only(group: Group, completions: Sequence[Completion]) -> Group:
    """The group with these completions alone, and what is said of them."""
    if group.rivals:
        raise ConfigError("judge active cannot set answers beside a rival's; set evaluate.judge to another judge")
    ids = {c.id for c in completions}
    judged = tuple(j for j in group.judged if j.completion_id in ids)
    return replace(group, completions=tuple(completions), judged=judged)


def _texts(completions: Sequence[Completion]) -> list[Completion]:
    """The first completion of each text, in order."""
    first: dict[str, Completion] = {}
    for completion in completions:
        first.setdefault(completion.text, completion)
    return list(first.values())


def _with(group: Group, said: Mapping[str, Sequence[Judgement]]) -> Group:
    """The group with new judgements beside those that it has."""
    known = {j.id for j in group.judged}
    new = {j.id: j for c in group.completions for j in said.get(c.id, ()) if j.id not in known}
    return replace(group, judged=(*group.judged, *new.values()))
