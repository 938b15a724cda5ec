"""From the section `learn` of a config to a learner, checked before anything loads."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparring.flows.config import Config, Learn
from sparring.loop.errors import ConfigError
from sparring.loop.options import nearest, option_names
from sparring.loop.pairing import EXAMPLE_BUILDERS
from sparring.loop.parts import Learner

GRADIENTS = ("ppo", "rloo", "reinforce", "grpo", "dr_grpo")


def silent(done: int, total: int, loss: float) -> None:
    pass


def check_learner(config: Config) -> None:
    """Refuse what the learner would refuse. It knows its options by their signatures, and so loads torch."""
    _method(config)
    _reference(config)


def make_learner(config: Config, run_folder: Path, progress: Any = silent) -> Learner:
    from sparring.loop.learning.learner import TorchLearner
    from sparring.loop.learning.lora import Lora
    from sparring.loop.learning.optimize import Optimization

    learn = config.learn
    return TorchLearner(
        run_folder,
        _method(config),
        Optimization(**{k: v for k, v in dict(learn).items() if k in option_names(Optimization)}),
        seed=config.seed,
        reference=_reference(config),
        lora=None if learn.lora is None else Lora(**dict(learn.lora)),
        dtype=None if learn.dtype == "auto" else learn.dtype,
        progress=progress,
    )


def _reference(config: Config) -> Any:
    from sparring.loop.learning.references import Reference

    found = Reference(**dict(config.learn.reference))
    if found.kind == "mixture" and config.learn.ld_alpha < 1:
        raise ConfigError("learn.ld_alpha weighs tokens, and a mixture of references is one of answers; drop one")
    return found


def _method(config: Config) -> Any:
    learn = config.learn
    if learn.algorithm in GRADIENTS:
        return _gradient(config)
    _refuse_mistyped(learn, _loss_options(learn))
    names = _loss_names(learn)
    if _learns_from_groups(names):
        return _of_groups(config, names)
    return _of_pairs(config, names)


def _of_pairs(config: Config, names: tuple[str, ...]) -> Any:
    from sparring.loop.learning.losses import (
        BATCH_DEPENDENT,
        NEEDS_ASIDE,
        NEEDS_BASELINE,
        bind,
        bind_modifiers,
        bind_regularisers,
    )
    from sparring.loop.learning.preference_method import Preference
    from sparring.loop.learning.preference_terms import Terms

    learn = config.learn
    if config.pair.kind in EXAMPLE_BUILDERS:
        raise ConfigError(
            f"learn.loss {names[0]!r} learns from pairs, and pair.kind {config.pair.kind!r} gives single answers; "
            "choose a builder of pairs, or a loss of groups such as rpo_nv_group"
        )
    spec = learn.loss if isinstance(learn.loss, str) else [each.entry for each in learn.loss]
    _refuse_no_sample(config)
    modifiers = [each.entry for each in learn.modifiers]
    terms = Terms(
        bind(spec, **learn.options),
        [bind_modifiers(modifiers, spec)] if modifiers else (),
        [bind_regularisers([each.entry for each in learn.regularisers])] if learn.regularisers else (),
        beta=_beta(learn),
        ld_alpha=learn.ld_alpha,
        whole_batch=bool(BATCH_DEPENDENT & set(names)),
        asides=frozenset(NEEDS_ASIDE[each.kind] for each in learn.regularisers if each.kind in NEEDS_ASIDE),
    )
    baseline: Any = next((NEEDS_BASELINE[name] for name in names if name in NEEDS_BASELINE), "none")
    _refuse_moving(learn, baseline, names)
    return Preference(terms, baseline=baseline, from_divergence=learn.from_divergence)


def _of_groups(config: Config, names: tuple[str, ...]) -> Any:
    from sparring.loop.learning.losses import NEEDS_BASELINE, bind_group
    from sparring.loop.learning.preference_method import GroupTerms, Preference

    (name,), learn = names, config.learn
    if config.pair.kind not in EXAMPLE_BUILDERS:
        raise ConfigError(
            f"learn.loss {name!r} learns from single answers, and pair.kind {config.pair.kind!r} gives pairs; choose "
            f"one of {', '.join(sorted(EXAMPLE_BUILDERS))}"
        )
    _refuse_set(learn, ("modifiers", "regularisers", "ld_alpha", "from_divergence"), f"with loss {name!r}")
    baseline: Any = NEEDS_BASELINE.get(name, "none")
    _refuse_moving(learn, baseline, names)
    return Preference(GroupTerms(bind_group(name, **learn.options), _beta(learn)), baseline=baseline)


def _refuse_moving(learn: Learn, baseline: str, names: Sequence[str]) -> None:
    """KTO's baseline is of answers to other prompts, which only a reference that stays can be asked about."""
    if baseline == "mismatched" and learn.reference.kind in ("sync", "mixture"):
        raise ConfigError(
            f"loss {' and '.join(names)} needs one reference that stays, and learn.reference is "
            f"{learn.reference.kind}; choose none, initial, previous or ema"
        )


def _gradient(config: Config) -> Any:
    from sparring.loop.learning.policy_gradient_method import OnPolicy
    from sparring.loop.learning.policy_options import ALGORITHMS, algorithm

    learn, name = config.learn, config.learn.algorithm
    where = f"with algorithm {name!r}"
    _refuse_set(learn, ("loss", "modifiers", "regularisers", "ld_alpha", "from_divergence"), where)
    _refuse_mistyped(learn, option_names(ALGORITHMS[name]))
    if config.pair.kind != "group":
        raise ConfigError(f"{where} a round learns from groups of scored answers; set pair.kind: group")
    if config.sample.extra:
        raise ConfigError(f"{where} the policy learns from its own answers alone; take sample.extra out")
    if learn.reference.kind in ("mixture", "sync"):
        raise ConfigError(f"{where} the KL is to one policy that stays; learn.reference is {learn.reference.kind!r}")
    options = algorithm(name, **_longest(config) | learn.options)
    if options.kl_coef and learn.reference.kind == "none":
        raise ConfigError(f"kl_coef is {options.kl_coef:g} and learn.reference is none; set learn.kl_coef: 0")
    return OnPolicy(name, options)


def _longest(config: Config) -> dict[str, int]:
    """Dr. GRPO divides by the longest that an answer may get."""
    return {"max_tokens": config.sample.max_tokens} if config.learn.algorithm == "dr_grpo" else {}


def _loss_names(learn: Learn) -> tuple[str, ...]:
    from sparring.loop.learning.losses import GROUP_LOSSES, LOSSES

    names = (learn.loss,) if isinstance(learn.loss, str) else tuple(each.kind for each in learn.loss)
    known = {**LOSSES, **(GROUP_LOSSES if isinstance(learn.loss, str) else {})}
    for name in names:
        if name not in known:
            raise ConfigError(f"there is no loss {name!r}{nearest(name, known)}; choose one of {', '.join(known)}")
    return names


def _learns_from_groups(names: tuple[str, ...]) -> bool:
    from sparring.loop.learning.losses import GROUP_LOSSES

    return names[0] in GROUP_LOSSES


def _beta(learn: Learn) -> float:
    """What scales the implicit rewards that are reported: that of the (first) loss."""
    import inspect

    from sparring.loop.learning.losses import GROUP_LOSSES, LOSSES

    name, options = (
        (learn.loss, learn.options) if isinstance(learn.loss, str) else (learn.loss[0].kind, learn.loss[0].options)
    )
    default = inspect.signature({**LOSSES, **GROUP_LOSSES}[name]).parameters.get("beta")
    return float(options.get("beta", default.default if default else 1.0))


def _loss_options(learn: Learn) -> list[str]:
    from sparring.loop.learning.losses import GROUP_LOSSES, LOSSES

    function = {**LOSSES, **GROUP_LOSSES}.get(learn.loss) if isinstance(learn.loss, str) else None
    return option_names(function, 1) if function else []


def _refuse_mistyped(learn: Learn, options: Sequence[str]) -> None:
    """A key that is nearly one of learn's own is that, mistyped, and no option of a loss."""
    fields = list(Learn.model_fields)
    for name in learn.options:
        if name not in options and (hint := nearest(name, fields)):
            raise ConfigError(f"learn.{name}: unknown key{hint}; learn has {', '.join(fields)}")


def _refuse_no_sample(config: Config) -> None:
    from sparring.loop.learning.losses import NEEDS_SAMPLE

    for each in config.learn.regularisers:
        if each.kind in NEEDS_SAMPLE and config.pair.kind != "ranked":
            raise ConfigError(
                f"regulariser {each.kind!r} needs a reference sample beside each pair; set pair.kind: ranked, and "
                "sample.extra: [{of: reference, temperature: 0}]"
            )


def _refuse_set(learn: Learn, names: tuple[str, ...], where: str) -> None:
    plain: Mapping[str, Any] = Learn().model_dump()
    for name in names:
        if learn.model_dump()[name] != plain[name]:
            raise ConfigError(f"learn.{name} has no meaning {where}; leave it out")
