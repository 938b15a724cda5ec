"""When a run should not go on by itself: one pure rule each, on what a round measured.

A rule says what it found and why, or nothing. It is switched on by its bound in the config (`stop`), and what a person
decides afterwards (approve, reject, roll back) takes precedence over it.
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
    """The whole 95 % interval of the win rate lies below the bound."""
    found = facts.measured.get("win_rate")
    if found is None or found.high is None or found.high >= bound:
        return None
    low = "" if found.low is None else f"{found.low:.3f}, "
    return found.value, f"the win rate is {found.value:.3f} [{low}{found.high:.3f}], all of it below {bound:g}"


def kl(facts: Facts, bound: float) -> Verdict | None:
    """KL from the initial policy, in nats an answer."""
    found = facts.measured.get("kl")
    if found is None or found.value <= bound:
        return None
    return found.value, f"KL from the initial policy is {found.value:.3g} nats, above {bound:g}"


def length_growth(facts: Facts, bound: float) -> Verdict | None:
    """Mean tokens of held-out answers over those of the initial policy."""
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
    found, where = max((facts.abstained, "train"), (held_out.value if held_out else 0.0, "held-out"))
    return (
        (found, f"the judge left {found:.1%} of the {where} prompts without an answer, above {bound:.1%}")
        if (found > bound)
        else None
    )


def chosen_fall(facts: Facts, bound: float) -> Verdict | None:
    """How far log P(chosen) has fallen below the reference's: the mean over the last quarter of an update's steps."""
    last = facts.chosen_ratios[-max(1, len(facts.chosen_ratios) // 4) :]
    if not last or -sum(last) / len(last) <= bound:
        return None
    fall = -sum(last) / len(last)
    return fall, f"log P(chosen) has fallen {fall:.3g} nats below the reference, more than {bound:g}"


RULES: dict[str, Rule] = {
    "win_rate": win_rate,
    "kl": kl,
    "length_growth": length_growth,
    "abstained": abstained,
    "chosen_fall": chosen_fall,
}


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
    """The first rule that a round breaks: its name, its bound, and what it says. A bound of None is a rule left out.

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
