"""Proto-RM as published (2406.06606 and its code): prototypes are sequences of token rewards. See prototypes."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sparring.judges.reward.base import seeded_linear
from sparring.judges.reward.prototypes import CHOSEN, REJECTED, Prototypes, Settings
from sparring.loop.errors import ConfigError

NEIGHBOURS = 19  # nearest prototypes that vote on the class of an unlabelled answer


@dataclass(frozen=True)
class TokenSettings(Settings):
    length: int = 550
    sigma: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length < 3:
            raise ConfigError(f"length is {self.length} token rewards; expected at least 3: a third is the prompt's")


class TokenPrototypeHead(Prototypes):
    """The published form: r_t = v . h_t, and prototypes are sequences of token rewards.

    An answer's sequence z (B, W) is the prompt's rewards, averaged in W // 3 segments, and then the answer's, padded
    with zeros. With w = softmax(-gamma ||z - P_k||) over the prototypes of the answer's class, the reward of its token
    t is w_p sum_k w_k P_k,t + (1 - w_p) r_t: `token_rewards`, for the loss. As in the authors' code at RL time, the
    score is the plain v . h at the last token: prototypes shape only the training, and `forward` does not use them.
    """

    per_token = True
    options = TokenSettings

    def __init__(self, size: int, seed: int, **options: Any) -> None:
        settings = TokenSettings(**options)
        super().__init__(settings.length, seed, settings)
        self.segments = settings.length // 3
        self.score = seeded_linear(size, 1, seed)

    def sequences(self, tokens: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """(B, T, D) hidden states to sequences (B, W) like the prototypes. An answer's tokens past W are left out."""
        return self._sequences(self.score(tokens).squeeze(2), attention_mask, token_type_ids)

    def token_rewards(
        self, tokens: Tensor, attention_mask: Tensor, token_type_ids: Tensor, chosen: Tensor | None = None
    ) -> Tensor:
        """(B, T). `chosen` (B,) bool is the class of each answer; None: the nearest prototypes vote on it.

        The tokens of the answer have mixed rewards, as far as the prototypes reach. Those of the prompt have r_t.
        Padding repeats the last token's reward, so that the shorter of two answers has a reward at every position.
        """
        raw = self.score(tokens).squeeze(2)
        far = self.distances(self._sequences(raw, attention_mask, token_type_ids))  # (B, 2, K)
        chosen = self._vote(far) if chosen is None else chosen
        rows = torch.arange(len(raw), device=raw.device)
        label = torch.where(chosen, CHOSEN, REJECTED)
        weights = torch.softmax(-self.settings.gamma * far[rows, label], dim=1)
        mixed = torch.einsum("bk,bkw->bw", weights, self.prototypes[label])[:, self.segments :]
        place = token_type_ids.cumsum(1) - 1
        reached = (token_type_ids * attention_mask == 1) & (place < mixed.shape[1])
        shown = mixed.gather(1, place.clamp(0, mixed.shape[1] - 1))
        rewards = torch.where(reached, self.weight * shown + (1 - self.weight) * raw, raw)
        last = attention_mask.sum(1) - 1
        return torch.where(attention_mask == 1, rewards, rewards[rows, last][:, None])

    def _sequences(self, rewards: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        ends = attention_mask.sum(1)
        starts = ends - (token_type_ids * attention_mask).sum(1)
        rows = []
        for reward, start, end in zip(rewards, starts.tolist(), ends.tolist(), strict=True):
            answer = reward[start:end][: self.width - self.segments]
            rows.append(torch.cat([segment_means(reward[:start], self.segments), answer]))
        return torch.stack([F.pad(row, (0, self.width - len(row))) for row in rows])

    def _vote(self, far: Tensor) -> Tensor:
        """(B,) bool: whether most of the nearest prototypes, an odd number, are of chosen answers."""
        there = int(self.kept().sum())
        k = min(NEIGHBOURS, there - 1 + there % 2)
        nearest = far.flatten(1).topk(k, largest=False).indices
        return (nearest < far.shape[2]).sum(1) * 2 > k


def segment_means(values: Tensor, count: int) -> Tensor:
    """(n,) to (count,): means of `count` segments of similar length; fewer values are padded with zeros."""
    n = len(values)
    if n <= count:
        return F.pad(values, (0, count - n))
    edges = torch.arange(count + 1, device=values.device) * n // count
    sums = F.pad(values.cumsum(0), (1, 0))[edges]
    return sums.diff() / edges.diff()
