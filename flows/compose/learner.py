"""From the section `learn` of a config to a learner, checked before anything loads."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparring.flows.config import Config, Learn
from sparring.loop.errors import ConfigError
from sparring.loop.options import nearest, option_names
from sparring.loop.own_parts import is_own
from sparring.loop.pairing import BUILDERS
from sparring.loop.parts import Learner

if TYPE_CHECKING:
    from sparring.loop.registry import Part
    from sparring.loop.tokens import Rendering
    from sparring.loop.traits import Baseline, LossTraits, RegulariserTraits

    Losses = Sequence[Part[LossTraits]]

GRADIENTS = ("ppo", "rloo", "reinforce", "grpo", "dr_grpo")


def silent(done: int, total: int, loss: float) -> None:
    pass


def check_learner(config: Config) -> None:
    """Refuse what the learner would refuse. It knows its options by their signatures, and so loads torch."""
    _method(config)
    here = Path(config.policy.model).expanduser()
    if (here / "config.json").exists():  # of another model, when it is there
        check_adapters(config, here)
    if config.learn.reference.kind == "mixture" and config.learn.ld_alpha < 1:
        raise ConfigError("learn.ld_alpha weighs tokens, and a mixture of references is one of answers; drop one")


def check_adapters(config: Config, folder: Path) -> None:
    """Refuse learn.lora where the policy in `folder` cannot get these adapters."""
    from sparring.loop.learning.lora import refuse_targets

    if config.learn.lora is not None:
        refuse_targets(folder, config.learn.lora)


def make_learner(config: Config, run_folder: Path, rendering: "Rendering", progress: Any = silent) -> Learner:
    from sparring.loop.learning.learner import TorchLearner

    learn = config.learn
    return TorchLearner(
        run_folder,
        _method(config),
        learn,
        seed=config.seed,
        reference=learn.reference,
        lora=learn.lora,
        dtype=None if learn.dtype == "auto" else learn.dtype,
        rendering=rendering,
        progress=progress,
    )


def _method(config: Config) -> Any:
    from sparring.loop.learning.losses import ANY_LOSS, loss_parts

    learn = config.learn
    if learn.algorithm in GRADIENTS:
        return _gradient(config)
    known = isinstance(learn.loss, str) and (learn.loss in ANY_LOSS or is_own(learn.loss))
    _refuse_mistyped(learn, option_names(ANY_LOSS[str(learn.loss)].make, 1) if known else [])
    losses = loss_parts(_spec(learn))
    return _of_groups(config, losses) if losses[0].traits.of == "groups" else _of_pairs(config, losses)


def _spec(learn: Learn) -> Any:
    return learn.loss if isinstance(learn.loss, str) else [each.entry for each in learn.loss]


def _of_pairs(config: Config, losses: "Losses") -> Any:
    from sparring.loop.learning.losses import REGULARISER, bind, bind_modifiers, bind_regularisers
    from sparring.loop.learning.preference_method import Preference
    from sparring.loop.learning.preference_terms import Terms

    learn, spec = config.learn, _spec(config.learn)
    if BUILDERS[config.pair.kind].traits.gives == "examples":
        raise ConfigError(
            f"learn.loss {losses[0].name!r} learns from pairs, and pair.kind {config.pair.kind!r} gives single "
            "answers; choose a builder of pairs, or a loss of groups such as rpo_nv_group"
        )
    regularisers = [REGULARISER[each.kind] for each in learn.regularisers]
    _refuse_no_sample(config, regularisers)
    modifiers = [each.entry for each in learn.modifiers]
    terms = Terms(
        bind(spec, **learn.options),
        [bind_modifiers(modifiers, spec)] if modifiers else (),
        [bind_regularisers([each.entry for each in learn.regularisers])] if regularisers else (),
        beta=_beta(losses[0], learn),
        ld_alpha=learn.ld_alpha,
        whole_batch=any(loss.traits.batch_dependent for loss in losses),
        asides=frozenset(each.traits.aside for each in regularisers if each.traits.aside),
    )
    return Preference(
        terms,
        algorithm="+".join(loss.label for loss in losses),
        baseline=_baseline(losses, learn),
        from_divergence=learn.from_divergence,
    )


def _of_groups(config: Config, losses: "Losses") -> Any:
    from sparring.loop.learning.losses import bind_group
    from sparring.loop.learning.preference_method import Preference

    (loss,), learn = losses, config.learn
    if BUILDERS[config.pair.kind].traits.gives == "pairs":
        examples = sorted(name for name, builder in BUILDERS.items() if builder.traits.gives == "examples")
        raise ConfigError(
            f"learn.loss {loss.name!r} learns from single answers, and pair.kind {config.pair.kind!r} gives pairs; "
            f"choose one of {', '.join(examples)}"
        )
    _refuse_set(learn, ("modifiers", "regularisers", "ld_alpha", "from_divergence"), f"with loss {loss.name!r}")
    return Preference(bind_group(loss.name, **learn.options), algorithm=loss.label, baseline=_baseline(losses, learn))


def _baseline(losses: "Losses", learn: Learn) -> "Baseline":
    """What the losses are set against. Raises ConfigError for one of other prompts where the reference moves."""
    set_against = (loss.traits.baseline for loss in losses if loss.traits.baseline != "none")
    baseline: Baseline = next(set_against, "none")
    if baseline == "mismatched" and learn.reference.kind in ("sync", "mixture"):
        names = " and ".join(loss.name for loss in losses)
        raise ConfigError(
            f"loss {names} needs one reference that stays, and learn.reference is {learn.reference.kind}; choose none, "
            "initial, previous or ema"
        )
    return baseline


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


def _beta(loss: "Part[LossTraits]", learn: Learn) -> float:
    """What scales the implicit rewards that are reported: that of the (first) loss."""
    options = learn.options if isinstance(learn.loss, str) else learn.loss[0].options
    default = inspect.signature(loss.make).parameters.get("beta")
    beta = options.get("beta", default.default if default else 1.0)
    return float(beta) if isinstance(beta, int | float) else 1.0  # bind refuses what is no number


def _refuse_mistyped(learn: Learn, options: Sequence[str]) -> None:
    """A key that is nearly one of learn's own is that, mistyped, and no option of a loss."""
    fields = list(Learn.model_fields)
    for name in learn.options:
        if name not in options and (hint := nearest(name, fields)):
            raise ConfigError(f"learn.{name}: unknown key{hint}; learn has {', '.join(fields)}")


def _refuse_no_sample(config: Config, regularisers: "Sequence[Part[RegulariserTraits]]") -> None:
    for each in regularisers:
        if each.traits.needs_sample and BUILDERS[config.pair.kind].traits.needs != "reference":
            raise ConfigError(
                f"regulariser {each.name!r} needs a reference sample beside each pair; set pair.kind: ranked, and "
                "sample.extra: [{of: reference, temperature: 0}]"
            )


def _refuse_set(learn: Learn, names: tuple[str, ...], where: str) -> None:
    plain: Mapping[str, Any] = Learn().model_dump()
    for name in names:
        if learn.model_dump()[name] != plain[name]:
            raise ConfigError(f"learn.{name} has no meaning {where}; leave it out")
