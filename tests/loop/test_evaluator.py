"""Metrics of a candidate by hand, their intervals, and the gate."""

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sparring.loop.evaluator import RivalEvaluator, effective_n, mean_interval, wilson, win_share
from sparring.loop.types import Evaluation, Experience, Round
from tests.helpers.experience import ROUND, experience

Z = 1.959964  # the 97.5 % point of the normal distribution


@pytest.mark.parametrize(
    ("share", "n", "low", "high"),
    [
        (0.8, 10, 0.4902, 0.9433),  # as in any table of Wilson's interval
        (0.5, 100, 0.4038, 0.5962),
        (0.0, 10, 0.0, 0.2775),  # high = Z^2 / (n + Z^2) = 3.8415 / 13.8415
        (1.0, 10, 0.7225, 1.0),
        (0.3, 0, 0.0, 1.0),
    ],
)
def test_wilson_by_hand(share: float, n: int, low: float, high: float) -> None:
    assert wilson(share, n) == pytest.approx((low, high), abs=5e-5)


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0.5, 1e6))
def test_wilson_solves_its_equation(share: float, n: float) -> None:
    # By definition its ends are the p for which the share lies Z standard errors of p away.
    low, high = wilson(share, n)
    assert 0 <= low <= share + 1e-12 and share - 1e-12 <= high <= 1
    for p in (low, high):
        assert (share - p) ** 2 == pytest.approx(Z**2 * p * (1 - p) / n, rel=1e-4, abs=1e-12)


def test_wilson_against_scipy() -> None:
    stats = pytest.importorskip("scipy.stats", reason="a second opinion where scipy is installed")
    for k, n in ((0, 7), (3, 7), (40, 41), (500, 1000)):
        theirs = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
        assert wilson(k / n, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([[1, 1, 1], [0, 0, 0], [1, 1, 1], [0, 0, 0]], 4),  # answers that always agree: one a prompt
        ([[1, 1], [1, 1], [1, 1]], 3),  # no spread at all: the cautious reading
        ([[1, 0], [0, 1], [1, 0]], 6),  # answers that disagree are not worth more than independent ones
        ([[1], [0], [1]], 3),
        ([[1, 0, 1]], 1),  # one prompt says nothing of others: one trial
        # Means 1, 1, 0, 1/2 about 5/8: between 2 (9 + 9 + 25 + 1) / 64 / 3 = 11/24, within (1/2) / 4 = 1/8,
        # rho = (1/3) / (7/12) = 4/7, 8 / (11/7)
        ([[1, 1], [1, 1], [0, 0], [1, 0]], 56 / 11),
    ],
)
def test_effective_n_by_hand(groups: list[list[float]], expected: float) -> None:
    assert effective_n(groups) == pytest.approx(expected)


def test_effective_n_of_independent_and_of_half_bound_answers() -> None:
    random = np.random.default_rng(0)
    own = random.integers(0, 2, (2000, 4))
    assert 0.93 * 8000 < effective_n(own.tolist()) <= 8000
    # Each answer is the prompt's with chance 0.7, else its own: correlation 0.49, 8000 / (1 + 3 * 0.49) = 3239
    shared = np.where(random.random((2000, 4)) < 0.7, random.integers(0, 2, (2000, 1)), own)
    assert effective_n(shared.tolist()) == pytest.approx(3239, rel=0.05)


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=5), min_size=1, max_size=12))
def test_effective_n_lies_between_prompts_and_answers(groups: list[list[float]]) -> None:
    assert len(groups) - 1e-9 <= effective_n(groups) <= sum(map(len, groups))


def test_win_share_by_hand() -> None:
    assert win_share([1.0, 0.0], [0.0, 0.0]) == 0.75  # two wins, two ties
    assert win_share([1.0], [2.0, 1.0, 0.0, 0.0]) == 0.625  # a loss, a tie, two wins
    assert win_share([0.5], [0.5]) == 0.5


@settings(deadline=None)
@given(*[st.lists(st.floats(-9, 9), min_size=1, max_size=6)] * 2)
def test_what_one_wins_the_other_loses(mine: list[float], theirs: list[float]) -> None:
    assume(mine)
    assert win_share(mine, theirs) + win_share(theirs, mine) == pytest.approx(1)


def test_mean_interval_by_hand() -> None:
    # Mean 2, variance (1 + 0 + 1) / 2 = 1
    assert mean_interval([1, 2, 3]) == pytest.approx((2, 2 - Z / sqrt(3), 2 + Z / sqrt(3)), abs=1e-6)
    assert mean_interval([5.0]) == (5.0, None, None)


MINE = experience(
    {
        "a": [("good", 1.0), ("worse", 0.0)],
        "b": [("good", 1.0), ("fine, too...", 1.0)],
        "c": [("?", None), ("!", None)],
    }
)
THEIRS = experience({"a": [("x", 0.0)], "b": [("y", 1.0)], "d": [("z", 0.0)]}, policy="checkpoint_rival")


def evaluate(
    evaluator: RivalEvaluator, rnd: Round = ROUND, mine: Experience = MINE, theirs: Experience = THEIRS
) -> dict[str, Evaluation]:
    found = evaluator.evaluate(rnd, mine, theirs, [1.0, 0.5])
    assert len({e.id for e in found}) == len({e.metric for e in found}) == len(found)
    assert {(e.candidate_id, e.run, e.round) for e in found} == {(ROUND.policy.id, "run", rnd.index)}
    return {e.metric: e for e in found}


def test_metrics_by_hand() -> None:
    found = evaluate(RivalEvaluator())
    assert {metric: (e.value, e.n) for metric, e in found.items()} == {
        "pass_rate": (0.75, 4),  # of the answers that have a score
        "mean_score": (0.75, 4),  # (0.5 + 1) / 2
        "win_rate": (0.625, 2),  # a: a win and a tie, 3/4; b: two ties, 1/2; c and d have no rival
        "mean_tokens": (4.5, 6),  # letters: (4 + 5 + 4 + 12 + 1 + 1) / 6
        "truncated": (pytest.approx(1 / 6), 6),
        "abstained": (pytest.approx(1 / 3), 3),  # prompt c
        "kl": (0.75, 2),  # of divergences 1 and 0.5
        "accepted": (1.0, 1),
    }


def test_intervals_by_hand() -> None:
    found = evaluate(RivalEvaluator())
    intervals = {metric: (e.low, e.high) for metric, e in found.items() if e.low is not None}
    # Scores 1, 0 and 1, 1: between 1/4, within 1/4, rho 0, so four answers count as four.
    assert intervals["pass_rate"] == wilson(0.75, 4)
    assert intervals["win_rate"] == wilson(0.625, 2)
    assert intervals["truncated"] == wilson(1 / 6, 6)
    assert intervals["abstained"] == wilson(1 / 3, 3)
    # Two prompts of mean 1/2 and 1: variance 1/8, standard error 1/4. Two divergences, 1 and 1/2: the same.
    assert intervals["mean_score"] == pytest.approx((0.75 - Z / 4, 0.75 + Z / 4), abs=1e-6)
    assert intervals["kl"] == pytest.approx((0.75 - Z / 4, 0.75 + Z / 4), abs=1e-6)
    assert intervals.keys() == found.keys() - {"accepted"}
    assert {e.rival_id for e in found.values()} == {"checkpoint_rival"}


def test_pass_at() -> None:
    assert evaluate(RivalEvaluator(pass_at=0.0))["pass_rate"].value == 1.0
    assert evaluate(RivalEvaluator(pass_at=1.5))["pass_rate"].value == 0.0


@pytest.mark.parametrize(
    ("gate", "index", "accepted"),
    [(0.5, 3, 1.0), (0.625, 3, 1.0), (0.63, 3, 0.0), (None, 3, 1.0), (0.63, 0, 1.0)],  # round 0 is the start
)
def test_gate(gate: float | None, index: int, accepted: float) -> None:
    assert evaluate(RivalEvaluator(gate=gate), replace(ROUND, index=index))["accepted"].value == accepted


@pytest.mark.parametrize(("gate", "accepted"), [(0.0, 0.0), (0.5, 0.0), (None, 1.0)])
def test_nothing_to_compare_with_is_no_win(gate: float | None, accepted: float) -> None:
    found = evaluate(RivalEvaluator(gate=gate), theirs=experience({"elsewhere": [("x", 1.0)]}))
    assert "win_rate" not in found
    assert found["accepted"].value == accepted


def test_a_judge_without_any_answer() -> None:
    found = evaluate(RivalEvaluator(), mine=experience({"a": [("x", None)], "b": [("yy...", None)]}))
    assert found["abstained"].value == 1.0
    assert found.keys() == {"abstained", "mean_tokens", "truncated", "kl", "accepted"}
    assert found["accepted"].value == 0.0
