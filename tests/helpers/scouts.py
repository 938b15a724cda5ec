"""A cheap judge of several members for tests: each scores a text by a function of its own."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from sparring.loop.errors import StepError
from sparring.loop.judgements import Pointwise, score_id
from sparring.loop.types import Group, Judgement

Member = Callable[[str], float | None]


class Scouts(Pointwise):
    """One completion a chunk; dies when it has scored `dies_after`. What a member leaves out has no score."""

    def __init__(self, *told_by: Member, name: str = "scouts", dies_after: int | None = None) -> None:
        self.told_by, self.name, self.dies_after = told_by, name, dies_after
        self.asked: list[str] = []

    @property
    def members(self) -> int:
        return len(self.told_by)

    def missing(self, group: Group) -> int:
        return super().missing(group) * self.members

    def judge(self, groups: Sequence[Group]) -> Iterator[list[Judgement]]:
        for group in groups:
            known = {j.completion_id for j in group.judged}
            for c in (c for c in group.completions if c.id not in known):
                if len(self.asked) == self.dies_after:
                    raise StepError("the machine is gone; start it again")
                self.asked.append(c.text)
                yield [
                    Judgement(score_id(self.name, c, str(k)), self.name, c.id, None, str(k), "", 0, member(c.text))
                    for k, member in enumerate(self.told_by)
                ]

    def member_scores(self, judgements: Sequence[Judgement]) -> Mapping[str, Sequence[float]]:
        assert all(j.judge == self.name and j.member in map(str, range(self.members)) for j in judgements)
        told: dict[str, dict[str, float | None]] = {}
        for j in judgements:
            told.setdefault(j.completion_id, {})[j.member] = j.value
        return {
            completion: [v for _, v in sorted(found.items()) if v is not None]
            for completion, found in told.items()
            if None not in found.values()
        }
