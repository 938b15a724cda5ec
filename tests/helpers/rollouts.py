"""Rollouts to try the policy gradient on: ragged answers, ragged groups."""

import numpy as np
import torch

from sparring.loop.learning.experience import Rollout

LENGTHS = (3, 1, 5, 2, 4, 1, 7)
GROUP = (0, 0, 0, 1, 1, 2, 2)
N, S = sum(LENGTHS), len(LENGTHS)
COMPLETION = np.repeat(np.arange(S), LENGTHS)


def rollout(seed: int = 0) -> Rollout:
    """7 answers of 23 tokens to 3 prompts in float64; the third and the sixth were cut off."""
    random = np.random.default_rng(seed)
    old = -random.exponential(1.5, N)
    return Rollout(
        completion=torch.from_numpy(COMPLETION),
        group=torch.tensor(GROUP),
        score=torch.from_numpy(random.normal(0, 2, S)),
        stopped=torch.tensor([True, True, False, True, True, False, True]),
        old=torch.from_numpy(old),
        sampler=torch.from_numpy(old + random.normal(0, 0.3, N)),
        reference=torch.from_numpy(old + random.normal(0, 0.5, N)),
        values=torch.from_numpy(random.normal(0, 1, N)),
    )


def parts(x: np.ndarray) -> list[np.ndarray]:
    """The tokens of each answer."""
    return np.split(x, np.cumsum(LENGTHS)[:-1])
