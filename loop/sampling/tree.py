"""A tree of partial answers to one prompt, and the selection of steps in it: MCTS-DPO, arXiv:2405.00451.

A step is the part of an answer up to its next boundary. Full answers are sampled as continuations of a step. The value
of a step is the mean value of the full answers below it, and its visits are their number. Expanding a step cuts each
full answer that continues it at the next boundary, and the pieces become its children. So siblings are always next
steps of one partial answer.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import exp, sqrt
from statistics import fmean

from sparring.loop.types import Completion

Cut = Callable[[Sequence[int], int], int]  # (the tokens of an answer, the start of a step) -> the end of the step

PRIOR_LENGTH = 1.25  # exponent of the step length that divides the step's log-prob, as in the authors' code


@dataclass(frozen=True)
class Leaf:
    """A full answer and its value, None if the judge gave no answer."""

    completion: Completion
    value: float | None


@dataclass(eq=False)
class Step:
    """A partial answer: the first `end` tokens of `cut_from`. Its last step begins at `start`."""

    path: tuple[int, ...] = ()  # the numbers of all steps up to this one among their siblings; empty for the root
    cut_from: Completion | None = None
    start: int = 0
    end: int = 0
    children: list["Step"] = field(default_factory=list)
    leaves: list[Leaf] = field(default_factory=list)  # full answers that continue this step and are not in a child
    drawn: int = 0  # full answers sampled from here

    @property
    def token_ids(self) -> Sequence[int]:
        return self.cut_from.token_ids[: self.end] if self.cut_from else ()

    @property
    def logprobs(self) -> Sequence[float]:
        return self.cut_from.logprobs[: self.end] if self.cut_from else ()

    @property
    def ended(self) -> bool:
        """Whether the answer ends with this step, so that it is a full answer."""
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
        """The mean value of the full answers below, without those that have none."""
        values = [leaf.value for leaf in self.below if leaf.value is not None]
        return fmean(values) if values else None

    @property
    def open(self) -> bool:
        """Whether the search can continue from here or from a step below."""
        return any(child.open for child in self.children) if self.children else not self.ended


def puct(parent: Step, child: Step, exploration: float) -> float:
    """Q + w p sqrt(N_parent) / (1 + N): the value of a child, plus a bonus for likely and rarely visited children.

    A child without a value counts as its parent, and as 0 if that has no value either.
    """
    values = [q for q in (child.value, parent.value, 0.0) if q is not None]
    return values[0] + exploration * child.prior * sqrt(parent.visits) / (1 + child.visits)


def select(root: Step, exploration: float) -> Step | None:
    """The step to continue from, found by taking the best child repeatedly; None if all answers have ended."""
    if not root.open:
        return None
    step = root
    while step.children:
        step = max((c for c in step.children if c.open), key=lambda child: puct(step, child, exploration))
    return step


def expand(step: Step, cut: Cut) -> int:
    """Cut the answers that continue a step at their next boundary, and make them its children.

    Answers with the same tokens up to the boundary share a child. Returns the number of siblings that this saved.
    """
    children: dict[tuple[int, ...], Step] = {}
    for leaf in step.leaves:
        tokens = leaf.completion.token_ids
        end = cut(tokens, step.end)
        child = Step((*step.path, len(children)), leaf.completion, step.end, end)
        children.setdefault(tuple(tokens[step.end : end]), child).leaves.append(leaf)
    same = len(step.leaves) - len(children)
    step.children, step.leaves = list(children.values()), []
    return same


def every(count: int) -> Cut:
    """Cuts steps of `count` tokens."""
    return lambda tokens, start: min(start + count, len(tokens))


def after(stop: str, decode: Callable[[Sequence[int]], str]) -> Cut:
    """Cuts after the token that completes `stop` in a step's text, without the whitespace at the step's beginning."""

    def end(tokens: Sequence[int], start: int) -> int:
        def complete(end: int) -> bool:
            return stop in decode(tokens[start:end]).lstrip()

        if not complete(len(tokens)):
            return len(tokens)
        return bisect_left(range(len(tokens)), True, lo=start + 1, key=complete)  # once complete, it stays so

    return end
