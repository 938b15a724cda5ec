"""What the best of n answers by a proxy score is worth, and how far it is from the policy. Pure numpy."""

from math import log

import numpy as np

from sparring.judges.measure import Array


def best_of_n(proxy: Array, gold: Array, n: int) -> float:
    """Expected gold score of the answer with the best proxy score among n of the N drawn: exact, without sampling.

    sum over i from n to N of C(i-1, n-1) / C(N, n) * gold(S_i), S ascending by proxy (the estimate of Coste et al.,
    arXiv:2310.02743). Answers of equal proxy score share their chances. Shapes [N]. Raises ValueError unless
    1 <= n <= N.
    """
    size = len(proxy)
    if not 1 <= n <= size:
        raise ValueError(f"best of {n} among {size} answers; expected n from 1 to {size}")
    i = np.arange(size, n, -1)
    # From the top: C(N-1, n-1) / C(N, n) = n / N, and each step down multiplies by (i - n) / (i - 1), at most 1.
    falling = n / size * np.cumprod(np.concatenate([[1.0], (i - n) / (i - 1)]))
    weights = np.concatenate([np.zeros(n - 1), falling[::-1]])
    order = np.argsort(proxy, kind="stable")
    _, tied = np.unique(proxy[order], return_inverse=True)
    gold_of_tied = np.bincount(tied, gold[order]) / np.bincount(tied)
    return float(weights @ gold_of_tied[tied])


def kl_best_of_n(n: int) -> float:
    """KL(best-of-n policy || policy) in nats, exact for distinct answers: log n - (n - 1) / n."""
    return log(n) - (n - 1) / n
