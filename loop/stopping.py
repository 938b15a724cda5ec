"""The rules that stop a run: pure functions of what a round measured.

A rule returns the measured value and the reason, or None. It is switched on by its bound in the config (`stop`). What
a person decides afterwards (approve, reject, roll back) takes precedence over it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sparring.loop.errors import ConfigError
from sparring.loop.options import check_options
from sparring.loop.registry import Registry
from sparring.loop.traits import RuleTraits
from sparring.loop.types import Facts

Verdict = tuple[float, str]
Rule = Callable[[Facts, float], Verdict | None]


def win_rate(facts: Facts, bound: float) -> Verdict | None:
    """The whole 95 % interval of the win rate is below the bound."""
    rate = facts.measured.get("win_rate")
    if rate is None or rate.high is None or rate.high >= bound:
        return None
    low = "" if rate.low is None else f"{rate.low:.3f}, "
    return rate.value, f"the win rate is {rate.value:.3f} [{low}{rate.high:.3f}], all of it below {bound:g}"


def kl(facts: Facts, bound: float) -> Verdict | None:
    """KL from the initial policy at temperature 1, in nats summed along a held-out answer."""
    divergence = facts.measured.get("kl")
    if divergence is None or divergence.value <= bound:
        return None
    return divergence.value, (
        f"KL from the initial policy is {divergence.value:.3g} nats per held-out answer (at temperature 1), above "
        f"{bound:g}"
    )


def length_growth(facts: Facts, bound: float) -> Verdict | None:
    """The mean tokens of held-out answers, divided by those of the initial policy."""
    now, then = facts.measured.get("mean_tokens"), facts.initial.get("mean_tokens")
    if now is None or then is None or then.value == 0 or now.value / then.value <= bound:
        return None
    growth = now.value / then.value
    return growth, (
        f"held-out answers have grown {growth:.3g} times as long ({then.value:.4g} to {now.value:.4g} tokens), above "
        f"{bound:g}"
    )


def abstained(facts: Facts, bound: float) -> Verdict | None:
    """The larger share of prompts without an answer, among train and held-out prompts."""
    held_out = facts.measured.get("abstained")
    share, where = max((facts.abstained, "train"), (held_out.value if held_out else 0.0, "held-out"))
    if share <= bound:
        return None
    return share, f"the judge left {share:.1%} of the {where} prompts without an answer, above {bound:.1%}"


def chosen_fall(facts: Facts, bound: float) -> Verdict | None:
    """How far log P(chosen) has fallen below the reference's: the mean over the last quarter of an update's steps."""
    last = facts.chosen_ratios[-max(1, len(facts.chosen_ratios) // 4) :]
    if not last or -sum(last) / len(last) <= bound:
        return None
    fall = -sum(last) / len(last)
    return fall, f"log P(chosen) has fallen {fall:.3g} nats below the reference, more than {bound:g}"


SHIPPED: tuple[Rule, ...] = (win_rate, kl, length_growth, abstained, chosen_fall)
RULES = {rule.__name__: rule for rule in SHIPPED}
STOP_RULES = Registry("stop rule", RuleTraits, RULES, "sparring.stop_rules")


def check_rules(rules: Sequence[Mapping[str, Any]]) -> None:
    """Refuse an entry of `stop.rules`, a rule {kind, bound, option...}, that does not exist or lacks its bound."""
    for each in rules:
        rule, options = STOP_RULES[each["kind"]], {k: v for k, v in each.items() if k not in ("kind", "bound")}
        if isinstance(each.get("bound"), bool) or not isinstance(each.get("bound"), int | float):
            raise ConfigError(f"stop rule {rule.name} has the bound {each.get('bound')!r}; expected a number")
        check_options("stop rule", rule.name, rule.make, options, skip=2)


def first_broken(
    facts: Facts, bounds: Mapping[str, float | None], rules: Sequence[Mapping[str, Any]] = ()
) -> tuple[str, float, Verdict] | None:
    """The name, bound and verdict of the first rule that a round breaks. A bound of None switches a rule off.

    `bounds` are of the shipped rules, `rules` are further ones as {kind, bound, option...}.
    """
    every = [{"kind": name, "bound": bounds.get(name)} for name in RULES if bounds.get(name) is not None]
    for each in (*every, *rules):
        options = dict(each)
        rule, bound = STOP_RULES[options.pop("kind")], options.pop("bound")
        verdict = rule(facts, bound, **options)
        if verdict is not None:
            return rule.label, float(bound), verdict
    return None
