"""What a judge's raw judgements come to: scores, and duels won. Pure, so that it can be done again at any time.

A judgement without an answer (value None) never counts as a number. A duel is asked in both orders: where the orders
disagree on the winner the judge looked at the place and not at the answer, so the duel is a tie or no answer at all.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from statistics import fmean
from typing import Literal

from sparring.loop.errors import StepError
from sparring.loop.types import Completion, Experience, Group, JudgeCall, Judgement, make_id

SEPARATOR = "|"  # in `member`, between the parts of a judge that is made of judges and their own members
EXPLORER = "explorer"  # the part that chooses what is asked and decides nothing, see judges.active
PATIENCE = 20  # judgements before the share without an answer says anything

Disagreement = Literal["tie", "abstain"]
Duel = tuple[str, str]


@dataclass(frozen=True)
class Scores:
    """`scores`: of a completion. `duels`: P(first beats second), each duel in both directions. Absent: no answer."""

    scores: Mapping[str, float]
    duels: Mapping[Duel, float] = field(default_factory=dict)


def mean_scores(judgements: Iterable[Judgement]) -> Scores:
    """The mean over a completion's judgements that have a value."""
    values = defaultdict(list)
    for j in judgements:
        if j.rival_id is None and j.value is not None:
            values[j.completion_id].append(j.value)
    return Scores({completion_id: fmean(v) for completion_id, v in values.items()})


def both_orders(first: float | None, second: float | None, disagreement: Disagreement = "tie") -> float | None:
    """One verdict from P(completion beats rival) as told with the completion shown first, and shown second."""
    if first is None or second is None:
        return None
    if (first - 0.5) * (second - 0.5) < 0:
        return 0.5 if disagreement == "tie" else None
    return (first + second) / 2


def duel_scores(judgements: Iterable[Judgement], disagreement: Disagreement = "tie") -> Scores:
    """Duels from judgements of pairs, the mean over principles and members; a score is the mean over own duels."""
    asked: dict[tuple[str, str, str, str], dict[int, float | None]] = defaultdict(dict)
    for j in judgements:
        if j.rival_id is not None:
            asked[j.completion_id, j.rival_id, j.member, j.principle][j.order] = j.value
    told = defaultdict(list)
    for (completion, rival, _, _), orders in asked.items():
        p = both_orders(orders.get(0), orders.get(1), disagreement)
        if p is not None:
            told[completion, rival].append(p)
    return from_duels({duel: fmean(p) for duel, p in told.items()})


def from_duels(duels: Mapping[Duel, float]) -> Scores:
    """The reading of decided duels: each also seen from the other side, scores as the mean over own duels."""
    both = dict(duels) | {(rival, completion): 1 - p for (completion, rival), p in duels.items()}
    won = defaultdict(list)
    for (completion, _), p in both.items():
        won[completion].append(p)
    return Scores({completion: fmean(p) for completion, p in won.items()}, both)


def full_answers(completions: Sequence[Completion]) -> tuple[Completion, ...]:
    """Those that no other goes on from: in a tree of answers, the others are partial."""
    partial = {c.parent_id for c in completions}
    return tuple(c for c in completions if c.id not in partial)


def answers_in(completions: Sequence[Completion]) -> tuple[Completion, ...]:
    """Those that hold an answer: a thought that was not closed is none."""
    return tuple(c for c in completions if c.answered)


def to_judge(experience: Experience, rival: Experience | None, max_abstain: float) -> list[Group]:
    """The groups of an experience, each with what the judge has said of it, and with the rival's answers if given.

    Partial answers are left out: nobody is asked about them, so they cannot count as answered or not. So are
    completions without an answer, whose thought was not closed: there is nothing to judge.
    Judgements without an answer stand, unless there are so many that judging stopped: then they are asked again.
    """
    known = (*experience.judgements, *(rival.judgements if rival else ()))
    if _too_silent(known, max_abstain):
        known = tuple(j for j in known if j.value is not None)
    said = defaultdict(list)
    for j in known:
        said[j.completion_id].append(j)
    rivals = {g.prompt.id: g.completions for g in rival.groups} if rival else {}
    groups = (replace(g, completions=answers_in(full_answers(g.completions))) for g in experience.groups)
    return [_with(g, answers_in(rivals.get(g.prompt.id, ())), said) for g in groups]


def _with(group: Group, rivals: tuple[Completion, ...], said: Mapping[str, list[Judgement]]) -> Group:
    answers = {c.id: c for c in (*group.completions, *rivals)}  # at round 0 the policy is its own rival
    return replace(group, rivals=rivals, judged=tuple(j for completion_id in answers for j in said[completion_id]))


def _too_silent(judgements: Sequence[Judgement], max_abstain: float) -> Sequence[Judgement]:
    """The judgements of whom too many are without an answer; none where that is not so.

    A share says nothing of a few judgements, except where no reply came at all. An explorer is counted for itself: its
    many scores would hide that whoever decides is silent.
    """
    for explores in (False, True):
        told = [j for j in judgements if (j.member.partition(SEPARATOR)[0] == EXPLORER) == explores]
        silent = [j for j in told if j.value is None]
        enough = len(told) >= PATIENCE or any(map(_unreached, silent))
        if enough and len(silent) > max_abstain * len(told):
            return told
    return ()


def refuse_silence(
    chunks: Iterable[Sequence[Judgement | JudgeCall]], known: Sequence[Judgement], max_abstain: float, judge: str
) -> Iterator[Sequence[Judgement | JudgeCall]]:
    """Pass chunks on; raise StepError when the judge stops answering: too many of its judgements have no value.

    It looks after each chunk once it has seen enough, so a judge that is down costs few calls; and at the end.
    Judgements for which no reply came at all are held back to the end: a stop leaves them open to be asked again.
    """
    asked: list[Judgement] = []
    for chunk in chunks:
        yield [r for r in chunk if not _unreached(r)]  # comes back when it is stored: what was paid for is kept
        asked += [r for r in chunk if isinstance(r, Judgement)]
        if len(asked) >= PATIENCE:
            _refuse(asked, max_abstain, judge)
    if asked:
        _refuse([*known, *asked], max_abstain, judge)
    yield [j for j in asked if _unreached(j)]


def _unreached(record: Judgement | JudgeCall) -> bool:
    return isinstance(record, Judgement) and record.status == "unreached"


def _refuse(judgements: Sequence[Judgement], max_abstain: float, judge: str) -> None:
    if told := _too_silent(judgements, max_abstain):
        silent = [j for j in told if j.value is None]
        raise StepError(
            f"judge {judge} gave no answer to {len(silent)} of {len(told)} questions "
            f"({len(silent) / len(told):.0%}, more than judge.max_abstain {max_abstain:.0%}), the last: "
            f"{silent[-1].rationale or 'no reason given'}. What it did answer is stored. See that the judge is back "
            "and run the same command, or spar resume (open questions are asked again); or raise judge.max_abstain"
        )


def unjudged(group: Group) -> list[Completion]:
    """The completions of a group that a judge of single answers has yet to judge."""
    known = {j.completion_id for j in group.judged}
    return [c for c in group.completions if c.id not in known]


def duels(group: Group) -> list[tuple[Completion, Completion]]:
    """The pairs a judge of pairs compares: all of a group, or each answer with the rival's of the same number.

    Answers of one text need no judge: they are left out.
    """
    if group.rivals:
        rival = {c.sample: c for c in group.rivals}
        found = [(c, rival[c.sample]) for c in group.completions if c.sample in rival]
    else:
        found = list(combinations(group.completions, 2))
    return [(a, b) for a, b in found if a.id != b.id and a.text != b.text]


def score_id(judge: str, completion: Completion, member: str = "", principle: str = "") -> str:
    """The id of a judgement of one answer alone."""
    return make_id("judgement", judge=judge, completion=completion.id, member=member, principle=principle)


def duel_id(
    judge: str, completion: Completion, rival: Completion, order: int, member: str = "", principle: str = ""
) -> str:
    """The id of a judgement of a pair; `order` 0 shows `completion` first, 1 shows it second."""
    cause = {"completion": completion.id, "rival": rival.id, "order": order, "member": member, "principle": principle}
    return make_id("judgement", judge=judge, **cause)


class Pointwise:
    """What judges of single answers share."""

    compares = False

    @property
    def weights(self) -> Sequence[str]:
        return ()

    def missing(self, group: Group) -> int:
        return len(unjudged(group))

    def read(self, judgements: Sequence[Judgement]) -> Scores:
        return mean_scores(judgements)


class Pairwise:
    """What judges of pairs share. `principles` are asked one by one; most judges have the one, ''."""

    compares = True
    disagreement: Disagreement = "tie"

    @property
    def weights(self) -> Sequence[str]:
        return ()

    def missing(self, group: Group) -> int:
        known = {(j.completion_id, j.rival_id, j.order) for j in group.judged}
        return sum((a.id, b.id, order) not in known for a, b in duels(group) for order in (0, 1))

    def read(self, judgements: Sequence[Judgement]) -> Scores:
        return duel_scores(judgements, self.disagreement)
