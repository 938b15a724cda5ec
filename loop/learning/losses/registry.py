"""Losses, modifiers and regularisers by name, with their options fixed and checked before anything is learned."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from sparring.loop.errors import ConfigError, StepError
from sparring.loop.learning.losses.logps import Groups, Logps
from sparring.loop.options import check_options
from sparring.loop.ranges import NotNegative, check_value, check_values
from sparring.loop.registry import Part, Registry, marked
from sparring.loop.traits import LossTraits, ModifierTraits, RegulariserTraits

Loss = Callable[[Logps], Tensor]
GroupLoss = Callable[[Groups], Tensor]
Modifier = Callable[[Logps], Logps]
Spec = str | Sequence[Mapping[str, Any]]  # a loss by name, or a weighted sum of losses
Values = TypeVar("Values", Logps, Groups)

_LOSSES = marked(__package__, LossTraits)
ANY_LOSS = Registry("loss", LossTraits, _LOSSES, "sparring.losses")
LOSSES: dict[str, Callable[..., Tensor]] = {n: f for n, f in _LOSSES.items() if ANY_LOSS[n].traits.of == "pairs"}
GROUP_LOSSES: dict[str, Callable[..., Tensor]] = {n: f for n, f in _LOSSES.items() if n not in LOSSES}
MODIFIERS: dict[str, Callable[..., Logps]] = marked(__package__, ModifierTraits)
REGULARISERS: dict[str, Callable[..., Tensor]] = marked(__package__, RegulariserTraits)
PAIR_LOSS = Registry("loss", LossTraits, LOSSES, "sparring.losses")
GROUP_LOSS = Registry("group loss", LossTraits, GROUP_LOSSES, "sparring.losses")
MODIFIER = Registry("modifier", ModifierTraits, MODIFIERS, "sparring.modifiers")
REGULARISER = Registry("regulariser", RegulariserTraits, REGULARISERS, "sparring.regularisers")


def bind(loss: Spec, /, **options: Any) -> Loss:
    """A loss with its options fixed; or MPO (arXiv:2411.10442), the weighted sum of a list of {kind, weight, options}.

    Raises ConfigError for a name, an option or a value that does not exist.
    """
    if isinstance(loss, str):
        return _bound(_loss_of("pairs", loss), options)
    if options:
        raise ConfigError(f"option {min(options)!r} stands beside a list of losses; set it at the loss that it is for")
    if not loss:
        raise ConfigError("the list of losses is empty; give one mapping with a kind for each loss")
    terms = [_weighted(entry) for entry in loss]
    baselines = {part.traits.baseline: part.name for part in loss_parts(loss) if part.traits.baseline != "none"}
    if len(baselines) > 1:
        raise ConfigError(f"losses {' and '.join(baselines.values())} need different baselines; drop one of them")
    return lambda logps: torch.stack([weight * term(logps) for weight, term in terms]).sum(0)


def bind_group(name: str, /, **options: Any) -> GroupLoss:
    """A group loss with its options fixed. Raises ConfigError."""
    return _bound(_loss_of("groups", name), options)


def bind_modifiers(entries: Sequence[Mapping[str, Any]], loss: Spec) -> Modifier:
    """Modifiers {kind, option...} for a loss, applied in the order of the list. Raises ConfigError."""
    terms = [_checked(*_named(MODIFIER, entry)) for entry in entries]
    for modifier in (MODIFIER[entry["kind"]] for entry in entries):
        for each in loss_parts(loss):
            if not modifier.traits.fits(each.traits):
                fitting = ", ".join(n for n in LOSSES if modifier.traits.fits(PAIR_LOSS[n].traits))
                raise ConfigError(
                    f"modifier {modifier.name!r} has no meaning for loss {each.name!r}; it has one for {fitting}"
                )

    def modify(logps: Logps) -> Logps:
        for term in terms:
            logps = term(logps)
        return logps

    return modify


def bind_regularisers(entries: Sequence[Mapping[str, Any]]) -> Loss:
    """Regularisers {kind, option...}: their sum, zeros for none. Raises ConfigError."""
    terms = [_bound(*_named(REGULARISER, entry)) for entry in entries]

    def total(logps: Logps) -> Tensor:
        return sum((term(logps) for term in terms), torch.zeros_like(logps.policy_chosen))

    return total


def loss_parts(loss: Spec) -> tuple[Part[LossTraits], ...]:
    """The losses that a config names: one of pairs or of groups, or a list of losses of pairs. Raises ConfigError."""
    if isinstance(loss, str):
        return (ANY_LOSS[loss],)
    return tuple(_loss_of("pairs", _kind("loss", entry)[0]) for entry in loss)


def _loss_of(what: str, name: str) -> Part[LossTraits]:
    """The loss of pairs, or of groups, that has the name."""
    if name == "dpo":
        raise ConfigError(f"there is no loss 'dpo' (it is called 'sigmoid'); choose one of {', '.join(LOSSES)}")
    part = (PAIR_LOSS if what == "pairs" else GROUP_LOSS)[name]
    if part.traits.of != what:
        raise ConfigError(f"loss {name!r} is one of {part.traits.of}; expected one of {what}, see @loss(of={what!r})")
    return part


def _weighted(entry: Mapping[str, Any]) -> tuple[float, Loss]:
    name, options = _kind("loss", entry)
    weight = options.pop("weight", 1.0)
    check_value(f"loss {name!r}: weight", NotNegative, weight)
    return weight, _bound(_loss_of("pairs", name), options)


def _named(registry: Registry[Any], entry: Mapping[str, Any]) -> tuple[Part[Any], dict[str, Any]]:
    name, options = _kind(registry.what, entry)
    return registry[name], options


def _kind(what: str, entry: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("kind"), str):
        raise ConfigError(f"a {what} is {entry!r}; expected a mapping with its kind, its options beside it")
    options = dict(entry)
    return options.pop("kind"), options


def _checked(part: Part[Any], options: Mapping[str, Any]) -> Callable[[Any], Any]:
    """The part with its options fixed. Raises ConfigError."""
    check_options(part.what, part.name, part.make, options, skip=1)
    check_values(part.what, part.name, part.make, options)
    return lambda values: part(values, **options)


def _bound(part: Part[Any], options: Mapping[str, Any]) -> Callable[[Values], Tensor]:
    """As `_checked`; a person's own part must give one value per row."""
    term = _checked(part, options)
    if not part.source:
        return term

    def own(values: Values) -> Tensor:
        out, rows = term(values), len(values)
        if not isinstance(out, Tensor) or out.shape != (rows,):
            what = f"a tensor of shape {tuple(out.shape)}" if isinstance(out, Tensor) else repr(out)
            raise StepError(f"your own {part.what} {part.name} gave {what}; expected a tensor of shape ({rows},)")
        return out

    return own
