"""What is reported of a batch, and the mean that is descended."""

import torch
from torch import Tensor

from sparring.loop.learning.losses.logps import Logps
from sparring.loop.learning.losses.scores import means


def mean_loss(values: Tensor, weight: Tensor, n: int) -> Tensor:
    """The share of this micro-batch in the mean over an optimizer batch of `n` pairs: any split adds up to the same."""
    return (values * weight).sum() / n


def metrics(logps: Logps, values: Tensor, beta: float) -> dict[str, Tensor]:
    """Sums over pairs, detached, computed outside the losses so that every loss is reported alike.

    `logps` are those that no modifier has changed. `beta` scales implicit rewards beta log(policy / reference).
    `accuracy` compares implicit rewards, `ranking_accuracy` plain policy log-probs, `normalised_ranking_accuracy` their
    means over tokens. `idealised_ranking_accuracy` is that of the policy which fits p without error and `idealised_gap`
    what ranking_accuracy lacks of it (arXiv:2405.19534). `length_gap` counts chosen less rejected tokens.
    """
    chosen, rejected = (beta * r.detach() for r in (logps.chosen_ratio, logps.rejected_ratio))
    ranked = (logps.policy_chosen > logps.policy_rejected).float().sum()
    ideal = (logps.reference_chosen - logps.reference_rejected + torch.logit(logps.p) / beta >= 0).float().sum()
    mean_chosen, mean_rejected = means(logps)
    return {
        "loss": values.detach().sum(),
        "accuracy": (chosen > rejected).float().sum(),
        "ranking_accuracy": ranked,
        "normalised_ranking_accuracy": (mean_chosen > mean_rejected).float().sum(),
        "idealised_ranking_accuracy": ideal,
        "idealised_gap": ideal - ranked,
        "chosen_ratio": logps.chosen_ratio.detach().sum(),
        "rejected_ratio": logps.rejected_ratio.detach().sum(),
        "chosen_reward": chosen.sum(),
        "rejected_reward": rejected.sum(),
        "reward_margin": (chosen - rejected).sum(),
        "chosen_logp": logps.policy_chosen.detach().sum(),
        "rejected_logp": logps.policy_rejected.detach().sum(),
        "chosen_tokens": logps.chosen_tokens.float().sum(),
        "rejected_tokens": logps.rejected_tokens.float().sum(),
        "length_gap": logps.longer.sum(),
    }
