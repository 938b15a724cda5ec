"""Log-probabilities to try losses on."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from loop.learning.losses import Logps

Columns = Mapping[str, np.ndarray]


def columns(n: int = 64, seed: int = 0) -> dict[str, np.ndarray]:
    """Log-probs of completions of 1 to 60 tokens at about 1.5 nats a token, the policy some way from its reference."""
    random = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {}
    for side in ("chosen", "rejected"):
        found[f"{side}_tokens"] = random.integers(1, 60, n)
        found[f"reference_{side}"] = -1.5 * found[f"{side}_tokens"] - random.exponential(1.0, n)
        found[f"policy_{side}"] = found[f"reference_{side}"] + random.normal(0, 8, n)
    return found | {"p": random.uniform(0, 1, n), "margin": random.normal(0, 1, n), "weight": random.uniform(0, 2, n)}


def logps(found: Columns) -> Logps:
    return Logps(**{name: torch.as_tensor(value) for name, value in found.items()})


def pair_of(gap: float, chosen_tokens: int = 4, rejected_tokens: int = 2, **more: Any) -> Logps:
    """One pair whose chosen log-prob lies `gap` above that of the rejected, the reference at -10 for both."""
    made = {
        "policy_chosen": gap - 10.0,
        "policy_rejected": -10.0,
        "reference_chosen": -10.0,
        "reference_rejected": -10.0,
    }
    made |= {"chosen_tokens": chosen_tokens, "rejected_tokens": rejected_tokens} | more
    return Logps(**{name: torch.tensor([value], dtype=torch.float64) for name, value in made.items()})
