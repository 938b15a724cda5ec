"""Doubtful labels by hand, and on pairs whose wrong labels are known."""

from math import log

import numpy as np
import pytest

from sparring.judges.quality import (
    Variant,
    answer_probabilities,
    evolve,
    fit_temperature,
    relabel,
    relabel_preferences,
    self_evolved,
    stopped_improving,
    strength,
)
from sparring.loop.errors import ConfigError, DataError
from sparring.loop.labelled_pairs import Preference


def pair(name: str, p_a: float, **fields: float) -> Preference:
    return Preference.make([{"role": "user", "content": name}], f"{name} a", f"{name} b", p_a, **fields)


def test_strength_by_hand() -> None:
    found = strength([[1.0, -2.0], [3.0, -2.0]])
    assert found.tolist() == [2.0, -2.0]


@pytest.mark.parametrize("bad", [[1.0, 2.0], [[1.0, float("nan")]], np.empty((0, 3))])
def test_strength_wants_finite_numbers_of_models_and_pairs(bad: object) -> None:
    with pytest.raises(DataError, match=r"finite numbers \[models, pairs\]"):
        strength(bad)


# Ten pairs of mean strength -2, -1, ..., 7: the std of 0..9 is sqrt(8.25). The bottom 20 % are -2 and -1; 0 and 1 are
# ambiguous; the third pair from below is not negative.
TEN = np.arange(-2.0, 8.0)
UNIT = np.arange(-2.0, 8.0) / np.sqrt(8.25)
SOFT = (1 / (1 + np.exp(-UNIT[:2]))).tolist()
KEPT = [0.0, *UNIT[3:].tolist()]  # margins of the pairs from the third on


@pytest.mark.parametrize(
    ("variant", "p", "margins"),
    [
        ("flip", [0.0, 0.0, 0.9, 0.9] + [1.0] * 6, [0.0] * 10),
        ("margin", [1.0] * 10, [0.0, 0.0, *KEPT]),
        ("flip_margin", [0.0, 0.0, 0.9, 0.9] + [1.0] * 6, [-UNIT[0], -UNIT[1], *KEPT]),
        ("soft_margin", [*SOFT, 0.9, 0.9] + [1.0] * 6, [0.0, 0.0, *KEPT]),
    ],
)
def test_each_variant_by_hand(variant: Variant, p: list[float], margins: list[float]) -> None:
    found = relabel(TEN, variant)
    assert found.p == pytest.approx(p)
    assert found.margin == pytest.approx(margins)
    assert found.weight.tolist() == [1.0] * 10


def test_bins_go_by_rank_and_not_by_place() -> None:
    order = np.random.default_rng(0).permutation(10)
    straight, mixed = relabel(TEN), relabel(TEN[order])
    np.testing.assert_array_equal(mixed.p, straight.p[order])
    np.testing.assert_array_equal(mixed.margin, straight.margin[order])


def test_a_label_that_the_models_uphold_is_never_flipped() -> None:
    assert relabel(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), "flip", ambiguous=0.0).p.tolist() == [1] * 5


def test_the_scale_of_the_models_changes_nothing() -> None:
    for variant in ("flip", "margin", "flip_margin", "soft_margin"):
        one, other = relabel(TEN, variant), relabel(TEN * 50, variant)
        np.testing.assert_allclose(one.p, other.p)
        np.testing.assert_allclose(one.margin, other.margin)


def test_ambiguous_pairs_can_be_dropped() -> None:
    found = relabel(TEN, "flip", drop_ambiguous=True)
    assert found.weight.tolist() == [1.0, 1.0, 0.0, 0.0] + [1.0] * 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "flop"}, "no relabelling 'flop'; choose one of flip, margin, flip_margin, soft_margin"),
        ({"wrong": 0.9}, "wrong is 0.9, ambiguous 0.2"),
        ({"smooth": 0.5}, "smooth 0.5"),
    ],
)
def test_refusals(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        relabel(TEN, **options)  # type: ignore[arg-type]


def test_labels_of_preferences_are_changed_on_the_side_they_are_on() -> None:
    # Strengths by label: -3 (labelled b, the models say a by 3), 1, 2, 3, and a tie. One in four is flipped.
    old = [pair("w", 0.0), pair("x", 1.0), pair("y", 0.0), pair("t", 0.5), pair("z", 0.8, weight=2.0)]
    deltas = [[3.0, 1.0, -2.0, 9.0, 3.0]] * 2
    new = relabel_preferences(old, deltas, "flip_margin", wrong=0.25, ambiguous=0.25)
    unit = np.array([-3.0, 1.0, 2.0, 3.0]).std()
    assert [p.p_a for p in new] == pytest.approx([1.0, 0.9, 0.0, 0.5, 0.8])
    assert [p.margin * unit for p in new] == pytest.approx([3.0, 1.0, 2.0, 0.0, 3.0])
    assert [p.weight for p in new] == [1.0, 1.0, 1.0, 1.0, 2.0]
    assert new[3] is old[3]
    assert [(p.a, p.b) for p in new] == [(p.a, p.b) for p in old]
    assert new[0].id != old[0].id  # another label is another pair


def test_a_share_of_votes_is_blended_with_the_doubt() -> None:
    old = [pair("x", 0.8), pair("y", 1.0)]
    new = relabel_preferences(old, [[1.0, 2.0]], "flip", wrong=0.0, ambiguous=0.5)
    assert new[0].p_a == pytest.approx(0.9 * 0.8 + 0.1 * 0.2)


def test_dropped_pairs_are_gone_and_ties_alone_are_kept() -> None:
    old = [pair("x", 1.0), pair("t", 0.5), pair("y", 1.0)]
    new = relabel_preferences(old, [[1.0, 0.0, 2.0]], "flip", wrong=0.0, ambiguous=0.5, drop_ambiguous=True)
    assert new == [old[1], pair("y", 1.0)]
    assert relabel_preferences(old[1:2], [[0.0]]) == old[1:2]
    with pytest.raises(DataError, match=r"\[models, 3\]"):
        relabel_preferences(old, [[1.0, 2.0]])


def test_flipping_mends_labels_that_were_flipped() -> None:
    """25 % of the labels are wrong and the models see the truth through noise: flipping the bottom mends most."""
    random = np.random.default_rng(1)
    wrong = random.random(2000) < 0.25
    truth = random.exponential(2.0, 2000) * np.where(wrong, -1, 1)
    found = relabel(strength(truth + random.normal(0, 1, (5, 2000))), "flip", wrong=0.25, ambiguous=0.0)
    assert wrong.mean() > 0.24
    assert (wrong == (found.p == 0)).mean() > 0.93


def test_temperature_of_a_judge_that_boasts() -> None:
    # P(a) is sigma(delta / 4), and delta is taken for log-odds: the temperature is 4.
    random = np.random.default_rng(2)
    delta = random.normal(0, 8, 20_000)
    p_a = (random.random(20_000) < 1 / (1 + np.exp(-delta / 4))).astype(float)
    assert fit_temperature(delta, p_a) == pytest.approx(4.0, rel=0.05)
    assert fit_temperature(delta * 10, p_a) == pytest.approx(10 * fit_temperature(delta, p_a))
    assert fit_temperature(-delta, 1 - p_a) == pytest.approx(fit_temperature(delta, p_a))
    assert fit_temperature([*delta, float("nan")], [*p_a, 1.0]) == pytest.approx(fit_temperature(delta, p_a))


def test_temperature_by_hand_with_labels_drawn_to_the_middle() -> None:
    # All 8 pairs at delta 1 are right: P = 9 / 10, so 1 / T = log 9.
    assert fit_temperature([1.0] * 8, [1.0] * 8) == pytest.approx(1 / log(9))
    # Soft labels 3/4: the mean of P is (0.75 * 8 + 1) / 10 = 0.7.
    assert fit_temperature([2.0] * 8, [0.75] * 8) == pytest.approx(2 / log(7 / 3))


@pytest.mark.parametrize(("delta", "p_a"), [([1.0, -1.0], [0.0, 1.0]), ([1.0, 1.0], [1.0, 0.0]), ([], [])])
def test_a_judge_not_above_chance_has_no_temperature(delta: list[float], p_a: list[float]) -> None:
    with pytest.raises(DataError, match="do not agree with the labels"):
        fit_temperature(delta, p_a)


def test_self_evolved_by_hand() -> None:
    p = [
        (0.56, 0.44),  # both past their bounds
        (0.44, 0.56),  # and mirrored
        (0.54, 0.44),  # not high enough, and no gap
        (0.90, 0.59),  # both high, but far apart
        (0.20, 0.60),
        (0.90, 0.70),  # both high, too near
        (0.50, 0.50),
        (0.60, float("nan")),
    ]
    assert self_evolved(p).tolist() == [1, -1, 0, 1, -1, 0, 0, 0]
    assert self_evolved(p, lo=0.3, hi=0.7, gap=0.5).tolist() == [0] * 8
    with pytest.raises(ConfigError, match=r"lo is 0.6, hi 0.4"):
        self_evolved(p, lo=0.6, hi=0.4)


def test_evolve_labels_what_is_sure_and_keeps_the_rest() -> None:
    old = [pair("x", 0.5), pair("y", 0.5), pair("z", 0.5)]
    labelled, left = evolve(old, [(0.9, 0.1), (0.5, 0.5), (0.2, 0.8)], 0.45, 0.55, 0.3)
    assert [(p.a, p.p_a) for p in labelled] == [("x a", 1.0), ("z a", 0.0)]
    assert left == [old[1]]


def test_answer_probabilities_are_calibrated_scores() -> None:
    found = answer_probabilities([[3.0, 1.0]], temperature=2.0, centre=1.0)
    assert found == pytest.approx(np.array([[1 / (1 + np.exp(-1.0)), 0.5]]))


@pytest.mark.parametrize(
    ("accuracies", "stop"),
    [
        ([0.6], False),
        ([0.6, 0.65], False),
        ([0.6, 0.65, 0.65], True),  # no gain is the end
        ([0.6, 0.58], True),  # the seed was best
        ([0.6, 0.58, 0.7], False),
        ([], False),
    ],
)
def test_the_rule_to_stop(accuracies: list[float], stop: bool) -> None:
    assert stopped_improving(accuracies) == stop
