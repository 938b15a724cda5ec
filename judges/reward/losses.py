"""Losses of reward models: pure functions of scores, one value per pair (B,). The caller takes the mean."""

import torch
import torch.nn.functional as F
from torch import Tensor


def bradley_terry(
    delta: Tensor, p: Tensor | float = 1.0, margin: Tensor | float = 0.0, label_smoothing: float = 0.0
) -> Tensor:
    """-q ln sigma(delta - m) - (1 - q) ln sigma(-delta - m), with q = p (1 - a) + (1 - p) a, a the label smoothing.

    `delta` (B,) is r_chosen - r_rejected, `p` in [0, 1] the probability that chosen is better. The margin is how far
    the better one should be ahead, whichever it is. So p = 1 with m is the published -ln sigma(delta - m) (2307.09288;
    2401.06080 takes the mean strength, which may be negative), and p = 0 is the same with the two swapped. Swapping
    the two (delta to -delta, p to 1 - p) never changes the loss.
    """
    q = p * (1 - label_smoothing) + (1 - p) * label_smoothing
    return -q * F.logsigmoid(delta - margin) - (1 - q) * F.logsigmoid(-delta - margin)


def divergence_mask(chosen_ids: Tensor, rejected_ids: Tensor, chosen_mask: Tensor, rejected_mask: Tensor) -> Tensor:
    """(B, T) bool: from the first place where a pair differs to the end of the longer (2406.06606, code).

    Ids and attention masks are (B, T) each, padded on the right to one T. All False for a pair of identical answers.
    """
    either = (chosen_mask + rejected_mask) > 0
    differs = ((chosen_ids != rejected_ids) | (chosen_mask != rejected_mask)) & either
    return (differs.cumsum(1) > 0) & either


def token_bradley_terry(chosen: Tensor, rejected: Tensor, mask: Tensor) -> Tensor:
    """Mean of -ln sigma(r_w,t - r_l,t) over the places in `mask`; rewards and mask are (B, T) (2406.06606, code)."""
    losses = -F.logsigmoid(chosen - rejected)
    return torch.where(mask, losses, 0).sum(1) / mask.sum(1).clamp(min=1)


def centering(chosen: Tensor, rejected: Tensor) -> Tensor:
    """(r_w + r_l)^2, added with a small weight such as 0.01, keeps scores around zero (2312.09244)."""
    return (chosen + rejected) ** 2


def direct_reward(chosen: Tensor, rejected: Tensor) -> Tensor:
    """-ln sigma(r_w) - ln sigma(-r_l): chosen above zero and rejected below, not only apart (Eurus, 2404.02078)."""
    return -F.logsigmoid(chosen) - F.logsigmoid(-rejected)


def sft(logprobs: Tensor, beta: float = 0.1) -> Tensor:
    """-ln sigma(beta ln pi(y_w)) (GRM, 2406.10216).

    `logprobs` (B,): log P of the chosen answer, summed over its tokens, under the kept language-model head.
    """
    return -F.logsigmoid(beta * logprobs)


def contrastive(first: Tensor, second: Tensor, temperature: float = 0.05) -> Tensor:
    """InfoNCE of two dropout views (B, D), of features or of differences f(y_w) - f(y_l) (SimCSE in 2401.06080).

    -ln softmax_j(cos(first_i, second_j) / temperature) at j = i, (B,).
    """
    similarity = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T
    return F.cross_entropy(similarity / temperature, torch.arange(len(first), device=first.device), reduction="none")


def meta_difference(scores: Tensor) -> Tensor:
    """J = (2 / k^2) sum over i < j of sigma(|r_i - r_j|), of k scores of one prompt, (..., k) to (...).

    Maximised, it makes a model tell answers of the current policy apart (MetaRM, 2401.06080). The published sum is of
    sigma, which is 1/2 for equal scores.
    """
    k = scores.shape[-1]
    i, j = torch.triu_indices(k, k, offset=1, device=scores.device)
    return 2 / k**2 * torch.sigmoid((scores[..., i] - scores[..., j]).abs()).sum(-1)
