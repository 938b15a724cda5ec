"""When a run should stop: each rule by hand, on either side of its bound."""

from typing import Any

import pytest

from sparring.loop.stopping import RULES, first_broken
from sparring.loop.types import Evaluation, Facts


def measured(**values: float | tuple[float, float, float]) -> dict[str, Evaluation]:
    found = {}
    for metric, value in values.items():
        mean, low, high = value if isinstance(value, tuple) else (value, None, None)
        found[metric] = Evaluation(metric, "run", 1, "new", "old", metric, mean, low, high, 8)
    return found


def facts(initial: dict[str, Evaluation] | None = None, **more: Any) -> Facts:
    silent, ratios = more.pop("silent", 0.0), more.pop("ratios", ())
    return Facts(measured(**more), initial or {}, silent, ratios)


@pytest.mark.parametrize(
    ("rule", "bound", "seen", "found", "says"),
    [
        ("win_rate", 0.4, facts(win_rate=(0.2, 0.1, 0.39)), 0.2, "0.200 [0.100, 0.390], all of it below 0.4"),
        ("win_rate", 0.4, facts(win_rate=(0.2, 0.1, 0.40)), None, ""),  # it may be 0.4
        ("win_rate", 0.4, facts(), None, ""),  # not measured
        ("kl", 10, facts(kl=(10.5, 9.0, 12.0)), 10.5, "10.5 nats per held-out answer (at temperature 1), above 10"),
        ("kl", 10, facts(kl=(10.0, 9.0, 12.0)), None, ""),
        (
            "length_growth",
            2,
            facts(measured(mean_tokens=20.0), mean_tokens=50.0),
            2.5,
            "2.5 times as long (20 to 50 tokens), above 2",
        ),
        ("length_growth", 2, facts(measured(mean_tokens=20.0), mean_tokens=40.0), None, ""),
        ("length_growth", 2, facts(mean_tokens=40.0), None, ""),  # the initial policy was not measured
        ("abstained", 0.3, facts(silent=0.5, abstained=0.25), 0.5, "50.0% of the train prompts"),
        ("abstained", 0.3, facts(silent=0.1, abstained=0.375), 0.375, "37.5% of the held-out prompts"),
        ("abstained", 0.3, facts(silent=0.3, abstained=0.0), None, ""),
        ("chosen_fall", 5, facts(ratios=(0, 0, 0, -1, -2, -3, -7, -9)), 8.0, "fallen 8 nats below the reference"),
        ("chosen_fall", 5, facts(ratios=(-50, -40, -30, -9, -8, -7, -5, -5)), None, ""),  # it has come back
        ("chosen_fall", 5, facts(ratios=(-6,)), 6.0, "more than 5"),
        ("chosen_fall", 5, facts(), None, ""),
    ],
)
def test_a_rule(rule: str, bound: float, seen: Facts, found: float | None, says: str) -> None:
    verdict = RULES[rule](seen, bound)
    assert (verdict and verdict[0]) == found
    assert says in (verdict[1] if verdict else "")


def test_a_rule_without_a_bound_is_off_and_the_first_broken_one_speaks() -> None:
    seen = facts(measured(mean_tokens=1.0), kl=99.0, mean_tokens=99.0)
    assert first_broken(seen, dict.fromkeys(RULES)) is None
    assert first_broken(seen, {}) is None
    broken = first_broken(seen, {"length_growth": 2.0, "kl": 3.0})
    assert broken is not None and broken[:2] == ("kl", 3.0)
