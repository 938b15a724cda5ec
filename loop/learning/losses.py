"""Preference losses: pure functions of log-probabilities, one value a pair. No model, no config, no self."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from loop.errors import ConfigError
from loop.options import check_options


@dataclass(frozen=True)
class Logps:
    """What a loss sees, each of shape (B,): log P(completion | prompt) summed over completion tokens, in nats.

    `*_tokens` count completion tokens including the end token. `p` is the target probability that chosen is better,
    `margin` the judge's score difference, `weight` multiplies the pair's loss (applied by `mean_loss`, not by a loss).
    """

    policy_chosen: Tensor
    policy_rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    p: Tensor = field(default_factory=lambda: torch.tensor(1.0))
    margin: Tensor = field(default_factory=lambda: torch.tensor(0.0))
    weight: Tensor = field(default_factory=lambda: torch.tensor(1.0))

    def __post_init__(self) -> None:
        for name in ("p", "margin", "weight"):
            value = torch.as_tensor(getattr(self, name)).to(self.policy_chosen)
            object.__setattr__(self, name, value.expand_as(self.policy_chosen))

    @property
    def chosen_ratio(self) -> Tensor:
        return self.policy_chosen - self.reference_chosen

    @property
    def rejected_ratio(self) -> Tensor:
        return self.policy_rejected - self.reference_rejected

    @property
    def gap(self) -> Tensor:
        """How much more the policy than the reference prefers chosen to rejected."""
        return self.chosen_ratio - self.rejected_ratio

    def __getitem__(self, index: Any) -> "Logps":
        return Logps(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


Loss = Callable[[Logps], Tensor]


def _logistic(a: Tensor, p: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy of a Bernoulli with logit `a` against target p, smoothed: -p' log s(a) - (1 - p') log s(-a)."""
    target = p * (1 - label_smoothing) + (1 - p) * label_smoothing
    return -target * F.logsigmoid(a) - (1 - target) * F.logsigmoid(-a)


def sigmoid(logps: Logps, *, beta: float = 0.1, label_smoothing: float = 0.0) -> Tensor:
    """DPO, Eq. 7 of arXiv:2305.18290: -log s(beta gap). Smoothed it is cDPO, Eq. 3 of Mitchell's note of 2023.

    Without smoothing its minimum is at infinity; with it, at beta gap = log((1 - e) / e).
    """
    return _logistic(beta * logps.gap, logps.p, label_smoothing)


def ipo(logps: Logps, *, beta: float = 0.1, length_norm: bool = False) -> Tensor:
    """IPO, Eq. 17 of arXiv:2310.12036: (gap - 1 / (2 beta))^2. A target p moves it to (p - 1/2) / beta (Eq. 11).

    `length_norm` averages log-ratios over tokens, as TRL does: another algorithm, for which beta means another thing.
    """
    gap = logps.gap
    if length_norm:
        gap = logps.chosen_ratio / logps.chosen_tokens - logps.rejected_ratio / logps.rejected_tokens
    return (gap - (logps.p - 0.5) / beta) ** 2


def hinge(logps: Logps, *, beta: float = 0.1) -> Tensor:
    """SLiC's margin loss on the DPO logit, arXiv:2305.10425 and section 3 of arXiv:2309.06657: max(0, 1 - beta gap).

    With a target p it is the expected loss over the label.
    """
    a = beta * logps.gap
    return logps.p * F.relu(1 - a) + (1 - logps.p) * F.relu(1 + a)


def simpo(logps: Logps, *, beta: float = 2.0, gamma: float = 1.0, label_smoothing: float = 0.0) -> Tensor:
    """SimPO, Eq. 6 of arXiv:2405.14734: no reference, mean log-prob a token, target margin gamma."""
    gap = logps.policy_chosen / logps.chosen_tokens - logps.policy_rejected / logps.rejected_tokens
    return _logistic(beta * gap - gamma, logps.p, label_smoothing)


LOSSES: dict[str, Callable[..., Tensor]] = {f.__name__: f for f in (sigmoid, ipo, hinge, simpo)}


def bind(name: str, **options: Any) -> Loss:
    """A loss by name with its options fixed. Raises ConfigError for a name or an option that does not exist."""
    if name not in LOSSES:
        raise ConfigError(f"there is no loss {name!r}; choose one of {', '.join(LOSSES)}")
    check_options("loss", name, LOSSES[name], options, skip=1)
    return lambda logps: LOSSES[name](logps, **options)


def mean_loss(values: Tensor, weight: Tensor, n: int) -> Tensor:
    """The share of this micro-batch in the mean over an optimizer batch of `n` pairs: any split adds up to the same."""
    return (values * weight).sum() / n


def metrics(logps: Logps, values: Tensor, beta: float) -> dict[str, Tensor]:
    """Sums over pairs, detached, computed outside the losses so that every loss is reported alike.

    `beta` scales implicit rewards beta log(policy / reference). `ranking_accuracy` compares plain policy log-probs
    (arXiv:2405.19534), `accuracy` implicit rewards.
    """
    chosen, rejected = (beta * r.detach() for r in (logps.chosen_ratio, logps.rejected_ratio))
    return {
        "loss": values.detach().sum(),
        "accuracy": (chosen > rejected).float().sum(),
        "ranking_accuracy": (logps.policy_chosen > logps.policy_rejected).float().sum(),
        "chosen_ratio": logps.chosen_ratio.detach().sum(),
        "chosen_reward": chosen.sum(),
        "rejected_reward": rejected.sum(),
        "reward_margin": (chosen - rejected).sum(),
        "chosen_logp": logps.policy_chosen.detach().sum(),
        "rejected_logp": logps.policy_rejected.detach().sum(),
        "chosen_tokens": logps.chosen_tokens.float().sum(),
        "rejected_tokens": logps.rejected_tokens.float().sum(),
    }
