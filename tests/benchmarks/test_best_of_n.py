"""Best of n, against all subsets and simulation."""

from itertools import combinations
from math import comb, log

import numpy as np
import pytest

from benchmarks.best_of_n import best_of_n, kl_best_of_n


def by_all_subsets(proxy: np.ndarray, gold: np.ndarray, n: int) -> float:
    """Every choice of n answers; where the best proxy score is shared, each of its holders is taken as often."""
    means = []
    for chosen in map(list, combinations(range(len(proxy)), n)):
        best = [i for i in chosen if proxy[i] == proxy[chosen].max()]
        means.append(gold[best].mean())
    assert len(means) == comb(len(proxy), n)
    return float(np.mean(means))


@pytest.mark.parametrize("tied", [False, True])
def test_best_of_n_against_all_subsets(tied: bool) -> None:
    random = np.random.default_rng(6)
    proxy, gold = random.normal(size=9), random.normal(size=9)
    if tied:
        proxy = proxy.round()
        assert len(set(proxy)) < 6
    for n in range(1, 10):
        assert best_of_n(proxy, gold, n) == pytest.approx(by_all_subsets(proxy, gold, n))


def test_best_of_n_at_its_ends_and_at_size() -> None:
    random = np.random.default_rng(7)
    proxy, gold = random.normal(size=12_500), random.normal(size=12_500)
    assert best_of_n(proxy, gold, 1) == pytest.approx(gold.mean())
    assert best_of_n(proxy, gold, 12_500) == gold[proxy.argmax()]
    for n in (2, 100, 6000):
        assert best_of_n(proxy, np.ones(12_500), n) == pytest.approx(1)  # the chances add up
    # Of a uniform score the best of n has mean n / (n + 1).
    grid = np.arange(1, 12_501) / 12_501
    assert best_of_n(grid, grid, 99) == pytest.approx(0.99, abs=1e-6)


@pytest.mark.parametrize("n", [0, 4])
def test_best_of_more_than_there_are_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match=f"best of {n} among 3"):
        best_of_n(np.ones(3), np.ones(3), n)


def test_kl_of_best_of_n_by_hand_and_by_simulation() -> None:
    assert kl_best_of_n(1) == 0
    assert kl_best_of_n(2) == pytest.approx(log(2) - 0.5)
    # The best of n has density n u^(n-1) over the quantile u: KL = E log density.
    u = np.random.default_rng(8).random(400_000) ** (1 / 16)
    assert np.log(16 * u**15).mean() == pytest.approx(kl_best_of_n(16), abs=0.01)
