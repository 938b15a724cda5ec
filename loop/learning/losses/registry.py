"""Losses, modifiers and regularisers by name, with their options fixed and checked before anything is learned."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from sparring.loop.errors import ConfigError
from sparring.loop.learning.losses import gap, groups, modifiers, pointwise, reference_free, regularisers
from sparring.loop.learning.losses.logps import Groups, Logps
from sparring.loop.learning.losses.ranges import NotNegative, check_value, check_values
from sparring.loop.options import check_options, nearest

Loss = Callable[[Logps], Tensor]
GroupLoss = Callable[[Groups], Tensor]
Modifier = Callable[[Logps], Logps]
Spec = str | Sequence[Mapping[str, Any]]  # a loss by name, or a weighted sum of losses


def _named(*functions: Any) -> dict[str, Callable[..., Any]]:
    return {f.__name__: f for f in functions}


LOSSES: dict[str, Callable[..., Tensor]] = _named(
    *(gap.sigmoid, gap.ipo, gap.hinge, reference_free.simpo, gap.cdpo, gap.robust, gap.exo, gap.rpo_nv),
    *(gap.sigmoid_norm, gap.length_regularised, gap.dpop, gap.discopop, gap.aot, gap.aot_unpaired),
    *(reference_free.cpo, reference_free.orpo, reference_free.asft),
    *(pointwise.kto, pointwise.bco, pointwise.nca, pointwise.sppo, pointwise.sppo_hard),
    *(pointwise.apo_zero, pointwise.apo_down),
)
GROUP_LOSSES: dict[str, Callable[..., Tensor]] = _named(
    groups.rpo_nv_group, groups.nca_group, groups.kto_unpaired, groups.bco_unpaired, groups.sft
)
MODIFIERS: dict[str, Callable[..., Logps]] = _named(
    modifiers.f_divergence, modifiers.margin, modifiers.clip, modifiers.wpo, modifiers.length
)
REGULARISERS: dict[str, Callable[..., Tensor]] = _named(
    regularisers.nll_chosen, regularisers.nll_rationale, regularisers.optimism, regularisers.degree_ce
)

REFERENCE_FREE = frozenset({"simpo", "cpo", "orpo", "asft", "sft"})  # they never look at the reference
BATCH_DEPENDENT = frozenset({"aot", "aot_unpaired"})  # a pair's value depends on the others of its micro-batch
NEEDS_BASELINE: Mapping[str, str] = {
    "kto": "mismatched",  # max(0, mean log-ratio of answers to other prompts of the batch)
    "kto_unpaired": "mismatched",
    "bco": "running",  # running mean of log-ratios of all answers
    "bco_unpaired": "running",
}
NEEDS_SAMPLE = frozenset({"optimism"})
# What is learned beside a pair: see loop.learning.preference_method.ASIDES.
NEEDS_ASIDE: Mapping[str, str] = {"nll_rationale": "rationale", "degree_ce": "degree"}
# Losses of a difference of log-ratios, which f-DPO is derived for.
OF_DIFFERENCE = frozenset(
    {"sigmoid", "ipo", "hinge", "cdpo", "robust", "exo", "rpo_nv", "sigmoid_norm", "length_regularised", "discopop"}
)
# The losses that a modifier cannot change, or would change into what nobody has a meaning for.
MEANINGLESS: Mapping[str, frozenset[str]] = {
    "clip": frozenset(LOSSES) & REFERENCE_FREE | {"aot"},
    "f_divergence": frozenset(LOSSES) - OF_DIFFERENCE,
}


def bind(loss: Spec, /, **options: Any) -> Loss:
    """A loss with its options fixed; or MPO (arXiv:2411.10442), the weighted sum of a list of {kind, weight, options}.

    Raises ConfigError for a name, an option or a value that does not exist.
    """
    if isinstance(loss, str):
        bound: Loss = _bound("loss", LOSSES, loss, options)
        return bound
    if options:
        raise ConfigError(f"option {min(options)!r} stands beside a list of losses; set it at the loss that it is for")
    if not loss:
        raise ConfigError("the list of losses is empty; give one mapping with a kind for each loss")
    terms = [_weighted(entry) for entry in loss]
    baselines = {NEEDS_BASELINE[name]: name for name in loss_names(loss) if name in NEEDS_BASELINE}
    if len(baselines) > 1:
        raise ConfigError(f"losses {' and '.join(baselines.values())} need different baselines; drop one of them")
    return lambda logps: torch.stack([weight * term(logps) for weight, term in terms]).sum(0)


def loss_names(loss: Spec) -> tuple[str, ...]:
    """The losses that `bind` would bind. Raises ConfigError for an entry without a kind."""
    return (loss,) if isinstance(loss, str) else tuple(_kind("loss", entry)[0] for entry in loss)


def bind_group(name: str, /, **options: Any) -> GroupLoss:
    """A group loss with its options fixed. Raises ConfigError."""
    bound: GroupLoss = _bound("group loss", GROUP_LOSSES, name, options)
    return bound


def bind_modifiers(entries: Sequence[Mapping[str, Any]], loss: Spec) -> Modifier:
    """Modifiers {kind, option...} for a loss, applied in the order of the list. Raises ConfigError."""
    terms = [_bound("modifier", MODIFIERS, *_kind("modifier", entry)) for entry in entries]
    for modifier, name in product((entry["kind"] for entry in entries), loss_names(loss)):
        if name in (meaningless := MEANINGLESS.get(modifier, frozenset())):
            having = ", ".join(each for each in LOSSES if each not in meaningless)
            raise ConfigError(f"modifier {modifier!r} has no meaning for loss {name!r}; it has one for {having}")

    def modify(logps: Logps) -> Logps:
        for term in terms:
            logps = term(logps)
        return logps

    return modify


def bind_regularisers(entries: Sequence[Mapping[str, Any]]) -> Loss:
    """Regularisers {kind, option...}: their sum, zeros for none. Raises ConfigError."""
    terms = [_bound("regulariser", REGULARISERS, *_kind("regulariser", entry)) for entry in entries]

    def total(logps: Logps) -> Tensor:
        return sum((term(logps) for term in terms), torch.zeros_like(logps.policy_chosen))

    return total


def _weighted(entry: Mapping[str, Any]) -> tuple[float, Loss]:
    name, options = _kind("loss", entry)
    weight = options.pop("weight", 1.0)
    check_value(f"loss {name!r}: weight", NotNegative, weight)
    return weight, _bound("loss", LOSSES, name, options)


def _kind(what: str, entry: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("kind"), str):
        raise ConfigError(f"found {entry!r} for a {what}; wanted a mapping with its kind, its options beside it")
    options = dict(entry)
    return options.pop("kind"), options


def _bound(what: str, known: Mapping[str, Callable[..., Any]], name: str, options: Mapping[str, Any]) -> Any:
    if name not in known:
        hint = " (it is called 'sigmoid')" if name == "dpo" else nearest(name, known)
        raise ConfigError(f"there is no {what} {name!r}{hint}; choose one of {', '.join(known)}")
    function = known[name]
    check_options(what, name, function, options, skip=1)
    check_values(what, name, function, options)
    return lambda values: function(values, **options)
