"""Heads that compute scores from pooled features, by name."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparring.judges.reward.base import Head, seeded_linear
from sparring.judges.reward.prototypes import PrototypeHead
from sparring.judges.reward.token_prototypes import TokenPrototypeHead
from sparring.loop.errors import ConfigError
from sparring.loop.options import check_options, nearest
from sparring.loop.types import derive_seed


class LinearHead(Head):
    """r = v . h. Saved with a causal backbone it is a transformers *ForSequenceClassification."""

    def __init__(self, size: int, seed: int) -> None:
        super().__init__()
        self.score = seeded_linear(size, 1, seed)

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None) -> "LinearHead":
        """The head with this weight (1, D), and with the bias (1,) that a third party's model may have."""
        head = cls(weight.shape[1], 0)
        # A copy out of the mapped file, where its alignment would change the last bit of a dot product.
        head.score.weight = nn.Parameter(weight.float().clone())
        if bias is not None:
            head.score.register_parameter("bias", nn.Parameter(bias.float()))
        return head


class OwnHead(Head):
    """The head of a third party's model that scores by its own forward: it leaves the score unchanged."""

    def forward(self, features: Tensor) -> Tensor:
        return features


class MlpHead(Head):
    """GRM (2406.10216): dropout, one hidden layer, ReLU, a scalar."""

    def __init__(self, size: int, seed: int, *, hidden: int = 1024, dropout: float = 0.1) -> None:
        super().__init__()
        self.hidden = nn.Linear(size, hidden)
        self.dropout = nn.Dropout(dropout)
        self.score = seeded_linear(hidden, 1, seed)

    def readers(self) -> list[nn.Linear]:
        return [self.hidden]

    def forward(self, features: Tensor) -> Tensor:
        scores: Tensor = self.score(torch.relu(self.hidden(self.dropout(features))))
        return scores


class MultiHead(Head):
    """`members` linear heads that differ by their seed, on one backbone: the linear-layer ensemble of 2401.16635."""

    def __init__(self, size: int, seed: int, *, members: int = 3) -> None:
        super().__init__()
        if members < 2:
            raise ConfigError(f"head 'multi' has {members} members; expected at least 2, or head 'linear'")
        self.members = members
        self.scores = nn.ModuleList(seeded_linear(size, 1, derive_seed(seed, "member", i)) for i in range(members))

    def readers(self) -> list[nn.Linear]:
        return [layer for layer in self.scores if isinstance(layer, nn.Linear)]

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([score(features) for score in self.scores], dim=1)


HEADS: Mapping[str, Callable[..., Head]] = {
    "linear": LinearHead,
    "mlp": MlpHead,
    "multi": MultiHead,
    "proto": PrototypeHead,
    "proto_tokens": TokenPrototypeHead,
}


def make_head(kind: str, size: int, seed: int, options: Mapping[str, Any]) -> Head:
    """A head for features of `size`. Raises ConfigError for an unknown kind or option."""
    if kind not in HEADS:
        raise ConfigError(f"there is no head {kind!r}{nearest(kind, HEADS)}; expected one of {', '.join(HEADS)}")
    takes = getattr(HEADS[kind], "options", None)  # of prototypes; of others, their parameters after size and seed
    check_options("head", kind, takes or HEADS[kind], options, skip=0 if takes else 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return HEADS[kind](size, seed, **options)
