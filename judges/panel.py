"""Several judges in one: a verdict stands if enough of them agree (the idea of arXiv:2404.18796).

Judges of different families share fewer faults than repeated answers of one judge. Their scores have different scales
and are never averaged: each member names the winner of each duel, and the panel counts.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean

from sparring.judges.inner import Inner
from sparring.loop import traits
from sparring.loop.errors import ConfigError
from sparring.loop.judgements import SEPARATOR, Duel, Scores, duel_id, duel_scores, duels, from_duels
from sparring.loop.parts import Judge
from sparring.loop.types import Completion, Group, JudgeCall, Judgement, digest


@traits.judge(parts={"judges": "several"})
class Panel:
    """A judge of pairs made of judges of any kind, which judge one after another.

    Its rows are its members' own, with the panel as judge and the member's name in `member`. P(win) is the mean over
    the members that have an answer. It stands if more members name that winner than the other, and at least the share
    `min_agreement` of all members does (a member without an answer names nobody). Otherwise the duel is a tie.
    Raises ConfigError for judges that cannot form a panel.
    """

    compares = True

    def __init__(self, judges: Sequence[Judge], min_agreement: float = 0.5) -> None:
        names = [judge.name for judge in judges]
        if len(names) < 2 or len({*names}) < len(names):
            raise ConfigError(f"judge panel: its judges are {names}; expected two or more that differ")
        if wrong := [name for name in names if SEPARATOR in name]:
            raise ConfigError(f"judge panel: a judge is named {wrong[0]!r}; expected a name without {SEPARATOR!r}")
        if not 0 <= min_agreement <= 1:
            raise ConfigError(f"judge panel: min_agreement is {min_agreement}; expected a share from 0 to 1")
        self._judges, self._min_agreement = list(judges), min_agreement
        self.name = f"panel-{digest([sorted(names), min_agreement], 4)}"
        pairwise = [judge if judge.compares else Duelling(judge) for judge in judges]
        self._members = [Inner(judge, self.name, judge.name) for judge in pairwise]
        self.weights = tuple(weights for judge in judges for weights in judge.weights)

    def close(self) -> None:
        for judge in self._judges:
            if close := getattr(judge, "close", None):
                close()

    def missing(self, group: Group) -> int:
        return sum(member.missing(group) for member in self._members)

    def judge(self, groups: Sequence[Group]) -> Iterator[list[Judgement | JudgeCall]]:
        for member in self._members:
            yield from member.ask(groups)

    def read(self, judgements: Sequence[Judgement]) -> Scores:
        """A completion's score is the mean over its duels."""
        by_duel: dict[Duel, list[float]] = defaultdict(list)
        for member in self._members:
            for (a, b), p in member.read(judgements).duels.items():
                if a < b:  # the other direction is its mirror
                    by_duel[a, b].append(p)
        return from_duels({duel: self._agreed(p) for duel, p in by_duel.items()})

    def _agreed(self, values: Sequence[float]) -> float:
        p = fmean(values)
        wins, losses = sum(x > 0.5 for x in values), sum(x < 0.5 for x in values)
        ours, others = (wins, losses) if p > 0.5 else (losses, wins)
        return p if ours > others and ours / len(self._members) >= self._min_agreement else 0.5


class Duelling:
    """A judge of single answers as a judge of pairs: the answer with the higher score wins; equal scores tie.

    Beside the scores there is one row per duel and order (P = 1, 0 or 0.5), because a score alone does not say which
    answers were compared. An answer without a score has no duel.
    """

    compares = True

    def __init__(self, judge: Judge) -> None:
        self._judge, self.name, self.weights = judge, judge.name, judge.weights

    def missing(self, group: Group) -> int:
        to_score = self._judge.missing(_entrants(group))
        return to_score + (2 * len(duels(group)) if to_score else len(self._decided(group)))

    def judge(self, groups: Sequence[Group]) -> Iterator[list[Judgement | JudgeCall]]:
        """The duels of a group come in the chunk that completes its scores."""
        to_score = [self._judge.missing(_entrants(group)) > 0 for group in groups]
        scored = [group for group, more in zip(groups, to_score, strict=True) if not more]
        if rows := [row for group in scored for row in self._decided(group)]:
            yield list(rows)
        unscored = [group for group, more in zip(groups, to_score, strict=True) if more]
        places = defaultdict(list)
        for i, group in enumerate(unscored):
            for completion in _entrants(group).completions:
                places[completion.id].append(i)
        for chunk in self._judge.judge([_entrants(group) for group in unscored]):
            touched = set()
            for score in (record for record in chunk if isinstance(record, Judgement)):
                for i in places[score.completion_id]:
                    unscored[i] = replace(unscored[i], judged=(*unscored[i].judged, score))
                    touched.add(i)
            done = [unscored[i] for i in sorted(touched) if not self._judge.missing(_entrants(unscored[i]))]
            yield [*chunk, *(row for group in done for row in self._decided(group))]

    def read(self, judgements: Sequence[Judgement]) -> Scores:
        return duel_scores(judgements)

    def _decided(self, group: Group) -> list[Judgement]:
        """The missing rows that follow from the scores of a group."""
        scores = self._judge.read(_entrants(group).judged).scores
        judged = {(j.completion_id, j.rival_id, j.order) for j in group.judged}
        return [
            self._row(a, b, order, scores[a.id], scores[b.id])
            for a, b in duels(group)
            for order in (0, 1)
            if a.id in scores and b.id in scores and (a.id, b.id, order) not in judged
        ]

    def _row(self, a: Completion, b: Completion, order: int, score: float, rival_score: float) -> Judgement:
        p = 0.5 if score == rival_score else float(score > rival_score)
        row_id = duel_id(self.name, a, b, order)
        return Judgement(row_id, self.name, a.id, b.id, "", "", order, p, f"{score:g} against {rival_score:g}")


def _entrants(group: Group) -> Group:
    """The completions that take part in a duel, with their scores."""
    completions = {c.id: c for duel in duels(group) for c in duel}
    judged = tuple(j for j in group.judged if j.rival_id is None and j.completion_id in completions)
    return Group(group.prompt, tuple(completions.values()), (), judged)
