"""A bandit whose optimum is known: ref e^(r / kl_coef) / Z maximises r - kl_coef KL (arXiv:2305.18290, Eq. 4).

There the reward with the KL in it is the same for every arm, so each estimator's advantages vanish, noise and all.
"""

from typing import Any

import numpy as np
import pytest
import torch

from sparring.loop.learning.experience import Rollout, experience, policy_share, value_share
from sparring.loop.learning.policy_options import PPO, algorithm

REWARD = np.array([1.0, 0.2, -0.5, 0.7, 0.0])
REFERENCE = np.log(np.array([0.1, 0.4, 0.2, 0.05, 0.25]))
KL_COEF, K, PROMPTS = 0.5, 4, 64


def optimum() -> np.ndarray:
    found: np.ndarray = np.exp(REFERENCE + REWARD / KL_COEF)
    return found / found.sum()


def learned(name: str, steps: int = 90, **options: Any) -> np.ndarray:
    """The policy after some updates on arms that it pulled itself, K for each of PROMPTS prompts, two steps on each."""
    chosen, random = algorithm(name, kl_coef=KL_COEF, **options), np.random.default_rng(0)
    logits = torch.from_numpy(REFERENCE.copy()).requires_grad_()
    value = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    n, group, earlier = K * PROMPTS, torch.arange(PROMPTS).repeat_interleave(K), (0.0, 0)
    for _ in range(steps):
        before = logits.detach().log_softmax(0)
        arms = torch.from_numpy(random.choice(len(REWARD), n, p=before.exp().numpy()))
        r = Rollout(
            torch.arange(n),
            group,
            torch.from_numpy(REWARD)[arms],
            torch.ones(n, dtype=torch.bool),
            before[arms],
            before[arms],
            torch.from_numpy(REFERENCE)[arms],
            value.detach().expand(n),
        )
        taken, found = experience(r, chosen, earlier=earlier)
        if "baseline" in found:
            earlier = (found["baseline"], int(found["baseline_count"]))
        for _ in range(2):
            totals = taken.totals(range(PROMPTS))
            policy_loss = policy_share(logits.log_softmax(0)[arms], taken, chosen, totals)[0]
            with torch.no_grad():
                logits -= torch.autograd.grad(policy_loss, logits)[0]
            if isinstance(chosen, PPO):
                value_loss = value_share(value.expand(n), taken, chosen, totals)[0]
                with torch.no_grad():
                    value -= 2 * torch.autograd.grad(value_loss, value)[0]
    return logits.detach().softmax(0).numpy()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rloo", {}),
        ("reinforce", {}),
        ("reinforce", {"baseline": "group_mean"}),
        ("ppo", {"whiten": False, "value_clip": None}),
    ],
)
def test_they_find_the_optimum(name: str, options: dict[str, Any]) -> None:
    assert np.abs(learned(name, **options) - optimum()).max() < 0.01
    assert np.abs(np.exp(REFERENCE) - optimum()).max() > 0.25  # where they started


def test_dr_grpo_with_k2_in_its_loss_finds_that_of_its_shrunken_reward() -> None:
    # The group's mean has the answer's own reward in it: rewards count (K - 1) / K. Sampling noise stays.
    found = learned("dr_grpo", kl_in="loss", kl_estimator="k2", normalisation="sum")
    expected = np.exp(REFERENCE + REWARD * (K - 1) / K / KL_COEF)
    assert np.abs(found - expected / expected.sum()).max() < 0.03
