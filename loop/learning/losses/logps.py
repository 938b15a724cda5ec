"""What losses see: log P(completion | prompt) of pairs of answers, or of groups of them."""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sparring.loop.errors import DataError

ZERO, ONE = torch.tensor(0.0), torch.tensor(1.0)


def _expand(record: Any, names: tuple[str, ...], like: Tensor) -> None:
    """Give the named fields of a frozen record one value a row, without gradient: they are data."""
    for name in names:
        value = torch.as_tensor(getattr(record, name)).detach().to(like)
        object.__setattr__(record, name, value.expand_as(like))


@dataclass(frozen=True)
class Logps:
    """Pairs, each field of shape (B,): log P(completion | prompt) summed over completion tokens, in nats.

    `*_tokens` count completion tokens including the end token. Reference fields are zeros when there is no reference.
    `p` is the target probability that chosen is better, `margin` the judge's score difference, `weight` multiplies the
    pair's loss (applied by `mean_loss`, not by a loss). `baseline` is what kto and bco set log-ratios against, in nats.
    `offset` is subtracted from the difference of the two scores that a loss compares, in the unit of those scores.

    A third answer to the same prompt has the fields `*sample*`, the judge's rationale `*rationale*`, the digit that
    says how much is missing from an answer `*degree*`. They are None where nothing looks at them.
    """

    policy_chosen: Tensor
    policy_rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    p: Tensor = ONE
    margin: Tensor = ZERO
    weight: Tensor = ONE
    baseline: Tensor = ZERO
    offset: Tensor = ZERO
    policy_sample: Tensor | None = None
    reference_sample: Tensor | None = None
    sample_tokens: Tensor | None = None
    policy_rationale: Tensor | None = None
    rationale_tokens: Tensor | None = None
    policy_degree: Tensor | None = None
    degree_tokens: Tensor | None = None

    def __post_init__(self) -> None:
        _expand(self, ("p", "margin", "weight", "baseline", "offset"), self.policy_chosen)

    def __len__(self) -> int:
        return len(self.policy_chosen)

    @property
    def chosen_ratio(self) -> Tensor:
        return self.policy_chosen - self.reference_chosen

    @property
    def rejected_ratio(self) -> Tensor:
        return self.policy_rejected - self.reference_rejected

    @property
    def gap(self) -> Tensor:
        """How much more the policy than the reference prefers chosen to rejected."""
        return self.chosen_ratio - self.rejected_ratio

    @property
    def longer(self) -> Tensor:
        """By how many tokens chosen is longer than rejected, in the type of the log-probs."""
        return (self.chosen_tokens - self.rejected_tokens).to(self.policy_chosen)

    def __getitem__(self, index: Any) -> "Logps":
        columns = ((f.name, getattr(self, f.name)) for f in fields(self))
        sliced: dict[str, Any] = {name: None if column is None else column[index] for name, column in columns}
        return Logps(**sliced)


@dataclass(frozen=True)
class Groups:
    """S answers to G prompts, each field of shape (S,); `group` says whose answer it is, from 0 to G - 1 (long).

    `policy` and `reference` are summed log-probs as in Logps. `reward` is a score, or a label from 0 (not desirable) to
    1 (desirable) where a loss says so. `weight` is applied by the loss, since a group's value mixes several answers.
    Raises DataError for a group without answers.
    """

    policy: Tensor
    reference: Tensor
    tokens: Tensor
    reward: Tensor
    weight: Tensor
    group: Tensor
    baseline: Tensor = ZERO

    def __post_init__(self) -> None:
        _expand(self, ("baseline",), self.policy)
        if bool((self.sizes == 0).any()):
            empty = self.sizes.eq(0).nonzero().flatten().tolist()
            raise DataError(f"groups {empty} have no answers; number groups from 0 to G - 1 without a gap")

    def __len__(self) -> int:
        """G, the number of groups."""
        return len(self.sizes)

    @property
    def ratio(self) -> Tensor:
        return self.policy - self.reference

    @cached_property
    def sizes(self) -> Tensor:
        """Answers in each group, (G,), long."""
        return torch.bincount(self.group)

    def sum(self, values: Tensor) -> Tensor:
        """Sums of (S,) values over each group, (G,)."""
        return values.new_zeros(len(self.sizes)).index_add(0, self.group, values)

    def mean(self, values: Tensor) -> Tensor:
        return self.sum(values) / self.sizes

    def log_softmax(self, scores: Tensor) -> Tensor:
        """log-probabilities (S,) that sum to one in each group."""
        lowest = scores.new_full((len(self.sizes),), -torch.inf)
        peak = lowest.scatter_reduce(0, self.group, scores.detach(), "amax")
        shifted = scores - peak[self.group]
        return shifted - self.sum(shifted.exp()).log()[self.group]
