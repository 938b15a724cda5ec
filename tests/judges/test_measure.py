"""Measures of judges, against hand-worked examples, brute force and simulation."""

from math import sqrt

import numpy as np
import pytest

from sparring.judges.measure import (
    accuracy,
    calibration_error,
    cohens_kappa,
    length_controlled,
    outcomes,
    paired_difference,
    position_bias,
    share,
)
from sparring.loop.evaluator import wilson


def test_outcomes_of_every_kind() -> None:
    delta = [2.0, -0.1, 0.0, None, 3.0, -3.0, 0.0]
    p_a = [1.0, 0.7, 0.0, 1.0, 0.5, 0.2, 0.5]
    #      right wrong tie none  (tied) right (tied)
    np.testing.assert_array_equal(outcomes(delta, p_a), [1.0, 0.0, 0.5, np.nan, np.nan, 1.0, np.nan])


def test_accuracy_leaves_out_tied_labels_and_silence_and_counts_them() -> None:
    found = accuracy([2.0, -0.1, 0.0, None, 3.0, -3.0], [1.0, 0.7, 0.0, 1.0, 0.5, 0.2], "abcdef")
    assert (found.decided, found.ties, found.abstained) == (5, 1, 1)
    assert found.share is not None
    assert (found.share.value, found.share.n) == (2.5 / 4, 4)
    assert (found.share.low, found.share.high) == pytest.approx(wilson(2.5 / 4, 4))


def test_accuracy_without_any_answer_is_none() -> None:
    found = accuracy([None, None, 1.0], [1.0, 0.0, 0.5], "abc")
    assert found.share is None
    assert (found.decided, found.abstained) == (2, 2)


def test_swapping_the_answers_changes_no_accuracy() -> None:
    random = np.random.default_rng(0)
    delta, p_a = random.normal(size=50).round(), random.choice([0.0, 0.3, 0.5, 1.0], 50)
    prompts = list(range(25)) * 2
    assert accuracy(delta, p_a, prompts) == accuracy(-delta, 1 - p_a, prompts)


def test_pairs_of_one_prompt_count_as_one_when_they_agree() -> None:
    # 4 prompts of 5 pairs each, all right or all wrong: worth 4, not 20.
    right = [1.0] * 5 + [0.0] * 5 + [1.0] * 10
    clustered = share(right, [k // 5 for k in range(20)])
    assert clustered is not None
    assert (clustered.low, clustered.high) == pytest.approx(wilson(0.75, 4))
    free = share(right, list(range(20)))
    assert free is not None
    assert (free.low, free.high) == pytest.approx(wilson(0.75, 20))


def test_the_interval_of_clustered_pairs_covers() -> None:
    # 60 prompts of 6 pairs, correlation 0.49 within a prompt, true accuracy 0.7: 95 % must hold it, and does about so.
    random = np.random.default_rng(1)
    prompts = [k // 6 for k in range(360)]
    held = 0
    for _ in range(300):
        shared = np.repeat(random.random(60) < 0.7, 6)
        own = random.random(360) < 0.7
        found = share(np.where(random.random(360) < 0.7, shared, own).astype(float), prompts)
        assert found is not None
        held += found.low <= 0.7 <= found.high
    assert 0.90 <= held / 300 <= 0.99  # without clusters it is about 0.73


def test_length_control_by_hand() -> None:
    # Better and longer: right, right, wrong, tie -> 2.5 / 4. Better and shorter: right, wrong -> 1 / 2. Equal: in none.
    delta = [1.0, -1.0, -1.0, 0.0, 1.0, 1.0, 5.0]
    p_a = [1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0]
    longer = [9.0, -2.0, 3.0, 1.0, -4.0, 4.0, 0.0]
    found = length_controlled(delta, p_a, longer, "abcdefg")
    assert found is not None
    assert (found.value, found.n) == ((2.5 / 4 + 1 / 2) / 2, 6)
    (low1, high1), (low2, high2) = wilson(0.625, 4), wilson(0.5, 2)
    down = sqrt((0.625 - low1) ** 2 + (0.5 - low2) ** 2) / 2
    up = sqrt((high1 - 0.625) ** 2 + (high2 - 0.5) ** 2) / 2
    assert (found.low, found.high) == pytest.approx((found.value - down, found.value + up))


def test_length_control_takes_length_away_and_nothing_else() -> None:
    random = np.random.default_rng(2)
    longer = random.normal(size=4000)
    p_a = (random.random(4000) < np.where(longer > 0, 0.75, 0.25)).astype(float)  # length does tell
    prompts = list(range(4000))
    plain = accuracy(longer, p_a, prompts).share
    assert plain is not None and plain.value == pytest.approx(0.75, abs=0.03)
    for reader in (longer, -longer):
        controlled = length_controlled(reader, p_a, longer, prompts)
        assert controlled is not None and controlled.value == 0.5
    knows = np.where(random.random(4000) < 0.8, p_a - 0.5, 0.5 - p_a)  # right 4 times in 5, whatever the length
    controlled = length_controlled(knows, p_a, longer, prompts)
    assert controlled is not None and controlled.value == pytest.approx(0.8, abs=0.03)


def test_length_control_needs_both_kinds() -> None:
    assert length_controlled([1.0, 1.0], [1.0, 1.0], [3.0, 5.0], "ab") is None


def test_paired_difference_against_the_closed_form() -> None:
    random = np.random.default_rng(3)
    one, other = random.integers(0, 2, 400).astype(float), random.integers(0, 2, 400).astype(float)
    found = paired_difference(one, other, list(range(400)), seed=5)
    assert found is not None
    difference = one - other
    half = 1.96 * difference.std(ddof=1) / sqrt(400)
    assert found.value == pytest.approx(difference.mean())
    assert found.low == pytest.approx(difference.mean() - half, abs=0.01)
    assert found.high == pytest.approx(difference.mean() + half, abs=0.01)
    assert found == paired_difference(one, other, list(range(400)), seed=5)
    assert found != paired_difference(one, other, list(range(400)), seed=6)


def test_paired_difference_draws_prompts_not_pairs() -> None:
    # Each pair eight times over in its prompt: as much as is known without the copies, and the same interval.
    random = np.random.default_rng(4)
    one, other = random.integers(0, 2, 100).astype(float), random.integers(0, 2, 100).astype(float)
    plain = paired_difference(one, other, list(range(100)), seed=1)
    copied = paired_difference(np.repeat(one, 8), np.repeat(other, 8), [k // 8 for k in range(800)], seed=1)
    assert plain is not None and copied is not None
    assert (copied.low, copied.high, copied.n) == (plain.low, plain.high, 800)


def test_paired_difference_uses_what_both_answered() -> None:
    found = paired_difference([1.0, None, 1.0, 0.0], [0.0, 1.0, None, 0.0], "aabb")
    assert found is not None and (found.value, found.n) == (0.5, 2)
    assert paired_difference([1.0, 0.0], [0.0, 0.0], "aa") is None  # one prompt says nothing of others
    assert paired_difference([None, 1.0], [1.0, None], "ab") is None


def test_calibration_by_hand() -> None:
    # In the bin [.9, 1]: confidences .9 and .95 (of b), right once: |.925 - .5|. In [.6, .7]: .65, right: |.65 - 1|.
    found = calibration_error([0.92, 0.05, 0.65, None], [0.0, 0.0, 1.0, 1.0], bins=5)
    assert found == pytest.approx((0.35 + 2 * 0.435) / 3)


def test_calibration_does_not_care_which_answer_is_a() -> None:
    p, p_a = [0.9, 0.4, 0.5, 1.0], [1.0, 0.7, 0.0, 0.5]
    mirrored = calibration_error([1 - x for x in p], [1 - x for x in p_a])
    assert mirrored is not None and calibration_error(p, p_a) == pytest.approx(mirrored)
    assert calibration_error([None], [1.0]) is None


def test_calibration_of_a_judge_that_knows_its_chances() -> None:
    random = np.random.default_rng(5)
    p = random.random(20_000)
    p_a = (random.random(20_000) < p).astype(float)
    honest, boasting = calibration_error(p, p_a), calibration_error((p > 0.5).astype(float), p_a)
    assert honest is not None and honest < 0.015
    assert boasting == pytest.approx(0.25, abs=0.015)  # right 3/4 of the time, sure of all


def test_position_bias_by_hand() -> None:
    #           a wins, first wins, second wins, first wins, tie then a, no answer
    first = [0.9, 0.9, 0.1, 1.0, 0.5, None]
    second = [0.8, 0.2, 0.7, 0.0, 0.9, 0.1]
    found = position_bias(first, second)
    assert found is not None
    assert (found.duels, found.disagree, found.first, found.second) == (5, 3 / 5, 2 / 5, 1 / 5)
    assert position_bias([None], [0.5]) is None


def test_kappa_by_hand() -> None:
    # Cohen's table 20 5 / 10 15: observed 35/50, expected (25 * 30 + 25 * 20) / 2500 = 1/2, kappa 0.4.
    one = ["yes"] * 25 + ["no"] * 25
    other = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohens_kappa(one, other) == pytest.approx(0.4)
    assert cohens_kappa(other, one) == pytest.approx(0.4)
    # Three classes: observed 3/4, expected (2 * 1 + 1 * 2 + 1 * 1) / 16 = 5/16, kappa (7/16) / (11/16).
    assert cohens_kappa([1, 1, -1, 0], [1, -1, -1, 0]) == pytest.approx(7 / 11)
    assert cohens_kappa([1, 2, 3], [1, 2, 3]) == 1.0
    assert cohens_kappa([1, 1], [1, 1]) is None
    assert cohens_kappa([], []) is None
