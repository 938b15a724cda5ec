"""An update of the tiny model on seven pairs: what it starts from, what it does, what it may not depend on."""

from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sparring.loop.errors import NotANumber, StepError
from sparring.loop.learning.checkpoint import load_model, save_model, weights_sha256
from sparring.loop.tokens import Template
from tests.helpers.learner_pairs import N, gaps, initial, make_learner, round_of, scored, under, unscored, with_column


def weights(folder: str) -> dict[str, Any]:
    return load_file(Path(folder) / "model.safetensors")


def test_it_starts_at_ln_2(tiny: Path, tmp_path: Path) -> None:
    policy, learner = initial(tiny), make_learner(tmp_path, token_budget=300)
    _, update, steps = learner.learn(round_of(policy), scored(learner, policy, unscored(tiny)))
    first = steps[0].metrics
    assert first["loss"] == pytest.approx(log(2), abs=1e-6)
    assert (first["reward_margin"], first["chosen_reward"], first["rejected_reward"]) == (0.0, 0.0, 0.0)
    assert first["accuracy"] == 0.0  # no answer beats its like
    assert first["grad_norm"] > 0.1
    # EXCHANGES in bytes, and an end token each
    assert first["chosen_tokens"] == pytest.approx((6 + 31 + 16 + 1 + 9 + 8 + 9) / 7)
    assert first["rejected_tokens"] == pytest.approx((38 + 3 + 7 + 10 + 13 + 8 + 62) / 7)
    assert (update.n_examples, update.metrics) == (N, first)  # one step: the mean is the step


def test_it_starts_at_ln_2_in_bfloat16_too(tiny: Path, tmp_path: Path) -> None:
    # Reference and policy at one precision and in one shape (pitfall 11).
    policy, learner = initial(tiny), make_learner(tmp_path, dtype="bfloat16", token_budget=300)
    candidate, _, steps = learner.learn(round_of(policy), scored(learner, policy, unscored(tiny)))
    assert steps[0].metrics["loss"] == pytest.approx(log(2), abs=1e-6)
    assert steps[0].metrics["reward_margin"] == 0.0
    assert {tensor.dtype for tensor in weights(candidate.path).values()} == {torch.float32}


def test_rewards_are_against_the_reference_of_the_table(tiny: Path, tmp_path: Path) -> None:
    policy, pairs = initial(tiny), unscored(tiny)
    reference = [[-10.0 - i, -20.0] for i in range(N)]
    learner = make_learner(tmp_path, beta=0.5)
    _, _, steps = learner.learn(round_of(policy), with_column(pairs, "reference", under(reference, pairs)))
    expected = [
        0.5 * (gap - (chosen - rejected)) for gap, (chosen, rejected) in zip(gaps(tiny, pairs), reference, strict=True)
    ]
    assert steps[0].metrics["reward_margin"] == pytest.approx(np.mean(expected), rel=1e-5)
    assert steps[0].metrics["accuracy"] == np.mean([e > 0 for e in expected])
    assert steps[0].metrics["loss"] == pytest.approx(np.mean(np.logaddexp(0, -np.array(expected))), rel=1e-5)


def test_it_learns_what_was_chosen(tiny: Path, tmp_path: Path) -> None:
    policy, learner = initial(tiny), make_learner(tmp_path, epochs=10)
    pairs = scored(learner, policy, unscored(tiny))
    candidate, update, steps = learner.learn(round_of(policy), pairs)
    before, after = np.array(gaps(tiny, pairs)), np.array(gaps(candidate.path, pairs))
    assert (after - before > 1).all()
    assert steps[-1].metrics["loss"] < 0.5
    assert steps[-1].metrics["accuracy"] == 1.0
    assert [step.step for step in steps] == list(range(1, 11))
    assert update.metrics["loss"] == pytest.approx(np.mean([step.metrics["loss"] for step in steps]))
    assert (candidate.parent_id, update.before_id, update.after_id) == (policy.id, policy.id, candidate.id)
    assert {step.update_id for step in steps} == {update.id}


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "hinge"])
def test_any_split_into_micro_batches_gives_the_same_weights(loss: str, tiny: Path, tmp_path: Path) -> None:
    policy, found = initial(tiny), []
    for budget in (1, 300, 100_000):  # a row at a time, a few, all at once
        learner = make_learner(tmp_path / str(budget), loss=loss, lr=1e-5, epochs=3, token_budget=budget)
        candidate, _, steps = learner.learn(round_of(policy), scored(learner, policy, unscored(tiny)))
        found.append((weights(candidate.path), [step.metrics for step in steps]))
    (one, metrics), *others = found
    moved = torch.cat([(one[name] - tensor).flatten() for name, tensor in weights(policy.path).items()])
    assert moved.abs().max() > 1e-5
    for other, other_metrics in others:
        # AdamW divides a gradient by its own size: a weight whose gradient is but rounding may go either way.
        apart = torch.cat([(one[name] - other[name]).flatten() for name in one])
        assert (apart.abs() > 1e-6).sum() <= 9  # of 90,560
        assert apart.norm() < 1e-3 * moved.norm()
        # AdamW hides a wrong scale of the gradient; its norm does not.
        for step, other_step in zip(metrics, other_metrics, strict=True):
            assert other_step == pytest.approx(step, rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_one_seed_one_result(tiny: Path, tmp_path: Path) -> None:
    policy, found = initial(tiny), []
    for run, seed in enumerate((5, 5, 6)):
        learner = make_learner(tmp_path / str(run), seed=seed, batch_size=2)
        candidate, _, _ = learner.learn(round_of(policy), scored(learner, policy, unscored(tiny)))
        found.append(candidate.weights_sha256)
    assert found[0] == found[1] != found[2]


@pytest.mark.slow
def test_p_chosen_reaches_the_loss(tiny: Path, tmp_path: Path) -> None:
    policy, learner = initial(tiny), make_learner(tmp_path)
    pairs = scored(learner, policy, unscored(tiny))
    _, _, sure = learner.learn(round_of(policy), pairs)
    _, _, wrong = learner.learn(round_of(policy), with_column(pairs, "p_chosen", [0.0] * N))
    assert wrong[0].metrics["grad_norm"] == pytest.approx(sure[0].metrics["grad_norm"], rel=1e-5)
    # At the start a coin's toss pulls both ways alike: -(1/2) s(0) + (1/2) s(0) = 0.
    with pytest.raises(StepError, match="changed no weight"):
        learner.learn(round_of(policy), with_column(pairs, "p_chosen", [0.5] * N))


@pytest.mark.slow
def test_a_pair_of_weight_0_teaches_nothing(tiny: Path, tmp_path: Path) -> None:
    policy, learner = initial(tiny), make_learner(tmp_path, token_budget=1)
    pairs = scored(learner, policy, unscored(tiny))

    def learned(weight: float, swap: bool) -> str:
        made = with_column(pairs, "weight", [1.0] * (N - 1) + [weight])
        for name in ("token_ids", "reference") if swap else ():
            *column, last = made[name].to_pylist()
            swapped = [last[0][::-1]] if name == "reference" else last[::-1]
            made = with_column(made, name, [*column, swapped])
        return learner.learn(round_of(policy), made)[0].weights_sha256

    assert learned(0.0, swap=False) == learned(0.0, swap=True)
    assert learned(1.0, swap=False) != learned(1.0, swap=True)


@pytest.mark.parametrize(
    ("reference", "options", "message"),
    [
        (float("nan"), {}, "step 1: loss is nan"),
        (float("-inf"), {"loss": "ipo"}, "step 1: loss is "),
        (-10.0, {"lr": 1e30, "batch_size": 4}, "step 2: "),
    ],
)
def test_not_a_number_is_never_learned(
    reference: float, options: dict[str, Any], message: str, tiny: Path, tmp_path: Path
) -> None:
    learner, pairs = make_learner(tmp_path, **options), unscored(tiny)
    column = under([[reference, -10.0], *[[-10.0, -10.0]] * (N - 1)], pairs)
    with pytest.raises(NotANumber, match=message):
        learner.learn(round_of(initial(tiny)), with_column(pairs, "reference", column))
    assert list(tmp_path.iterdir()) == []


def test_an_update_without_effect_is_refused(tiny: Path, tmp_path: Path) -> None:
    learner, pairs = make_learner(tmp_path, lr=1e-30), unscored(tiny)
    with pytest.raises(StepError, match=r"round 1 changed no weight \(7 rows, lr 1e-30\); raise learn.lr"):
        learner.learn(round_of(initial(tiny)), with_column(pairs, "reference", under([[-10.0, -10.0]] * N, pairs)))


@pytest.mark.slow
def test_a_saved_model_comes_back_the_same(tiny: Path, tmp_path: Path) -> None:
    policy, learner = initial(tiny), make_learner(tmp_path)
    candidate, _, _ = learner.learn(round_of(policy), scored(learner, policy, unscored(tiny)))
    assert candidate.weights_sha256 == weights_sha256(Path(candidate.path)) != policy.weights_sha256
    model = load_model(Path(candidate.path), torch.device("cpu"))
    assert model.lm_head.weight is model.model.embed_tokens.weight  # tied before, tied after
    again = save_model(model, Path(candidate.path), tmp_path / "again")
    assert again == candidate.weights_sha256
    assert (
        gaps(tmp_path / "again", unscored(tiny)) == gaps(candidate.path, unscored(tiny)) != gaps(tiny, unscored(tiny))
    )
    asked = [{"role": "user", "content": "Hé"}]
    assert Template.of(candidate.path).prompt_ids(asked) == Template.of(str(tiny)).prompt_ids(asked)
    # The next round goes on from these weights, and starts at ln 2 again.
    following = make_learner(tmp_path / "next")
    _, _, steps = following.learn(round_of(candidate), scored(following, candidate, unscored(tiny)))
    assert steps[0].metrics["loss"] == pytest.approx(log(2), abs=1e-6)
