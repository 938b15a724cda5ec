"""A tree of partial answers to one prompt, and where a search goes on in it: MCTS-DPO, arXiv:2405.00451.

A step is what an answer adds up to its next boundary. Full answers are sampled from a step on; what a step is worth is
the mean value of those below it, and its visits are their number. When a step is expanded, each full answer that goes
on from it is cut at its next boundary: these are its children. So siblings are always next steps of one partial answer.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import exp, sqrt
from statistics import fmean

from sparring.loop.types import Completion

Cut = Callable[[Sequence[int], int], int]  # the tokens of an answer, and where a step begins -> where it ends

PRIOR_LENGTH = 1.25  # the power of a step's length that its log-prob is divided by, in the authors' code


@dataclass(frozen=True)
class Search:
    """How a tree is searched. After `depth` steps an answer is not cut any more."""

    depth: int = 3
    actions: int = 2  # answers that a step is expanded with, those counted that go on from it already
    iterations: int = 16
    rollouts: int = 1  # full answers that a new step gets, and the last steps again at each visit
    exploration: float = 1.0


@dataclass(frozen=True)
class Leaf:
    """A full answer and its value; None: the judge gave no answer."""

    completion: Completion
    value: float | None


@dataclass(eq=False)
class Step:
    """A partial answer: the first `end` tokens of `cut_from`, its own step being those from `start` on."""

    path: tuple[int, ...] = ()  # its number among its siblings, and that of all steps before it; none: no step yet
    cut_from: Completion | None = None
    start: int = 0
    end: int = 0
    children: list["Step"] = field(default_factory=list)
    leaves: list[Leaf] = field(default_factory=list)  # those that go on from here, and through no child
    drawn: int = 0  # how many were sampled from here

    @property
    def token_ids(self) -> Sequence[int]:
        return self.cut_from.token_ids[: self.end] if self.cut_from else ()

    @property
    def logprobs(self) -> Sequence[float]:
        return self.cut_from.logprobs[: self.end] if self.cut_from else ()

    @property
    def ended(self) -> bool:
        """Whether the answer ends with this step: it is a full one."""
        return self.cut_from is not None and self.end == len(self.cut_from.token_ids)

    @property
    def prior(self) -> float:
        """p = exp(sum of log P of its tokens / length^1.25)."""
        own = self.logprobs[self.start :]
        return exp(sum(own) / len(own) ** PRIOR_LENGTH)

    @property
    def below(self) -> Iterator[Leaf]:
        yield from self.leaves
        for child in self.children:
            yield from child.below

    @property
    def visits(self) -> int:
        return sum(1 for _ in self.below)

    @property
    def value(self) -> float | None:
        """The mean over the full answers below that have a value."""
        told = [leaf.value for leaf in self.below if leaf.value is not None]
        return fmean(told) if told else None

    @property
    def open(self) -> bool:
        """Whether the search can go on from here, or from a step below."""
        return any(child.open for child in self.children) if self.children else not self.ended


def puct(parent: Step, child: Step, exploration: float) -> float:
    """Q + w p sqrt(N_parent) / (1 + N): the value of a child, and more the likelier and the less visited it is.

    A child without a value is thought of as its parent, and that as 0 where nothing has a value.
    """
    known = [q for q in (child.value, parent.value, 0.0) if q is not None]
    return known[0] + exploration * child.prior * sqrt(parent.visits) / (1 + child.visits)


def select(root: Step, exploration: float) -> Step | None:
    """The step to go on from: the best child of the best child; None where all answers have ended."""
    if not root.open:
        return None
    step = root
    while step.children:
        step = max((c for c in step.children if c.open), key=lambda child: puct(step, child, exploration))
    return step


def expand(step: Step, cut: Cut) -> int:
    """Cut the answers that go on from a step at their next boundary. Those with the same tokens up to there are one
    child; returns how many siblings that saved."""
    children: dict[tuple[int, ...], Step] = {}
    for leaf in step.leaves:
        tokens = leaf.completion.token_ids
        end = cut(tokens, step.end)
        made = Step((*step.path, len(children)), leaf.completion, step.end, end)
        children.setdefault(tuple(tokens[step.end : end]), made).leaves.append(leaf)
    same = len(step.leaves) - len(children)
    step.children, step.leaves = list(children.values()), []
    return same


def every(count: int) -> Cut:
    """Steps of so many tokens."""
    return lambda tokens, start: min(start + count, len(tokens))


def after(stop: str, decode: Callable[[Sequence[int]], str]) -> Cut:
    """Steps that end with the token which completes `stop` in their text; blanks at a step's beginning do not count."""

    def end(tokens: Sequence[int], start: int) -> int:
        def complete(end: int) -> bool:
            return stop in decode(tokens[start:end]).lstrip()

        if not complete(len(tokens)):
            return len(tokens)
        return bisect_left(range(len(tokens)), True, lo=start + 1, key=complete)  # once complete, it stays so

    return end
