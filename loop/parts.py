"""The five parts a loop is made of. Anything with these methods will do.

Makers (sampler, judge, learner) are generators of chunks. A chunk is what the store commits in one transaction, all of
it or nothing, so a crash keeps every chunk that came before it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sparring.loop.judgements import Scores
from sparring.loop.types import (
    Answers,
    Checkpoint,
    Completion,
    Divergence,
    Evaluation,
    Example,
    Experience,
    Group,
    JudgeCall,
    Judgement,
    LogProb,
    Pair,
    Prompt,
    PromptOutcome,
    PromptTokens,
    Record,
    Round,
    Update,
    UpdateStep,
)

if TYPE_CHECKING:
    import pyarrow as pa


Sampled = Completion | PromptOutcome | PromptTokens


class Sampler(Protocol):
    """Writes completions of prompts."""

    def sources(self, rnd: Round) -> Sequence[Round]:
        """Who else answers the prompts of a round: views of it with another policy or origin."""
        ...

    def sample(self, rnd: Round, prompts: Sequence[Prompt]) -> Iterator[Sequence[Sampled]]:
        """Write completions of each prompt with `rnd.policy`; a prompt that cannot be sampled gets an outcome."""
        ...

    def sleep(self) -> None:
        """Give the accelerator to the learner until the next `sample`."""
        ...


class Judge(Protocol):
    """Judgements are raw: one row a member, principle and order. What they come to, `read` says."""

    @property
    def name(self) -> str:
        """Names all that shapes a verdict: judges that may answer differently have different names."""
        ...

    @property
    def weights(self) -> Sequence[str]:
        """Hashes of the models that it runs itself."""
        ...

    @property
    def compares(self) -> bool:
        """Whether it judges pairs of answers, and so needs a rival's answers to measure a policy."""
        ...

    def missing(self, group: Group) -> int:
        """How many judgements of a group are still to be made; those in `group.judged` are not."""
        ...

    def judge(self, groups: Sequence[Group]) -> Iterator[Sequence[Judgement | JudgeCall]]:
        """Make the judgements that are missing, in chunks as they come."""
        ...

    def read(self, judgements: Sequence[Judgement]) -> Scores: ...


class Learner(Protocol):
    """Improves a policy on what a round gave."""

    def anchor(self, rnd: Round) -> Checkpoint:
        """The reference of a round that begins; `rnd.reference` is that of the round before."""
        ...

    def references(self, rnd: Round) -> Sequence[Checkpoint]:
        """The checkpoints that the update of a round compares with: none, one, or the parts of a mixture."""
        ...

    def score(self, checkpoint: Checkpoint, rows: "pa.Table") -> Iterator[Sequence[LogProb]]:
        """log P under `checkpoint` of each completion in `rows` that has none yet.

        The rows are those of `Store.training_rows`, with `checkpoint` as their one reference.
        """
        ...

    def diverge(self, policy: Checkpoint, reference: Checkpoint, rows: "pa.Table") -> Iterator[Sequence[Divergence]]:
        """KL(policy || reference) along each answer in `rows` (see Store.answers) that has none yet."""
        ...

    def learn(self, rnd: Round, training_rows: "pa.Table") -> tuple[Checkpoint, Update, Sequence[UpdateStep]]:
        """Improve `rnd.policy` on its training rows (see Store.training_rows) and write the candidate to disk."""
        ...


class Evaluator(Protocol):
    """Measures a policy on held-out prompts, and says whether the loop goes on with it."""

    @property
    def rival(self) -> str: ...

    def evaluate(
        self, rnd: Round, candidate: Experience, rival: Experience, divergences: Sequence[float]
    ) -> Sequence[Evaluation]:
        """Measure `rnd.policy` from what it and its rival wrote on held-out prompts."""
        ...


class Store(Protocol):
    """The memory of a loop: each step asks it what is missing, and adds that."""

    def add(self, chunks: Iterable[Sequence[Record]]) -> int:
        """Commit each chunk in one transaction; a record that is there already is left as it is."""
        ...

    def unsampled(self, rnd: Round) -> list[Prompt]: ...
    def experience(self, rnd: Round | Answers, judge: str) -> Experience:
        """The completions that a round has of its prompts, and all that the judge has said of them. Of held-out
        prompts: those of `rnd.policy`."""
        ...

    def begun(self, rnd: Round) -> Round | None:
        """The round as it began, if it did."""
        ...

    def training_rows(self, rnd: Round, references: Sequence[Checkpoint]) -> "pa.Table":
        """The pairs or groups that the round learns from, with their log-probs under each reference."""
        ...

    def answers(self, rnd: Round) -> "pa.Table": ...
    def updated(self, rnd: Round) -> Checkpoint | None: ...
    def evaluated(self, rnd: Round) -> list[Evaluation]: ...


Pairing = Callable[[Round, Experience], Sequence[Pair | Example | PromptOutcome]]
Choose = Callable[[Round], Sequence[str]]
OnChunk = Callable[[str, int, Iterator[Sequence[Record]]], Iterator[Sequence[Record]]]
Run = Callable[..., Any]


def passthrough(step: str, total: int, chunks: Iterator[Sequence[Record]]) -> Iterator[Sequence[Record]]:
    return chunks


def call(step: Run, *args: Any) -> Any:
    return step(*args)


@dataclass(frozen=True)
class Parts:
    store: Store
    sampler: Sampler
    judge: Judge
    pairing: Pairing
    learner: Learner
    evaluator: Evaluator
    train: tuple[str, ...]  # ids of the train prompts, in the order rounds take them
    held_out: tuple[str, ...]  # ids of the eval prompts
    per_round: int  # prompts a round
    eval_judge: Judge | None = None  # judges held-out answers; None: `judge` does
    max_abstain: float = 0.5  # share of judgements without an answer from which on the judge step stops
    choose: Choose | None = None  # the prompts that a round plays first; None: those that are next in `train`
    on_chunk: OnChunk = passthrough  # sees every chunk on its way into the store: progress, timing
