"""Losses against closed forms in float64 numpy, and the symmetries that they promise."""

from math import log

import numpy as np
import pytest
import torch

from sparring.judges.reward import losses

RANDOM = np.random.default_rng(7)
DELTA = RANDOM.normal(0, 3, 40)
P = RANDOM.uniform(0, 1, 40)
MARGIN = RANDOM.uniform(0, 2, 40)


def tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_bradley_terry_is_the_cross_entropy_of_the_soft_label() -> None:
    wanted = -P * np.log(sigmoid(DELTA)) - (1 - P) * np.log(1 - sigmoid(DELTA))
    assert losses.bradley_terry(tensor(DELTA), tensor(P)).numpy() == pytest.approx(wanted)


def test_bradley_terry_by_hand() -> None:
    """delta = ln 3: sigma = 3/4. p = 1: ln 4/3. With margin ln 3 ahead of it: sigma(0) = 1/2."""
    ln3 = torch.tensor([log(3)], dtype=torch.float64)
    assert losses.bradley_terry(ln3).item() == pytest.approx(log(4 / 3))
    assert losses.bradley_terry(ln3, p=0.0).item() == pytest.approx(log(4))
    assert losses.bradley_terry(ln3, margin=log(3)).item() == pytest.approx(log(2))
    # p = 0: the rejected one is better, and is to be ahead by ln 3: sigma(-2 ln 3) = 1/10.
    assert losses.bradley_terry(ln3, p=0.0, margin=log(3)).item() == pytest.approx(log(10))
    # Smoothing 0.1: 0.9 ln 4/3 + 0.1 ln 4.
    smooth = losses.bradley_terry(ln3, label_smoothing=0.1).item()
    assert smooth == pytest.approx(0.9 * log(4 / 3) + 0.1 * log(4))


def test_swapping_the_answers_keeps_the_loss() -> None:
    arguments = {"margin": tensor(MARGIN), "label_smoothing": 0.1}
    one = losses.bradley_terry(tensor(DELTA), tensor(P), **arguments)  # type: ignore[arg-type]
    other = losses.bradley_terry(tensor(-DELTA), tensor(1 - P), **arguments)  # type: ignore[arg-type]
    assert torch.allclose(one, other)


def test_bradley_terry_stays_finite_where_sigma_does_not() -> None:
    far = torch.tensor([1e4, -1e4])
    assert losses.bradley_terry(far, p=0.5).tolist() == pytest.approx([5e3, 5e3])


def test_centering_and_direct_reward() -> None:
    chosen, rejected = DELTA[:20], DELTA[20:]
    assert losses.centering(tensor(chosen), tensor(rejected)).numpy() == pytest.approx((chosen + rejected) ** 2)
    wanted = -np.log(sigmoid(chosen)) - np.log(sigmoid(-rejected))
    assert losses.direct_reward(tensor(chosen), tensor(rejected)).numpy() == pytest.approx(wanted)


def test_direct_reward_pushes_the_scores_and_not_their_difference() -> None:
    """Raising both scores leaves Bradley-Terry as it is, but not this."""
    one = losses.direct_reward(torch.tensor([1.0]), torch.tensor([-1.0]))
    assert losses.direct_reward(torch.tensor([3.0]), torch.tensor([1.0])).item() > one.item()


def test_sft_by_hand() -> None:
    logprobs = torch.tensor([-10.0, 0.0], dtype=torch.float64)
    assert losses.sft(logprobs).tolist() == pytest.approx([log(1 + np.e), log(2)])  # beta 0.1: -ln sigma(-1)


def test_contrastive_against_numpy() -> None:
    first, second = RANDOM.normal(size=(6, 5)), RANDOM.normal(size=(6, 5))
    cosine = (first / np.linalg.norm(first, axis=1)[:, None]) @ (second / np.linalg.norm(second, axis=1)[:, None]).T
    softmax = np.exp(cosine / 0.1) / np.exp(cosine / 0.1).sum(1, keepdims=True)
    found = losses.contrastive(tensor(first), tensor(second), temperature=0.1)
    assert found.numpy() == pytest.approx(-np.log(np.diag(softmax)))


def test_meta_difference_by_hand() -> None:
    """Scores 0, ln 3, ln 3: two pairs at sigma(ln 3) = 3/4, one at 1/2: 2/9 * 2."""
    scores = torch.tensor([[0.0, log(3), log(3)], [1.0, 1.0, 1.0]], dtype=torch.float64)
    assert losses.meta_difference(scores).tolist() == pytest.approx([2 / 9 * 2, 2 / 9 * 1.5])


def test_token_losses_count_from_the_first_difference_to_the_longer_end() -> None:
    """Places 0, 1 are shared; the second answer ends at 4, the first at 6; 9 pads, and is a real token too."""
    first = torch.tensor([[1, 2, 3, 9, 5, 6, 9, 9]])
    second = torch.tensor([[1, 2, 4, 9, 9, 9, 9, 9]])
    masks = torch.tensor([[1] * 6 + [0] * 2]), torch.tensor([[1] * 4 + [0] * 4])
    mask = losses.divergence_mask(first, second, *masks)
    assert mask.tolist() == [[False, False, True, True, True, True, False, False]]
    chosen, rejected = torch.zeros(1, 8), torch.zeros(1, 8)
    chosen[0, 2], chosen[0, 0], chosen[0, 7] = log(3), 50.0, 50.0
    wanted = (log(4 / 3) + 3 * log(2)) / 4
    assert losses.token_bradley_terry(chosen, rejected, mask).tolist() == pytest.approx([wanted])


def test_an_answer_that_another_goes_on_from_differs_where_it_ends() -> None:
    """The places differ by the mask alone: the padding has the id of the longer answer's next token."""
    ids = torch.tensor([[1, 2, 9, 9]])
    masks = torch.tensor([[1, 1, 1, 0]]), torch.tensor([[1, 1, 0, 0]])
    assert losses.divergence_mask(ids, ids, *masks).tolist() == [[False, False, True, False]]
    assert not losses.divergence_mask(ids, ids, masks[0], masks[0]).any()
    nothing = losses.token_bradley_terry(torch.ones(1, 4), torch.ones(1, 4), torch.zeros(1, 4, dtype=torch.bool))
    assert nothing.tolist() == [0.0]
