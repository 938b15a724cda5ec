"""Every loss of pairs once more, written apart from the code: numpy, float64, from the papers' formulas.

`won` and `lost` are log-ratios of the better and the worse answer; e is the rate of wrong labels.
"""

from collections.abc import Callable

import numpy as np

from tests.helpers.logps import Columns

Array = np.ndarray


def log_s(a: Array) -> Array:
    """log s(a) = -log(1 + e^-a)."""
    found: Array = -np.logaddexp(0, -a)
    return found


def s(a: Array) -> Array:
    found: Array = np.exp(log_s(a))
    return found


def ratio(c: Columns, side: str, per_token: bool = False) -> Array:
    found: Array = (c[f"policy_{side}"] - c[f"reference_{side}"]) / (c[f"{side}_tokens"] if per_token else 1)
    return found


def mean(c: Columns, side: str) -> Array:
    found: Array = c[f"policy_{side}"] / c[f"{side}_tokens"]
    return found


def gap(c: Columns, per_token: bool = False) -> Array:
    found: Array = ratio(c, "chosen", per_token) - ratio(c, "rejected", per_token)
    return found


def cross_entropy(a: Array, p: Array, e: float) -> Array:
    """-q log s(a) - (1 - q) log(1 - s(a)), p turned round with chance e."""
    q = p - 2 * p * e + e
    found: Array = q * np.logaddexp(0, -a) + (1 - q) * np.logaddexp(0, a)
    return found


def over_labels(c: Columns, loss: Callable[[Array, Array], Array]) -> Array:
    """The mean of loss(winner's log-ratio, loser's) over who wins."""
    won, lost = ratio(c, "chosen"), ratio(c, "rejected")
    found: Array = c["p"] * loss(won, lost) + (1 - c["p"]) * loss(lost, won)
    return found


def sigmoid(c: Columns, beta: float = 0.1, label_smoothing: float = 0.0) -> Array:
    return cross_entropy(beta * gap(c), c["p"], label_smoothing)


def cdpo(c: Columns, beta: float = 0.1, label_smoothing: float = 0.1) -> Array:
    e, a = label_smoothing, beta * gap(c)
    won, lost = (-(1 - e) * log_s(b) - e * log_s(-b) for b in (a, -a))
    found: Array = c["p"] * won + (1 - c["p"]) * lost
    return found


def robust(c: Columns, beta: float = 0.1, label_smoothing: float = 0.1) -> Array:
    e, a = label_smoothing, beta * gap(c)
    won, lost = ((-(1 - e) * log_s(b) + e * log_s(-b)) / (1 - 2 * e) for b in (a, -a))
    found: Array = c["p"] * won + (1 - c["p"]) * lost
    return found


def ipo(c: Columns, beta: float = 0.1, length_norm: bool = False) -> Array:
    return np.square(gap(c, length_norm) - (2 * c["p"] - 1) / (2 * beta))


def hinge(c: Columns, beta: float = 0.1) -> Array:
    a = beta * gap(c)
    found: Array = c["p"] * np.maximum(0, 1 - a) + (1 - c["p"]) * np.maximum(0, 1 + a)
    return found


def sigmoid_norm(c: Columns, beta: float = 5.0, label_smoothing: float = 0.0) -> Array:
    return cross_entropy(beta * gap(c, True), c["p"], label_smoothing)


def exo(c: Columns, beta: float = 0.1, label_smoothing: float = 1e-3) -> Array:
    a, q = beta * gap(c), c["p"] + label_smoothing - 2 * c["p"] * label_smoothing
    found: Array = s(a) * (log_s(a) - np.log(q)) + s(-a) * (log_s(-a) - np.log(1 - q))
    return found


def discopop(c: Columns, beta: float = 0.1, tau: float = 0.05) -> Array:
    def of(won: Array, lost: Array) -> Array:
        a = beta * (won - lost)
        found: Array = -(1 - s(a / tau)) * log_s(a) + np.exp(-a - np.logaddexp(0, -a / tau))
        return found

    return over_labels(c, of)


def dpop(c: Columns, beta: float = 0.3, dpop_lambda: float = 50.0) -> Array:
    return over_labels(c, lambda won, lost: -log_s(beta * (won - lost - dpop_lambda * np.maximum(0, -won))))


def length_regularised(c: Columns, beta: float = 0.1, alpha: float = 0.01, label_smoothing: float = 0.0) -> Array:
    a = beta * gap(c) + alpha * c["chosen_tokens"] - alpha * c["rejected_tokens"]
    return cross_entropy(a, c["p"], label_smoothing)


def rpo_nv(c: Columns, beta: float = 0.1, eta: float = 1.0, distance: str = "bwd") -> Array:
    a, b = beta * gap(c), eta * c["margin"]
    if distance == "sq":
        return np.square(a - b)
    x, y = (b, a) if distance == "bwd" else (a, b)  # KL(Bernoulli(s(x)) || Bernoulli(s(y)))
    found: Array = s(x) * (log_s(x) - log_s(y)) + (1 - s(x)) * (log_s(-x) - log_s(-y))
    return found


def aot(c: Columns, beta: float = 0.1, label_smoothing: float = 0.0) -> Array:
    policy = c["policy_chosen"] - c["policy_rejected"]
    reference = np.sort(c["reference_chosen"] - c["reference_rejected"])
    found = np.empty_like(policy)
    for rank, i in enumerate(np.argsort(policy, kind="stable")):
        found[i] = cross_entropy(beta * (policy[i] - reference[rank]), c["p"][i], label_smoothing)
    return found


def aot_unpaired(c: Columns, beta: float = 0.1, label_smoothing: float = 0.0) -> Array:
    won, lost = ratio(c, "chosen"), np.sort(ratio(c, "rejected"))
    found = np.empty_like(won)
    for rank, i in enumerate(np.argsort(won, kind="stable")):
        found[i] = cross_entropy(beta * (won[i] - lost[rank]), c["p"][i], label_smoothing)
    return found


def simpo(c: Columns, beta: float = 2.0, gamma: float = 1.0, label_smoothing: float = 0.0) -> Array:
    return cross_entropy(beta * (mean(c, "chosen") - mean(c, "rejected") - gamma / beta), c["p"], label_smoothing)


def cpo(c: Columns, beta: float = 0.1, alpha: float = 1.0) -> Array:
    return cross_entropy(beta * (c["policy_chosen"] - c["policy_rejected"]), c["p"], 0) - alpha * mean(c, "chosen")


def odds(c: Columns, side: str) -> tuple[Array, Array, Array]:
    """log P, log(1 - P) and the logarithm of their odds, P below 1."""
    yes = np.minimum(mean(c, side), -1e-6)
    no = np.log1p(-np.exp(yes))
    return yes, no, yes - no


def orpo(c: Columns, beta: float = 0.1) -> Array:
    return -mean(c, "chosen") + beta * cross_entropy(odds(c, "chosen")[2] - odds(c, "rejected")[2], c["p"], 0)


def asft(c: Columns, beta: float = 0.1) -> Array:
    """By its identity: log s(log-odds) is log P, log s(-log-odds) is log(1 - P)."""
    (yes_w, no_w, _), (yes_l, no_l, _), p = odds(c, "chosen"), odds(c, "rejected"), c["p"]
    found: Array = -mean(c, "chosen") - beta * (p * (yes_w + no_l) + (1 - p) * (no_w + yes_l))
    return found


def kto(c: Columns, beta: float = 0.1, desirable_weight: float = 1.0, undesirable_weight: float = 1.0) -> Array:
    def of(won: Array, lost: Array) -> Array:
        z = c["baseline"]
        return desirable_weight * (1 - s(beta * (won - z))) + undesirable_weight * (1 - s(beta * (z - lost)))

    return over_labels(c, of)


def bco(c: Columns, beta: float = 0.1) -> Array:
    return over_labels(
        c, lambda won, lost: -log_s(beta * (won - c["baseline"])) - log_s(-beta * (lost - c["baseline"]))
    )


def nca(c: Columns, beta: float = 0.1) -> Array:
    return over_labels(c, lambda won, lost: -log_s(beta * won) - log_s(-beta * won) / 2 - log_s(-beta * lost) / 2)


def sppo(c: Columns, eta: float = 1000.0) -> Array:
    won, lost = ratio(c, "chosen"), ratio(c, "rejected")
    found: Array = np.square(won - eta * (c["p"] - 0.5)) + np.square(lost - eta * (0.5 - c["p"]))
    return found


def sppo_hard(c: Columns, beta: float = 1e-3) -> Array:
    found: Array = np.square(ratio(c, "chosen") - 0.5 / beta) + np.square(ratio(c, "rejected") + 0.5 / beta)
    return found


def apo_zero(c: Columns, beta: float = 0.1) -> Array:
    return over_labels(c, lambda won, lost: 1 - s(beta * won) + s(beta * lost))


def apo_down(c: Columns, beta: float = 0.1) -> Array:
    return over_labels(c, lambda won, lost: s(beta * won) + 1 - s(beta * (won - lost)))


PAIRS: dict[str, Callable[..., Array]] = {
    f.__name__: f
    for f in (
        *(sigmoid, cdpo, robust, ipo, hinge, sigmoid_norm, exo, discopop, dpop, length_regularised, rpo_nv),
        *(aot, aot_unpaired, simpo, cpo, orpo, asft, kto, bco, nca, sppo, sppo_hard, apo_zero, apo_down),
    )
}
