"""The arithmetic of the probe; that it sees real stale weights is in tests/engine."""

import pytest

from sparring.loop.sampling.probe import arrived, difference

BEFORE = [-1.0, -2.0, -3.0, -4.0]
WANT = [-1.1, -1.9, -3.3, -4.0]  # moved by -0.1, +0.1, -0.3, 0


def test_difference_by_hand() -> None:
    assert difference([-1.0, -2.0], [-1.5, -1.0]) == 0.75


def test_all_or_none_of_an_update() -> None:
    assert arrived(WANT, WANT, BEFORE) == pytest.approx(1.0)
    assert arrived(BEFORE, WANT, BEFORE) == pytest.approx(0.0)
    half = [(w + b) / 2 for w, b in zip(WANT, BEFORE, strict=True)]
    assert arrived(half, WANT, BEFORE) == pytest.approx(0.5)


def test_rounding_averages_out_but_large_rounding_says_nothing() -> None:
    # Rounding of +-0.01 against a move of (-0.1, 0.1, -0.3, 0): (0.110 + 0.001 * (-1 - 1 - 3)) / 0.110
    noisy = [w + n for w, n in zip(WANT, (0.01, -0.01, 0.01, -0.01), strict=True)]
    assert arrived(noisy, WANT, BEFORE) == pytest.approx((0.110 + 0.01 * (-0.1 - 0.1 - 0.3)) / 0.110)
    assert arrived([w + n for w, n in zip(WANT, (1, -1, 1, -1), strict=True)], WANT, BEFORE) is None
    assert arrived(WANT, BEFORE, BEFORE) is None  # no update, nothing to see
