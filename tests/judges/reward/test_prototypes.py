"""Prototypical heads against closed forms in float64 numpy: scores, schedule, diversity, dropout, growth."""

from math import exp, log, sqrt
from typing import Any

import numpy as np
import pytest
import torch

from sparring.judges.reward.prototypes import CHOSEN, REJECTED, PrototypeHead
from sparring.judges.reward.token_prototypes import TokenPrototypeHead, segment_means
from sparring.loop.errors import DataError

D, DIM = 6, 4
RANDOM = np.random.default_rng(3)


def head(**options: Any) -> PrototypeHead:
    return PrototypeHead(D, 0, **{"count": 3, "dim": DIM, "growth": 2, **options})


def features(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed))


def started(**options: Any) -> PrototypeHead:
    made = head(**options)
    made.initialise(features(6), features(6, 1), torch.Generator().manual_seed(0))
    return made


def numbers(parameter: torch.Tensor) -> np.ndarray:
    return parameter.detach().numpy().astype(np.float64)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_the_score_is_the_mix_that_it_says() -> None:
    made = started(gamma=2.0).eval()
    h = features(5, 2)
    z = unit(numbers(h) @ numbers(made.project.weight).T)
    far = np.linalg.norm(z[:, None, None] - numbers(made.prototypes)[None, :, :3], axis=-1)  # (B, 2, 3), in use
    near = np.log(np.exp(-2.0 * far).sum(-1))
    wanted = 0.5 * numbers(h) @ numbers(made.score.weight)[0] + 0.5 * (near[:, CHOSEN] - near[:, REJECTED])
    assert made(h)[:, 0].detach().numpy() == pytest.approx(wanted, abs=1e-5)


def test_what_is_near_chosen_examples_scores_higher() -> None:
    made = started().eval()
    with torch.no_grad():
        made.score.weight.zero_()
    chosen, rejected = made(features(6)), made(features(6, 1))
    assert chosen.mean() > rejected.mean()


def test_a_prototype_starts_as_the_mean_of_two_examples() -> None:
    """Six examples make three prototypes, each example in one: whatever the draw, the sums agree."""
    made = started()
    for label, h in ((CHOSEN, features(6)), (REJECTED, features(6, 1))):
        z = unit(numbers(h) @ numbers(made.project.weight).T)
        found = numbers(made.prototypes)[label, :3]
        assert found.sum(0) == pytest.approx(z.sum(0) / 2, abs=1e-5)
        pairs = [(z[i] + z[j]) / 2 for i in range(6) for j in range(i)]
        assert all(min(np.abs(p - pair).max() for pair in pairs) < 1e-6 for p in found)
    assert torch.equal(made.prototypes, started().prototypes)


def test_few_examples_are_drawn_again() -> None:
    made = head(count=4)
    made.initialise(features(3), features(3, 1), torch.Generator().manual_seed(0))
    assert made.prototypes[:, :4].abs().sum(2).min() > 0
    with pytest.raises(DataError, match="at least 2"):
        made.initialise(features(1), features(1), torch.Generator())


def test_prototypes_fade_out_by_the_schedule() -> None:
    """min(0.5, exp(-8e-4 step)): 0.5 to step 866 (ln 2 / 8e-4), then less."""
    made = head(growth=0)
    nothing = torch.zeros(0, D)
    for _ in range(866):
        made.advance(nothing, nothing)
    assert made.weight == 0.5
    made.advance(nothing, nothing)
    assert made.weight == pytest.approx(exp(-8e-4 * 867))
    assert made.weight < 0.5


def test_diversity_is_the_mean_of_what_is_too_near_summed_over_classes() -> None:
    """Chosen at 0, 0.3 and 5 on a line: one pair nearer than 0.5, by 0.2. Rejected at 0, 0.1, 0.3: .4, .2, .3."""
    made = head()
    with torch.no_grad():
        made.prototypes.zero_()
        made.prototypes[CHOSEN, :3, 0] = torch.tensor([0.0, 0.3, 5.0])
        made.prototypes[REJECTED, :3, 0] = torch.tensor([0.0, 0.1, 0.3])
    assert made.auxiliary().item() == pytest.approx(0.2 + (0.4 + 0.2 + 0.3) / 3)
    with torch.no_grad():
        made.prototypes[:, :3, 0] = torch.tensor([0.0, 1.0, 2.0])
    assert made.auxiliary().item() == 0


def test_diversity_pushes_prototypes_apart() -> None:
    made = started(margin=3.0)
    before = torch.pdist(made.prototypes[0, :3]).sum().item()
    made.auxiliary().backward()
    assert made.prototypes.grad is not None
    assert torch.equal(made.prototypes.grad[:, 3:], torch.zeros(2, 2, DIM)), "room that is not used has no gradient"
    assert torch.pdist(made.prototypes[0, :3] - 0.01 * made.prototypes.grad[0, :3]).sum().item() > before


def test_a_share_of_each_class_is_dropped_in_training_anew_each_step() -> None:
    made = PrototypeHead(D, 0, count=10, dim=DIM, growth=4)
    drawn = set()
    for _ in range(20):
        kept = made.kept()
        assert torch.equal(kept, made.kept()), "one step, one draw: chosen and rejected see the same prototypes"
        assert kept.sum(1).tolist() == [9, 9]
        assert not kept[:, 10:].any()
        drawn.add(tuple(kept.flatten().tolist()))
        made.advance(torch.zeros(0, D), torch.zeros(0, D))
    assert len(drawn) > 5
    assert made.eval().kept().sum(1).tolist() == [10, 10]
    x = features(4)
    assert torch.equal(made(x), made(x))


def test_the_threshold_of_growth() -> None:
    made = started(sigma=0.02, alpha=0.2)
    rho = numbers(made.prototypes)[REJECTED, :3].var(axis=0, ddof=1).mean()
    wanted = -2 * 0.02 * log(0.2) + DIM * 0.02 * log(1 + rho / 0.02)
    assert made.threshold(REJECTED) == pytest.approx(wanted, abs=1e-6)


def test_what_is_far_from_its_class_becomes_a_prototype_until_there_is_no_room() -> None:
    made = started(sigma=1e-4)  # a threshold near zero: whatever is new
    near = features(6)
    made.advance(near[:1], torch.zeros(0, D))
    assert made.used.sum(1).tolist() == [4, 3]
    assert torch.allclose(made.prototypes[CHOSEN, 3], made.embed(near[:1])[0])
    made.advance(near[:1], torch.zeros(0, D))
    assert made.used.sum(1).tolist() == [4, 3], "it is there now, at distance 0"
    made.advance(near, torch.zeros(0, D))
    assert made.used.sum(1).tolist() == [5, 3], "room for two more, and no further"
    far = started(sigma=100.0)
    far.advance(features(6, 5), features(6, 6))
    assert far.used.sum(1).tolist() == [3, 3]


def test_growth_moves_no_other_prototype_and_keeps_the_parameters() -> None:
    made = started(sigma=1e-4)
    before, names = made.prototypes.clone(), list(made.state_dict())
    parameter = made.prototypes
    made.advance(features(2, 8), features(2, 9))
    assert made.prototypes is parameter
    assert list(made.state_dict()) == names
    assert torch.equal(made.prototypes[:, :3], before[:, :3])


# --- the published form -----------------------------------------------------------------------------------------------


def token_head(**options: Any) -> TokenPrototypeHead:
    made = TokenPrototypeHead(D, 0, **{"count": 3, "length": 9, "growth": 1, **options})
    with torch.no_grad():
        made.prototypes[:, :3] = torch.from_numpy(RANDOM.normal(size=(2, 3, made.width))).float()
    return made


TOKENS = torch.randn(2, 8, D, generator=torch.Generator().manual_seed(4))
ATTENTION = torch.tensor([[1] * 8, [1] * 6 + [0] * 2])
TYPES = torch.tensor([[0] * 4 + [1] * 4, [0] * 2 + [1] * 4 + [0] * 2])


def test_segment_means_by_hand() -> None:
    values = torch.tensor([1.0, 3.0, 5.0, 7.0, 20.0])
    assert segment_means(values, 2).tolist() == [2.0, pytest.approx(32 / 3)]  # 1 3 | 5 7 20
    assert segment_means(values[:2], 3).tolist() == [1.0, 3.0, 0.0]


def test_a_sequence_is_the_pooled_prompt_and_the_padded_answer() -> None:
    made = token_head()
    r = numbers(TOKENS) @ numbers(made.score.weight)[0]
    first = [r[0, 0], r[0, 1], (r[0, 2] + r[0, 3]) / 2, *r[0, 4:8], 0, 0]
    second = [r[1, 0], r[1, 1], 0, *r[1, 2:6], 0, 0]
    found = made.sequences(TOKENS, ATTENTION, TYPES).detach().numpy()
    assert found == pytest.approx(np.array([first, second]), abs=1e-5)
    short = token_head(length=6)  # a third for the prompt, and the answer's first four
    assert short.sequences(TOKENS, ATTENTION, TYPES).shape == (2, 6)


@pytest.mark.parametrize("label", [CHOSEN, REJECTED])
def test_token_rewards_mix_those_of_the_prototypes_of_the_class(label: int) -> None:
    made = token_head(keep=1.0, gamma=0.7)
    raw = numbers(TOKENS) @ numbers(made.score.weight)[0]
    z = numbers(made.sequences(TOKENS, ATTENTION, TYPES))
    prototypes = numbers(made.prototypes)[label, :3]
    weights = np.exp(-0.7 * np.linalg.norm(z[:, None] - prototypes[None], axis=-1))
    mixed = (weights / weights.sum(1, keepdims=True)) @ prototypes
    wanted = raw.copy()
    wanted[0, 4:8] = 0.5 * mixed[0, 3:7] + 0.5 * raw[0, 4:8]
    wanted[1, 2:6] = 0.5 * mixed[1, 3:7] + 0.5 * raw[1, 2:6]
    wanted[1, 6:] = wanted[1, 5]  # padding repeats the last token's
    chosen = torch.tensor([label == CHOSEN] * 2)
    found = made.token_rewards(TOKENS, ATTENTION, TYPES, chosen)
    assert found.detach().numpy() == pytest.approx(wanted, abs=1e-5)


def test_the_nearest_prototypes_vote_on_an_unknown_class() -> None:
    """Where a class is the answer's own sequence, and the other far away, the vote is for that class."""
    made = token_head().eval()
    with torch.no_grad():
        made.prototypes[REJECTED, :3] = made.sequences(TOKENS, ATTENTION, TYPES)[:1]
        made.prototypes[CHOSEN, :3] += 100
        voted = made.token_rewards(TOKENS[:1], ATTENTION[:1], TYPES[:1])
        for label in (True, False):
            told = made.token_rewards(TOKENS[:1], ATTENTION[:1], TYPES[:1], torch.tensor([label]))
            assert torch.equal(voted, told) == (not label)


def test_tokens_that_prototypes_do_not_reach_keep_their_own_reward() -> None:
    made = token_head(length=4)  # one for the prompt, three for the answer of four
    raw = (TOKENS @ made.score.weight[0])[0]
    found = made.token_rewards(TOKENS[:1], ATTENTION[:1], TYPES[:1], torch.tensor([True]))[0]
    assert found[7].item() == pytest.approx(raw[7].item(), abs=1e-6)
    assert abs(found[6].item() - raw[6].item()) > 1e-4
    assert torch.allclose(found[:4], raw[:4])


def test_the_score_is_the_plain_head_whatever_the_prototypes() -> None:
    """As in the authors' code at RL time."""
    made = token_head()
    h = features(3)
    before = made(h)
    assert torch.allclose(before[:, 0], h @ made.score.weight[0])
    with torch.no_grad():
        made.prototypes.add_(5)
    assert torch.equal(made(h), before)


def test_a_token_loss_reaches_backbone_head_and_prototypes() -> None:
    made = token_head()
    tokens = TOKENS.clone().requires_grad_()
    made.token_rewards(tokens, ATTENTION, TYPES, torch.tensor([True, False])).sum().backward()
    for grad in (tokens.grad, made.score.weight.grad, made.prototypes.grad):
        assert grad is not None
        assert torch.isfinite(grad).all()
        assert grad.abs().sum() > 0


def test_published_growth_hardly_ever_happens() -> None:
    """sigma 5 in 550 dimensions: the threshold is above 23 (-10 ln 0.1), far beyond the rewards of a model."""
    made = TokenPrototypeHead(D, 0)
    assert made.threshold(CHOSEN) > -10 * log(0.1) > 23
    assert made.threshold(CHOSEN) == pytest.approx(
        -10 * log(0.1) + 550 * 5 * log(1 + numbers(made.prototypes)[CHOSEN, :18].var(axis=0, ddof=1).mean() / 5),
        rel=1e-5,
    )
    assert sqrt(550) < made.threshold(CHOSEN)
