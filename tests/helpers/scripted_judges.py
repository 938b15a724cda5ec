"""Judges whose verdicts a test states as a function of texts. They make real rows, calls with a price included."""

from collections.abc import Callable, Iterator, Sequence

from sparring.loop.judgements import Disagreement, Pairwise, Pointwise, duel_id, duels, score_id, unjudged
from sparring.loop.types import Group, JudgeCall, Judgement, JudgementStatus


class DuelJudge(Pairwise):
    """`told(first, second)`: P(the answer shown first wins), or None with the reason `why`. A group a chunk."""

    def __init__(
        self,
        told: Callable[[str, str], float | None],
        *,
        disagreement: Disagreement = "tie",
        why: str = "",
        name: str = "duels",
    ) -> None:
        self.told, self.disagreement, self.why, self.name = told, disagreement, why, name
        self.asked = 0

    def judge(self, groups: Sequence[Group]) -> Iterator[list[Judgement | JudgeCall]]:
        for group in groups:
            known = {(j.completion_id, j.rival_id, j.order) for j in group.judged}
            chunk: list[Judgement | JudgeCall] = []
            for a, b in duels(group):
                for order in (0, 1):
                    if (a.id, b.id, order) in known:
                        continue
                    self.asked += 1
                    p = self.told(a.text, b.text) if order == 0 else self.told(b.text, a.text)
                    value = p if p is None or order == 0 else 1 - p
                    id = duel_id(self.name, a, b, order)
                    error = "" if value is not None else "refused"
                    chunk.append(Judgement(id, self.name, a.id, b.id, "", "", order, value, self.why if error else ""))
                    chunk.append(JudgeCall(f"call_{id}", self.name, id, 1, "m", "A", error, 100, 1, 0.25, 0.1))
            yield chunk


class ScoreJudge(Pointwise):
    """`told(prompt, answer)`: its score, or None with the reason `why`. A group a chunk, no calls."""

    def __init__(
        self,
        told: Callable[[str, str], float | None],
        *,
        why: str = "",
        status: JudgementStatus = "abstained",
        name: str = "scores",
    ) -> None:
        self.told, self.why, self.status, self.name = told, why, status, name
        self.asked = 0

    def judge(self, groups: Sequence[Group]) -> Iterator[list[Judgement]]:
        for group in groups:
            chunk = []
            for c in unjudged(group):
                self.asked += 1
                value = self.told(group.prompt.messages[-1]["content"], c.text)
                why = self.why if value is None else ""
                chunk.append(
                    Judgement(score_id(self.name, c), self.name, c.id, None, "", "", 0, value, why, self.status)
                )
            yield chunk
