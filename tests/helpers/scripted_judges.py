"""Judges whose verdicts a test states as a function of texts. They make real rows, calls with a price included."""

from collections.abc import Callable, Iterator, Sequence

from sparring.loop.errors import StepError
from sparring.loop.judgements import Disagreement, Pairwise, Pointwise, Scores, duel_id, duels, score_id, unjudged
from sparring.loop.types import Completion, Group, JudgeCall, Judgement, JudgementStatus


class DuelJudge(Pairwise):
    """`told(first, second)`: P(the answer shown first wins), or None with the reason `why`. One group per chunk."""

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
    """`told(prompt, answer)`: its score, or None with the reason `why`. One group per chunk, no calls."""

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


class Scorer(Pointwise):
    """Scores a text by a function of it, one completion per chunk; fails after `dies_after` completions."""

    def __init__(self, name: str, score: Callable[[str], float | None], dies_after: int | None = None) -> None:
        self.name, self.score, self.dies_after = name, score, dies_after
        self.asked: list[str] = []

    def judge(self, groups: Sequence[Group]) -> Iterator[list[Judgement]]:
        for completion in (c for g in groups for c in unjudged(g)):
            if len(self.asked) == self.dies_after:
                raise StepError("the endpoint is gone; start it again")
            self.asked.append(completion.text)
            row_id = score_id(self.name, completion)
            value = self.score(completion.text)
            yield [Judgement(row_id, self.name, completion.id, None, "", "", 0, value)]

    def read(self, judgements: Sequence[Judgement]) -> Scores:
        """The scores of judgements that are all its own."""
        return Scores({j.completion_id: j.value for j in judgements if j.value is not None})


class Decider(Pairwise):
    """Returns P(a beats b) by a function of both texts, the same in both orders; each answer is one call."""

    def __init__(self, name: str, p: Callable[[str, str], float | None], member: str = "") -> None:
        self.name, self.p, self.member = name, p, member
        self.asked: list[tuple[str, str, int]] = []

    def judge(self, groups: Sequence[Group]) -> Iterator[list[Judgement | JudgeCall]]:
        known = {(j.completion_id, j.rival_id, j.order) for g in groups for j in g.judged}
        for a, b in (duel for g in groups for duel in duels(g)):
            for order in (0, 1):
                if (a.id, b.id, order) not in known:
                    yield self._answer(a, b, order)

    def _answer(self, a: Completion, b: Completion, order: int) -> list[Judgement | JudgeCall]:
        self.asked.append((a.text, b.text, order))
        row_id = duel_id(self.name, a, b, order, self.member)
        row = Judgement(row_id, self.name, a.id, b.id, self.member, "", order, self.p(a.text, b.text))
        return [row, JudgeCall(f"call/{row_id}", self.name, row_id, 1, "model", "A", "", 9, 1, None, 0.0)]
