"""What must be known of a part before it runs, said by a decorator on the part itself.

A plain function needs no decorator: every trait has the value that holds for most parts. Imports nothing heavy.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import update_wrapper
from typing import Any, Literal, ParamSpec, Protocol, TypeVar

P = TypeVar("P", bound=Callable[..., Any])
Options = ParamSpec("Options")
Baseline = Literal["none", "running", "mismatched"]
Aside = Literal["rationale", "degree"]
MARK = "__sparring__"


@dataclass(frozen=True, kw_only=True)
class LossTraits:
    """Of `loss(logps, **options) -> (B,)`, or with of="groups" of `loss(groups, **options) -> (G,)`."""

    of: Literal["pairs", "groups"] = "pairs"  # Logps -> (B,), or Groups -> (G,)
    reference_free: bool = False  # never looks at the reference
    batch_dependent: bool = False  # a pair's value depends on the other pairs of its micro-batch
    baseline: Baseline = "none"  # running: mean log-ratio of all answers; mismatched: of answers to other prompts
    of_difference: bool = False  # a function of the difference of two log-ratios, for which f-DPO is derived
    clippable: bool = True  # whether it has a meaning on clipped ratios


@dataclass(frozen=True, kw_only=True)
class ModifierTraits:
    """Of `modifier(logps, **options) -> Logps`: what changes the scores or weights that a loss sees."""

    fits: Callable[[LossTraits], bool] = lambda loss: True  # whether it has a meaning for a loss


@dataclass(frozen=True, kw_only=True)
class RegulariserTraits:
    """Of `regulariser(logps, **options) -> (B,)`: what is added beside a loss."""

    needs_sample: bool = False  # a reference sample beside each pair
    aside: Aside | None = None  # what else is learned beside a pair


@dataclass(frozen=True, kw_only=True)
class BuilderTraits:
    """Of `builder(candidates, **options)`, which gives choices (or picks, for examples), or says why not."""

    gives: Literal["pairs", "examples"] = "pairs"
    scores: bool = True  # whether it looks at a judge's scores
    partial: bool = False  # whether its answers may be partial, with equal beginnings
    by_query: bool = False  # a query to the store names the pairs
    needs: Literal["reference", "dataset"] | None = None  # who must answer beside the policy, see sample.extra


@dataclass(frozen=True, kw_only=True)
class FilterTraits:
    """Of `filter(rows, **options)`, which gives one verdict per row, in order: the row, or why it is dropped."""

    pairs: bool = False  # looks at the two sides of a pair
    scores: bool = False  # looks at scores
    whole: str = ""  # why it needs whole answers; "" where it does not


@dataclass(frozen=True, kw_only=True)
class RuleTraits:
    """Of `rule(facts, bound)`, which gives the measured value and the reason to stop, or None to go on."""


@dataclass(frozen=True, kw_only=True)
class JudgeTraits:
    """Of a class of judges, or of a function `score(prompt, completion, **options) -> float | None`."""

    parts: Mapping[str, Literal["one", "several"]] = field(default_factory=dict)  # options that are judges
    models: tuple[str, ...] = ()  # options that are models, which may be run:NAME
    reached_by: tuple[str, ...] = ()  # options that say how it is reached, which shape no verdict
    canaries: bool = False  # a model, whose verdicts are tried on canaries before a loop learns from them
    check_prompt: Callable[[Any], None] | None = None  # raises DataError for a prompt whose row it cannot judge
    asks_policies: bool = False  # its first argument gives the policies of a loop as LLM clients
    cannot_measure: str = ""  # why it must not judge held-out answers; "" where it may
    cannot_join: Mapping[str, str] = field(default_factory=dict)  # judges that it cannot be a part of, and why


class Mark(Protocol):
    def __call__(self, part: P, /) -> P: ...


def _decorator(traits: Callable[Options, Any]) -> Callable[Options, Mark]:
    """A decorator that marks a part with its traits, which it takes by keyword."""

    def decorator(*args: Options.args, **options: Options.kwargs) -> Mark:
        def mark(part: P) -> P:
            setattr(part, MARK, traits(*args, **options))
            return part

        return mark

    return update_wrapper(decorator, traits, ("__module__", "__doc__"), ())


loss = _decorator(LossTraits)
modifier = _decorator(ModifierTraits)
regulariser = _decorator(RegulariserTraits)
builder = _decorator(BuilderTraits)
filter = _decorator(FilterTraits)
judge = _decorator(JudgeTraits)
