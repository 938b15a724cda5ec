"""The rules that stop a run: pure functions of what a round measured.

A rule returns the measured value and the reason, or None. It is switched on by its bound in the config (`stop`). What
a person decides afterwards (approve, reject, roll back) takes precedence over it.
"""

from collections.abc import Callable, Mapping

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
    """KL from the initial policy, in nats per answer."""
    divergence = facts.measured.get("kl")
    if divergence is None or divergence.value <= bound:
        return None
    return divergence.value, f"KL from the initial policy is {divergence.value:.3g} nats, above {bound:g}"


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


RULES: dict[str, Rule] = {
    "win_rate": win_rate,
    "kl": kl,
    "length_growth": length_growth,
    "abstained": abstained,
    "chosen_fall": chosen_fall,
}


def first_broken(facts: Facts, bounds: Mapping[str, float | None]) -> tuple[str, float, Verdict] | None:
    """The name, bound and verdict of the first rule that a round breaks. A bound of None switches a rule off."""
    for name, rule in RULES.items():
        bound = bounds.get(name)
        verdict = rule(facts, bound) if bound is not None else None
        if bound is not None and verdict is not None:
            return name, bound, verdict
    return None
