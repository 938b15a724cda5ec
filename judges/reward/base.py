"""What every head of a reward model can do."""

import torch
from torch import Tensor, nn


class Head(nn.Module):
    """Pooled features (B, D) in float32 to scores (B, M), a column a member.

    The base has one member, nothing to initialise, no auxiliary loss, and nothing that moves with the steps.
    """

    members: int = 1
    per_token: bool = False  # True: `token_rewards` gives (B, T) besides (see prototypes)

    def readers(self) -> list[nn.Linear]:
        """The maps that the features go into."""
        return []

    def absorb(self, scale: Tensor) -> None:
        """Go from features divided by `scale` (D,), which were learned from, to features as they are."""
        with torch.no_grad():
            for layer in self.readers():
                layer.weight.div_(scale)

    def initialise(self, chosen: Tensor, rejected: Tensor, generator: torch.Generator) -> None:
        """Start from RewardModel.head_features (N, F) of some training pairs, before the first step."""

    def advance(self, chosen: Tensor, rejected: Tensor) -> None:
        """To be called once after each optimizer step with its head_features, (N, F) each: schedules, growth."""

    def auxiliary(self) -> Tensor:
        """A scalar to add to the loss."""
        return torch.zeros((), device=next(self.parameters()).device)


def seeded_linear(size: int, out: int, seed: int) -> nn.Linear:
    """A linear map without bias (Bradley-Terry does not see one), std 1/sqrt(size + 1) (2403.17031)."""
    layer = nn.Linear(size, out, bias=False)
    with torch.no_grad():
        layer.weight.normal_(0, (size + 1) ** -0.5, generator=torch.Generator().manual_seed(seed))
    return layer
