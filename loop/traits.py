"""What must be known of a part before it runs, said by a decorator on the part itself.

A plain function needs no decorator: every trait has the value that holds for most parts. Imports nothing heavy.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

P = TypeVar("P", bound=Callable[..., Any])
Baseline = Literal["none", "running", "mismatched"]
Aside = Literal["rationale", "degree"]
MARK = "__sparring__"


@dataclass(frozen=True)
class LossTraits:
    of: Literal["pairs", "groups"] = "pairs"  # Logps -> (B,), or Groups -> (G,)
    reference_free: bool = False  # never looks at the reference
    batch_dependent: bool = False  # a pair's value depends on the other pairs of its micro-batch
    baseline: Baseline = "none"  # running: mean log-ratio of all answers; mismatched: of answers to other prompts
    of_difference: bool = False  # a function of the difference of two log-ratios, for which f-DPO is derived
    clippable: bool = True  # whether it has a meaning on clipped ratios


@dataclass(frozen=True)
class ModifierTraits:
    fits: Callable[[LossTraits], bool] = lambda loss: True  # whether it has a meaning for a loss


@dataclass(frozen=True)
class RegulariserTraits:
    needs_sample: bool = False  # a reference sample beside each pair
    aside: Aside | None = None  # what else is learned beside a pair


@dataclass(frozen=True)
class BuilderTraits:
    gives: Literal["pairs", "examples"] = "pairs"
    scores: bool = True  # whether it looks at a judge's scores
    partial: bool = False  # whether its answers may be partial, with equal beginnings
    by_query: bool = False  # a query to the store names the pairs
    needs: Literal["reference", "dataset"] | None = None  # who must answer beside the policy, see sample.extra


@dataclass(frozen=True)
class FilterTraits:
    pairs: bool = False  # looks at the two sides of a pair
    scores: bool = False  # looks at scores
    whole: str = ""  # why it needs whole answers; "" where it does not


@dataclass(frozen=True)
class RuleTraits:
    pass


@dataclass(frozen=True)
class JudgeTraits:
    parts: Mapping[str, Literal["one", "several"]] = field(default_factory=dict)  # options that are judges
    models: tuple[str, ...] = ()  # options that are models, which may be run:NAME
    reached_by: tuple[str, ...] = ()  # options that say how it is reached, which shape no verdict
    canaries: bool = False  # a model, whose verdicts are tried on canaries before a loop learns from them
    check_prompt: Callable[[Any], None] | None = None  # raises DataError for a prompt whose row it cannot judge
    asks_policies: bool = False  # its first argument gives the policies of a loop as LLM clients
    cannot_measure: str = ""  # why it must not judge held-out answers; "" where it may
    cannot_join: Mapping[str, str] = field(default_factory=dict)  # judges that it cannot be a part of, and why


def _mark(traits: Any) -> Callable[[P], P]:
    def marked(part: P) -> P:
        setattr(part, MARK, traits)
        return part

    return marked


def loss(
    *,
    of: Literal["pairs", "groups"] = "pairs",
    reference_free: bool = False,
    batch_dependent: bool = False,
    baseline: Baseline = "none",
    of_difference: bool = False,
    clippable: bool = True,
) -> Callable[[P], P]:
    """Mark `loss(logps, **options) -> (B,)`, or with of="groups" `loss(groups, **options) -> (G,)`."""
    return _mark(LossTraits(of, reference_free, batch_dependent, baseline, of_difference, clippable))


def modifier(*, fits: Callable[[LossTraits], bool] = lambda loss: True) -> Callable[[P], P]:
    """Mark `modifier(logps, **options) -> Logps`: what changes the scores or weights that a loss sees."""
    return _mark(ModifierTraits(fits))


def regulariser(*, needs_sample: bool = False, aside: Aside | None = None) -> Callable[[P], P]:
    """Mark `regulariser(logps, **options) -> (B,)`: what is added beside a loss."""
    return _mark(RegulariserTraits(needs_sample, aside))


def builder(
    *,
    gives: Literal["pairs", "examples"] = "pairs",
    scores: bool = True,
    partial: bool = False,
    by_query: bool = False,
    needs: Literal["reference", "dataset"] | None = None,
) -> Callable[[P], P]:
    """Mark `builder(candidates, **options)`, which gives choices (or picks, for examples), or says why not."""
    return _mark(BuilderTraits(gives, scores, partial, by_query, needs))


def filter(*, pairs: bool = False, scores: bool = False, whole: str = "") -> Callable[[P], P]:
    """Mark `filter(rows, **options)`, which gives one verdict per row, in order: the row, or why it is dropped."""
    return _mark(FilterTraits(pairs, scores, whole))


def stop_rule() -> Callable[[P], P]:
    """Mark `rule(facts, bound)`, which gives the measured value and the reason to stop, or None to go on."""
    return _mark(RuleTraits())


def judge(
    *,
    parts: Mapping[str, Literal["one", "several"]] | None = None,
    models: tuple[str, ...] = (),
    reached_by: tuple[str, ...] = (),
    canaries: bool = False,
    check_prompt: Callable[[Any], None] | None = None,
    asks_policies: bool = False,
    cannot_measure: str = "",
    cannot_join: Mapping[str, str] | None = None,
) -> Callable[[P], P]:
    """Mark a class of judges, or a function `score(prompt, completion, **options) -> float | None`."""
    return _mark(
        JudgeTraits(
            parts or {}, models, reached_by, canaries, check_prompt, asks_policies, cannot_measure, cannot_join or {}
        )
    )
