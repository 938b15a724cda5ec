"""The interface of a reward model's heads."""

import torch
from torch import Tensor, nn


class Head(nn.Module):
    """Pooled features (B, D) in float32 to scores (B, M), one column per member.

    The base scores by its linear map `score`. It has one member, nothing to initialise, no auxiliary loss, and nothing
    that changes with the steps. N examples of width F are pooled features, or the `sequences` of a per-token head.
    """

    score: nn.Linear
    members: int = 1
    per_token: bool = False  # True: it also has `token_rewards` (B, T) (see prototypes)

    def forward(self, features: Tensor) -> Tensor:
        scores: Tensor = self.score(features)
        return scores

    def readers(self) -> list[nn.Linear]:
        """The linear maps that read the features."""
        return [self.score]

    def absorb(self, scale: Tensor) -> None:
        """Convert the weights from features divided by `scale` (D,), as in training, to raw features."""
        with torch.no_grad():
            for layer in self.readers():
                layer.weight.div_(scale)

    def initialise(self, chosen: Tensor, rejected: Tensor, generator: torch.Generator) -> None:
        """Start from the examples (N, F) of some training pairs. Called before the first step."""

    def advance(self, chosen: Tensor, rejected: Tensor) -> None:
        """Update schedules and growth. Called once after each optimizer step with its examples, (N, F) each."""

    def auxiliary(self) -> Tensor:
        """A scalar to add to the loss."""
        return torch.zeros((), device=next(self.parameters()).device)


def seeded_linear(size: int, out: int, seed: int) -> nn.Linear:
    """A linear map without bias (it cancels in Bradley-Terry), std 1/sqrt(size + 1) (2403.17031)."""
    layer = nn.Linear(size, out, bias=False)
    with torch.no_grad():
        layer.weight.normal_(0, (size + 1) ** -0.5, generator=torch.Generator().manual_seed(seed))
    return layer
