"""A judge inside another. Its rows are stored under the outer judge's name, and read as its own."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from sparring.loop.judgements import SEPARATOR, Scores
from sparring.loop.parts import Judge
from sparring.loop.types import Group, JudgeCall, Judgement, make_id


@dataclass(frozen=True)
class Inner:
    """`judge` as a part of the judge named `outer`. The member of its rows begins with `path`."""

    judge: Judge
    outer: str
    path: str

    def missing(self, group: Group) -> int:
        return self.judge.missing(self._own(group))

    def ask(self, groups: Iterable[Group]) -> Iterator[list[Judgement | JudgeCall]]:
        """Make the missing rows, as rows of the outer judge."""
        open_groups = [own for own in map(self._own, groups) if self.judge.missing(own)]
        for chunk in self.judge.judge(open_groups):
            yield [self._stored(record) for record in chunk]

    def rows(self, judgements: Iterable[Judgement]) -> list[Judgement]:
        """The part's rows among those of the outer judge, as it made them except for their ids."""
        paths = ((j, j.member.partition(SEPARATOR)) for j in judgements)
        return [replace(j, judge=self.judge.name, member=own) for j, (path, _, own) in paths if path == self.path]

    def read(self, judgements: Sequence[Judgement]) -> Scores:
        return self.judge.read(self.rows(judgements))

    def _own(self, group: Group) -> Group:
        return replace(group, judged=tuple(self.rows(group.judged)))

    def _stored(self, record: Judgement | JudgeCall) -> Judgement | JudgeCall:
        if isinstance(record, JudgeCall):
            call_id = make_id("judge_call", judge=self.outer, of=record.id)
            return replace(record, id=call_id, judge=self.outer, judgement_id=self._id(record.judgement_id))
        member = f"{self.path}{SEPARATOR}{record.member}" if record.member else self.path
        return replace(record, id=self._id(record.id), judge=self.outer, member=member)

    def _id(self, of: str) -> str:
        return make_id("judgement", judge=self.outer, of=of)
