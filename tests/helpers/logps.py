"""Log-probabilities to try losses on."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch

from sparring.loop.learning.losses import Groups, Logps

Columns = Mapping[str, np.ndarray]

# What the papers say of each loss, written here apart from the decorators of the losses.
REFERENCE_FREE = frozenset({"simpo", "cpo", "orpo", "asft", "sft"})
BATCH_DEPENDENT = frozenset({"aot", "aot_unpaired"})
OF_DIFFERENCE = frozenset(
    {"sigmoid", "ipo", "hinge", "cdpo", "robust", "exo", "rpo_nv", "sigmoid_norm", "length_regularised", "discopop"}
)
BASELINES = {"kto": "mismatched", "kto_unpaired": "mismatched", "bco": "running", "bco_unpaired": "running"}
GROUP_LOSSES = frozenset({"rpo_nv_group", "nca_group", "kto_unpaired", "bco_unpaired", "sft"})


def columns(n: int = 64, seed: int = 0) -> dict[str, np.ndarray]:
    """Log-probs of completions of 1 to 60 tokens at about 1.5 nats a token, the policy some way from its reference."""
    random = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {}
    for side in ("chosen", "rejected"):
        found[f"{side}_tokens"] = random.integers(1, 60, n)
        found[f"reference_{side}"] = -1.5 * found[f"{side}_tokens"] - random.exponential(1.0, n)
        found[f"policy_{side}"] = found[f"reference_{side}"] + random.normal(0, 8, n)
    found |= {"p": random.uniform(0, 1, n), "margin": random.normal(0, 1, n), "weight": random.uniform(0, 2, n)}
    return found | {"baseline": random.normal(2, 1, n)}


def extremes() -> dict[str, np.ndarray]:
    """Pairs whose log-ratios are -10000, 0 or 10000 on either side, with hard and soft targets and far margins."""
    at = [-10001.0, -1.0]
    grid = np.array([(*sides, p) for sides in product(at, at, at, at) for p in (1.0, 0.5, 0.0)])
    names = ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected", "p")
    found = dict(zip(names, grid.T, strict=True))
    far = np.resize([-1000.0, 0.0, 1000.0, 2.0], len(grid))
    tokens = {"chosen_tokens": np.resize([1, 4000], len(grid)), "rejected_tokens": np.resize([4000, 1, 7], len(grid))}
    return found | tokens | {"margin": far, "baseline": np.resize([0.0, 50.0], len(grid))}


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


def group_columns(sizes: Sequence[int] = (2, 1, 5, 3), seed: int = 0) -> dict[str, np.ndarray]:
    """Answers to as many prompts as there are sizes, in mixed order, with rewards of mean 0 and spread 1."""
    random = np.random.default_rng(seed)
    group = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    tokens = random.integers(1, 60, len(group))
    reference = -1.5 * tokens - random.exponential(1.0, len(group))
    found = {"group": group, "tokens": tokens, "reference": reference}
    found["policy"] = reference + random.normal(0, 8, len(group))
    found["reward"], found["weight"] = random.normal(0, 1, len(group)), random.uniform(0, 2, len(group))
    return found | {"baseline": random.normal(2, 1, len(group))}


def groups(found: Columns) -> Groups:
    return Groups(**{name: torch.as_tensor(value) for name, value in found.items()})
