"""Which two answers are compared next: numbers by hand, and frequencies over many draws."""

from collections import Counter
from random import Random

import numpy as np
import pytest

from sparring.judges.choosing import CHOICES, best_vs_uncertain, thompson, uncertainty

# Three answers (rows), two members (columns). Differences over members: 0-1: -1, -3; 0-2: -5, -4; 1-2: -4, -1.
BY_HAND = [[0.0, 0.0], [1.0, 3.0], [5.0, 4.0]]


def test_uncertainty_takes_the_difference_that_varies_most() -> None:
    """Population variances by hand: 1, 0.25, 2.25."""
    assert uncertainty(BY_HAND, 0) == (1, 2)
    assert {uncertainty(BY_HAND, seed) for seed in range(20)} == {(1, 2)}


def test_the_best_is_set_against_what_differs_from_it_most_uncertainly() -> None:
    """Both members find 2 best; of its differences, 1's varies by 2.25 and 0's by 0.25."""
    assert best_vs_uncertain(BY_HAND, 0) == (2, 1)
    split = [[9.0, 0.0], [0.0, 9.0], [3.0, 3.0]]  # 0-1: 9, -9 (81); 0-2: 6, -3 (20.25); 1-2: -3, 6 (20.25)
    assert {best_vs_uncertain(split, seed) for seed in range(20)} == {(0, 1), (1, 0)}


def test_thompson_sets_the_favourites_of_two_members_against_each_other() -> None:
    split = [[9.0, 0.0], [0.0, 9.0], [8.0, 8.0]]  # 2 is best by the mean, and nobody's favourite
    assert {thompson(split, seed) for seed in range(20)} == {(0, 1), (1, 0)}


def test_where_all_members_agree_thompson_takes_the_second_best_of_the_one_drawn() -> None:
    agree = [[9.0, 9.0], [5.0, 1.0], [1.0, 5.0]]  # second: 1 for the first member, 2 for the second
    found = Counter(thompson(agree, seed) for seed in range(400))
    assert set(found) == {(0, 1), (0, 2)}
    assert found[0, 1] / 400 == pytest.approx(0.5, abs=0.1)


def test_members_are_drawn_alike() -> None:
    """Of four members three prefer answer 0: it comes first in 3/4 of the draws, and 1 is always the other one."""
    found = Counter(thompson([[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]], seed) for seed in range(2000))
    assert set(found) == {(0, 1), (1, 0)}
    assert found[0, 1] / 2000 == pytest.approx(0.75, abs=0.04)  # 4 standard errors
    three = Counter(thompson(np.eye(3).tolist(), seed) for seed in range(3000))  # a favourite each
    assert len(three) == 6
    assert all(n / 3000 == pytest.approx(1 / 6, abs=0.03) for n in three.values())


@pytest.mark.parametrize("choose", CHOICES)
def test_two_different_answers_whatever_the_scores(choose: str) -> None:
    rng = Random(7)
    for n, members in [(2, 2), (3, 5), (8, 3)]:
        for seed in range(20):
            scores = [[rng.choice([0.0, 0.5, 1.0]) for _ in range(members)] for _ in range(n)]
            first, second = CHOICES[choose](scores, seed)
            assert first != second and {first, second} <= set(range(n))
            assert CHOICES[choose](scores, seed) == (first, second)


@pytest.mark.parametrize("choose", ["uncertainty", "best_vs_uncertain"])
def test_the_variance_is_that_of_numpy(choose: str) -> None:
    rng = np.random.default_rng(3)
    for seed in range(20):
        scores = rng.normal(size=(6, 4))
        between = (scores[:, None, :] - scores[None, :, :]).var(axis=-1)
        first, second = CHOICES[choose](scores.tolist(), seed)
        if choose == "uncertainty":
            assert between[first, second] == pytest.approx(between.max())
        else:
            assert first in scores.argmax(axis=0)
            assert second == between[first].argmax()


@pytest.mark.parametrize("choose", CHOICES)
def test_a_members_own_shift_changes_nothing(choose: str) -> None:
    """A Bradley-Terry score is free up to a shift of its member."""
    shifted = [[a + 100, b - 7] for a, b in BY_HAND]
    assert all(CHOICES[choose](shifted, seed) == CHOICES[choose](BY_HAND, seed) for seed in range(20))
