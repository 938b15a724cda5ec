"""What builders and filters pass on: a prompt's candidates, the choices among them, and reasons for having none."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sparring.loop.judgements import Scores, full_answers
from sparring.loop.types import Completion, Judgement, Outcome


@dataclass(frozen=True, slots=True)
class Scored:
    score: float
    completion: Completion


@dataclass(frozen=True, slots=True)
class Choice:
    """A preference. `p` is the probability that chosen is better; None stands for the judge's reading of the two."""

    chosen: Scored
    rejected: Scored
    reference_sample: Completion | None = None  # for losses that explore, see `ranked`
    p: float | None = None
    weight: float = 1.0
    named_margin: float | None = None  # None stands for the difference of the two scores

    @property
    def margin(self) -> float:
        return self.chosen.score - self.rejected.score if self.named_margin is None else self.named_margin


@dataclass(frozen=True, slots=True)
class Named:
    """A pair that a query names, with the probability, margin and weight that the query gives it."""

    chosen_id: str
    rejected_id: str
    p_chosen: float | None
    margin: float | None
    weight: float | None
    reference_sample_id: str | None


@dataclass(frozen=True, slots=True)
class Pick:
    """A single answer to learn from, with its reward or label."""

    completion: Completion
    reward: float
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Unpaired:
    """The reason why there is nothing to learn from a prompt."""

    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class Candidates:
    """One prompt's completions in sample order, of every origin, with their judgements."""

    completions: Sequence[Completion]
    reading: Scores
    judgements: Sequence[Judgement] = ()  # the raw judgements of these completions
    named: Sequence[Named] = ()  # the pairs of them that a query names
    unanswered: int = 0  # completions that are left out, because their thought was not closed

    @property
    def full(self) -> tuple[Completion, ...]:
        """The completions without partial answers, which another completion continues."""
        return full_answers(self.completions)

    @property
    def scored(self) -> list[Scored]:
        """The full answers that have a score."""
        scores = self.reading.scores
        return [Scored(scores[c.id], c) for c in self.full if c.id in scores]


@dataclass(frozen=True, slots=True)
class Row:
    """What a filter looks at: a choice or a pick, and the candidates it comes from."""

    item: Choice | Pick
    candidates: Candidates

    @property
    def prompt_id(self) -> str:
        return self.candidates.completions[0].prompt_id


@dataclass(frozen=True, slots=True)
class Dropped:
    """A filter's decision to drop a row; `why` holds the number that decided."""

    why: str


Builder = Callable[..., Sequence[Choice] | Sequence[Pick] | Unpaired]
Filter = Callable[..., list[Row | Dropped]]  # takes all rows of the round, returns one verdict per row, in order
