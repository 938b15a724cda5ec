"""Prototypical reward heads (Proto-RM, 2406.06606): scores by the distance of an answer to learned examples.

There are two forms. PrototypeHead, here, has prototypes of hidden states. TokenPrototypeHead, in token_prototypes, is
the published form, where a prototype is a sequence of token rewards. In both, a prototype starts as the mean of N = 2
examples and is then trained. Prototypes have weight w_p = min(cap, exp(-decay * step)). Each step uses a share `keep`
of each class. Two of a class nearer than `margin` repel each other. An example far from all prototypes of its class
becomes one itself (infinite mixture prototypes, 1902.04552), if it is further than

    lambda = -2 sigma ln(alpha) + W sigma ln(1 + rho / sigma),  W: width, rho: mean variance of the class's prototypes.
"""

from dataclasses import dataclass
from math import ceil, exp, log
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparring.judges.reward.base import Head, seeded_linear
from sparring.loop.errors import ConfigError, DataError
from sparring.loop.types import derive_seed

CHOSEN, REJECTED = 0, 1
N = 2  # examples per prototype at the start


@dataclass(frozen=True)
class Settings:
    """The options of both forms. Each class has `count` prototypes at the start, and at most `growth` more later."""

    count: int = 18
    gamma: float = 1.0
    cap: float = 0.5
    decay: float = 8e-4
    margin: float = 0.5
    keep: float = 0.9
    growth: int = 125
    alpha: float = 0.1
    sigma: float = 0.01

    def __post_init__(self) -> None:
        shares = 0 < self.keep <= 1 and 0 <= self.cap <= 1 and 0 < self.alpha <= 1
        if self.count < 2 or self.growth < 0 or self.gamma <= 0 or self.sigma <= 0 or not shares:
            raise ConfigError(
                f"prototypes with {self}; expected count of at least 2, growth of at least 0, gamma and sigma above 0, "
                "keep and alpha in (0, 1], cap in [0, 1]"
            )


class Prototypes(Head):
    """Prototypes of `width` numbers, with room for growth.

    The room is allocated at the start, so that growth changes neither the parameters nor the optimizer's state.
    """

    step: Tensor
    used: Tensor

    def __init__(self, width: int, seed: int, settings: Settings) -> None:
        super().__init__()
        self.width, self.seed, self.settings = width, seed, settings
        room = settings.count + settings.growth
        self.prototypes = nn.Parameter(torch.zeros(2, room, width))  # of chosen, of rejected answers
        self.register_buffer("used", torch.zeros(2, room, dtype=torch.bool))
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self.used[:, : settings.count] = True
        generator = torch.Generator().manual_seed(derive_seed(seed, "prototypes"))
        with torch.no_grad():
            self.prototypes[:, : settings.count].normal_(generator=generator)

    def embed(self, features: Tensor) -> Tensor:
        """(N, F) examples to the space of the prototypes (N, W)."""
        return features

    @property
    def weight(self) -> float:
        """w_p, the share of the prototypes in a score at this step."""
        return min(self.settings.cap, exp(-self.settings.decay * int(self.step)))

    @torch.no_grad()
    def initialise(self, chosen: Tensor, rejected: Tensor, generator: torch.Generator) -> None:
        """Set each prototype to the mean of N examples of its class, drawn without repeats until all are used."""
        if len(chosen) < N or len(chosen) != len(rejected):
            raise DataError(
                f"prototypes start from {len(chosen)} chosen and {len(rejected)} rejected examples; expected equal "
                f"numbers, at least {N}"
            )
        rounds = ceil(N * self.settings.count / (len(chosen) // N * N))
        drawn = [torch.randperm(len(chosen), generator=generator)[: len(chosen) // N * N] for _ in range(rounds)]
        order = torch.cat(drawn)[: N * self.settings.count].to(chosen.device)
        for label, examples in ((CHOSEN, chosen), (REJECTED, rejected)):
            means = self.embed(examples[order]).view(self.settings.count, N, -1).mean(1)
            self.prototypes[label, : self.settings.count] = means

    @torch.no_grad()
    def advance(self, chosen: Tensor, rejected: Tensor) -> None:
        self.step += 1
        for label, examples in ((CHOSEN, chosen), (REJECTED, rejected)):
            for example in self.embed(examples):
                self._grow(label, example)

    def auxiliary(self) -> Tensor:
        """Mean over the pairs nearer than `margin` of margin - ||P_i - P_j||, summed over the classes."""
        terms = []
        for label in (CHOSEN, REJECTED):
            gaps = F.relu(self.settings.margin - torch.pdist(self.prototypes[label][self.used[label]]))
            terms.append(gaps.sum() / (gaps > 0).sum().clamp(min=1))
        return torch.stack(terms).sum()

    def distances(self, embedded: Tensor) -> Tensor:
        """(B, W) to (B, 2, K) Euclidean distances; infinite where there is no prototype, or it is dropped."""
        # Not by matrix products, whose rounding depends on the other rows in the batch.
        far = torch.cdist(embedded, self.prototypes.flatten(0, 1), compute_mode="donot_use_mm_for_euclid_dist")
        return far.view(len(far), *self.used.shape).masked_fill(~self.kept(), float("inf"))

    def kept(self) -> Tensor:
        """(2, K) bool: those in use; in training a share `keep` of them per class, drawn again at each step."""
        if not self.training or self.settings.keep == 1:
            return self.used
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "dropout", int(self.step)))
        draws = torch.rand(self.used.shape, generator=generator).to(self.used.device).masked_fill(~self.used, 2.0)
        ranks = draws.argsort(1).argsort(1)
        kept: Tensor = ranks < (self.used.sum(1, keepdim=True) * self.settings.keep).long().clamp(min=1)
        return kept

    def _grow(self, label: int, example: Tensor) -> None:
        mine = self.prototypes[label][self.used[label]]
        full = bool(self.used[label].all())
        if not full and float(torch.cdist(example[None], mine).min()) > self.threshold(label):
            place = int(self.used[label].sum())
            self.prototypes[label, place] = example
            self.used[label, place] = True

    def threshold(self, label: int) -> float:
        """lambda of the class: an example further than this from all its prototypes becomes a new one."""
        rho = float(self.prototypes[label][self.used[label]].detach().var(dim=0).mean())
        sigma = self.settings.sigma
        return -2 * sigma * log(self.settings.alpha) + self.width * sigma * log(1 + rho / sigma)


@dataclass(frozen=True)
class StateSettings(Settings):
    dim: int = 256


class PrototypeHead(Prototypes):
    """Prototypes of hidden states: r = (1 - w_p) v . h + w_p s, with z = Wh / ||Wh|| and

        s = ln sum over chosen P of exp(-gamma ||z - P||) - ln sum over rejected P of exp(-gamma ||z - P||).

    In evaluation, r has the weight of the step where training ended, and all prototypes.
    """

    options = StateSettings

    def __init__(self, size: int, seed: int, **options: Any) -> None:
        settings = StateSettings(**options)
        super().__init__(settings.dim, seed, settings)
        self.score = seeded_linear(size, 1, seed)
        self.project = seeded_linear(size, settings.dim, derive_seed(seed, "project"))

    def readers(self) -> list[nn.Linear]:
        return [self.score, self.project]

    def embed(self, features: Tensor) -> Tensor:
        return F.normalize(self.project(features), dim=1)

    def forward(self, features: Tensor) -> Tensor:
        near = torch.logsumexp(-self.settings.gamma * self.distances(self.embed(features)), dim=2)  # (B, 2)
        scores: Tensor = self.score(features)
        return (1 - self.weight) * scores + self.weight * (near[:, :1] - near[:, 1:])
