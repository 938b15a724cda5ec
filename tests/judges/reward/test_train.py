"""Reward models learn what the labels say, resume to the same bits, and do the sums of the papers."""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparring.judges.reward.features import tensors_key
from sparring.judges.reward.heads import MultiHead
from sparring.judges.reward.losses import contrastive
from sparring.judges.reward.model import RewardModel
from sparring.judges.reward.objective import RewardObjective
from sparring.judges.reward.options import RewardTraining
from sparring.judges.reward.report import evaluate
from sparring.judges.reward.rows import Pairs, pair_plan, pairs_of
from sparring.judges.reward.scorers import LiveScorer, Scored, start_learning
from sparring.judges.reward.stages import Stage, Stream
from sparring.judges.reward.terms import Targets, pair_loss
from sparring.judges.reward.train import create, forget, train
from sparring.loop.errors import ConfigError, DataError, NotANumber, StepError
from sparring.loop.labelled_pairs import Preference
from sparring.loop.learning.optimize import accumulate
from tests.helpers.reward_pairs import pairs

FROZEN: dict[str, Any] = {"freeze": "backbone", "pooling": "answer_mean", "lr": 1e-2, "epochs": 8}
WHOLE: dict[str, Any] = {"pooling": "answer_mean", "lr": 1e-3}


class Killed(Exception):
    pass


def make(folder: Path, **options: Any) -> tuple[RewardModel, RewardTraining]:
    asked = RewardTraining(**{"dtype": "float32", **options})
    return create(folder, asked), asked


def accuracy(model: RewardModel, preferences: Sequence[Preference]) -> float:
    return float(evaluate(model, preferences, dtype="float32")["accuracy"]["value"])


def state_of(model: RewardModel) -> str:
    return tensors_key([*model.parameters(), *model.head.buffers()])


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        FROZEN,
        FROZEN | {"members": 2},
        FROZEN | {"head": "proto", "head_options": {"count": 4, "dim": 32}},
        FROZEN | {"head": "mlp", "head_options": {"hidden": 64}, "epochs": 5},
        WHOLE | {"epochs": 2},
    ],
    ids=["linear", "ensemble", "proto", "mlp", "whole"],
)
def test_it_learns_what_labels_say(options: dict[str, Any], tiny: Path, tmp_path: Path) -> None:
    model, asked = make(tiny, **options)
    untrained = accuracy(model, pairs(200, seed=1))
    history = train(model, pairs(300), asked, tmp_path / "state")
    assert untrained < 0.7
    assert accuracy(model, pairs(200, seed=1)) > 0.9
    assert not model.training
    steps = math.ceil(300 / 32) * asked.epochs
    assert len(history) == steps
    assert history[-1]["accuracy"] > 0.9 > history[0]["accuracy"]
    assert history[-1]["loss"] < history[0]["loss"]
    for i in range(asked.members if asked.members > 1 else 0):
        assert history[-1][f"accuracy_{i}"] > 0.85


@pytest.mark.slow
def test_labels_that_mean_nothing_teach_nothing(tiny: Path, tmp_path: Path) -> None:
    # The winner by z: half of the labels say so, half the contrary.
    model, asked = make(tiny, **FROZEN | {"epochs": 5})
    train(model, pairs(400, shuffled=True), asked, tmp_path / "state")
    assert 0.3 < accuracy(model, pairs(300, seed=1)) < 0.7
    assert 0.4 < accuracy(model, pairs(300, seed=1, shuffled=True)) < 0.6


@pytest.mark.slow
def test_a_frozen_backbone_stays_and_its_features_are_shared(tiny: Path, tmp_path: Path) -> None:
    seen: list[str] = []

    def on_chunk(what: str, done: int, total: int, loss: float | None) -> None:
        seen.append(what)

    for head, expected in (("linear", {"features", "train"}), ("mlp", {"train"})):
        model, asked = make(tiny, **FROZEN | {"head": head, "epochs": 1})
        before = tensors_key(model.backbone.parameters())
        seen.clear()
        train(model, pairs(40), asked, tmp_path / "state", on_chunk, cache=tmp_path / "cache")
        assert set(seen) == expected
        assert tensors_key(model.backbone.parameters()) == before


# Each with dropout, decay, or something else that a training begun anew would do otherwise.
RESUMED: dict[str, dict[str, Any]] = {
    "whole": WHOLE | {"head": "mlp", "dropout": 0.1, "epochs": 2},
    "contrastive": WHOLE | {"dropout": 0.1, "contrastive": 0.5, "token_budget": 300},
    "meta": WHOLE | {"meta": 0.1, "members": 2},
    "proto": FROZEN
    | {"head": "proto", "epochs": 2, "head_options": {"count": 2, "dim": 8, "growth": 5, "sigma": 1e-3}},
    "proto_dropout": WHOLE | {"head": "proto", "dropout": 0.1, "head_options": {"count": 2, "dim": 8, "growth": 0}},
    "ensemble": FROZEN | {"members": 3, "epochs": 2},
    "tokens": FROZEN
    | {"pooling": "last", "head": "proto_tokens", "head_options": {"count": 2, "length": 20}, "epochs": 1},
    "lora": WHOLE | {"freeze": "lora", "members": 2, "first_lr": 1e-3, "adapter_options": {"rank": 4, "alpha": 8}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RESUMED)
def test_a_killed_training_resumes_to_the_same_bits(name: str, tiny: Path, tmp_path: Path) -> None:
    options = RESUMED[name] | {"batch_size": 4, "save_seconds": 0.0, "warmup": 0.3, "seed": 5}
    given, unlabelled = pairs(24), pairs(6, seed=7)
    model, asked = make(tiny, **options)
    expected = train(model, given, asked, tmp_path / "undisturbed", unlabelled=unlabelled)
    for step in (2, len(expected) - 1):
        state, steps = tmp_path / f"killed-{step}", [0]

        def kill(
            what: str, done: int, total: int, loss: float | None, step: int = step, steps: list[int] = steps
        ) -> None:
            steps[0] += what != "features"
            if steps[0] == step:
                steps[0] = 1000
                raise Killed

        with pytest.raises(Killed):
            train(make(tiny, **options)[0], given, asked, state, kill, unlabelled=unlabelled)
        torch.manual_seed(step)  # another process, another random state
        again, left = make(tiny, **options)[0], [0]

        def count(what: str, done: int, total: int, loss: float | None, left: list[int] = left) -> None:
            left[0] += what != "features"

        assert train(again, given, asked, state, count, unlabelled=unlabelled) == expected
        assert state_of(again) == state_of(model)
        assert left[0] <= len(expected) - step + 2  # the step it died in, and the first stage's last
        forget(state)
        assert list(tmp_path.glob(f"killed-{step}*")) == []


def test_prototypes_start_from_training_pairs_once(tiny: Path, tmp_path: Path) -> None:
    options = FROZEN | {"head": "proto", "head_options": {"count": 2, "dim": 8, "growth": 0}, "lr": 1e-9, "epochs": 1}
    model, asked = make(tiny, **options)
    drawn = model.head.prototypes.detach().clone()  # type: ignore[operator, union-attr]
    given = pairs_of(model, pairs(4))  # two prototypes of a class, each the mean of two of its four examples
    train(model, given, asked, tmp_path / "state")
    found = model.head.prototypes.detach().clone()  # type: ignore[operator, union-attr]
    assert not torch.allclose(found, drawn, atol=0.1)
    with torch.no_grad():
        for label, side in enumerate(("chosen", "rejected")):
            features = model.features(**model.collate([getattr(row, side) for row in given.rows]))
            expected = model.head.embed(features).mean(0)  # type: ignore[operator]
            torch.testing.assert_close(found[label].mean(0), expected, atol=1e-5, rtol=1e-4)
    train(model, pairs(8, seed=2), asked, tmp_path / "more")
    torch.testing.assert_close(model.head.prototypes.detach(), found, atol=1e-5, rtol=1e-4)  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_first_stage_that_is_done_is_not_done_again(tiny: Path, tmp_path: Path) -> None:
    options = RESUMED["lora"] | {"batch_size": 8}
    seen: list[str] = []

    def kill(what: str, done: int, total: int, loss: float | None) -> None:
        if what == "train":
            raise Killed

    with pytest.raises(Killed):
        train(*make_with(tiny, options), tmp_path / "state", kill)
    train(*make_with(tiny, options), tmp_path / "state", lambda what, *_: seen.append(what))
    assert set(seen) == {"train"}


def make_with(folder: Path, options: dict[str, Any]) -> tuple[RewardModel, list[Preference], RewardTraining]:
    model, asked = make(folder, **options)
    return model, pairs(24), asked


def test_a_state_of_another_training_is_refused(tiny: Path, tmp_path: Path) -> None:
    options = FROZEN | {"epochs": 2, "save_seconds": 0.0}
    model, asked = make(tiny, **options)
    train(model, pairs(64), asked, tmp_path / "state")
    for other, given in ((options | {"lr": 2e-2}, pairs(64)), (options, pairs(63)), (options | {"seed": 1}, pairs(64))):
        model, asked = make(tiny, **other)
        with pytest.raises(StepError, match="is the state of training"):
            train(model, given, asked, tmp_path / "state")


def backward(model: RewardModel, given: Pairs, options: RewardTraining, groups: Any = ()) -> dict[str, float]:
    """The gradients of one batch of all pairs; returns its metrics."""
    budget = options.token_budget or 1 << 30
    plan = pair_plan(given.rows, replace(options, batch_size=len(given), epochs=1, seed=0), budget)
    stage = Stage("train", given.rows, groups, [Stream(tuple(range(model.members)), plan)], 1e-3)
    start_learning(model, options.dropout)
    objective = RewardObjective(model, LiveScorer(model, given.rows, groups, "float32"), stage, options)
    return accumulate(objective, model, stage.batches[0], [], lambda loss: loss.backward())  # type: ignore[no-untyped-call]


def gradients(model: nn.Module) -> Tensor:
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    for p in model.parameters():
        p.grad = None
    return found


NO_DROPOUT = 1e-12  # enough for two views to be asked for, too little for them to differ


@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": 0.1, "centering": 0.01, "margin": True, "direct_reward": 0.3},
        {"sft": 0.3},
        {"contrastive": 1.0, "dropout": NO_DROPOUT, "temperature": 0.5},
        {"contrastive": 1.0, "contrast": "features", "dropout": NO_DROPOUT, "temperature": 0.5},
        {"members": 3, "meta": 0.01},
        {"head": "proto", "head_options": {"count": 2, "dim": 8}},
        {"head": "proto_tokens", "head_options": {"count": 2, "length": 20}, "pooling": "last"},
    ],
    ids=lambda o: "+".join(o),
)
def test_the_gradient_does_not_depend_on_the_split(options: dict[str, Any], tiny: Path) -> None:
    found, told = [], []
    given = [replace(p, margin=0.2 * i, weight=1 + 0.1 * i, p_a=abs(p.p_a - 0.1)) for i, p in enumerate(pairs(9))]
    for budget in (1, 250, 1 << 30):
        model, asked = make(tiny, **WHOLE | options | {"token_budget": budget})
        encoded = pairs_of(model, given)
        groups = [(row.chosen, row.rejected) for row in encoded.rows[:5]]
        told.append(backward(model, encoded, asked, groups))
        found.append(gradients(model))
    for other, metrics in zip(found[1:], told[1:], strict=True):
        assert float((other - found[0]).norm() / found[0].norm()) < 1e-4
        assert metrics == pytest.approx(told[0], rel=1e-4, abs=1e-6)


def whole_loss(model: RewardModel, given: Pairs, members: Sequence[int]) -> Tensor:
    """Mean over pairs and members of -log sigma(r_w - r_l), in one batch, with nothing shared but the model."""
    chosen, rejected = (
        model(**model.collate([getattr(row, side) for row in given.rows])) for side in ("chosen", "rejected")
    )
    return torch.log1p(torch.exp(rejected - chosen))[:, list(members)].mean()


def test_the_gradient_is_that_of_the_bradley_terry_likelihood(tiny: Path) -> None:
    model, asked = make(tiny, **WHOLE)
    given = pairs_of(model, pairs(12))
    whole_loss(model, given, [0]).backward()  # type: ignore[no-untyped-call]
    expected = gradients(model)
    backward(model, given, asked)
    torch.testing.assert_close(gradients(model), expected, atol=1e-6, rtol=1e-4)


def test_meta_takes_the_gradient_at_the_moved_weights_and_steps_from_the_old(tiny: Path) -> None:
    eta = 0.5
    model, asked = make(tiny, **WHOLE | {"meta": eta})
    given = pairs_of(model, pairs(12))
    answers = pairs_of(model, pairs(6, seed=3)).rows
    groups = [(row.chosen, row.rejected, given.rows[0].chosen) for row in answers]
    moved = copy.deepcopy(model)
    total = torch.zeros(())
    for group in groups:  # J = 2/9 of the sum over the three pairs of sigma(|r_i - r_j|)
        a, b, c = moved(**moved.collate(group))[:, 0]
        total = total + 2 / 9 * sum(torch.sigmoid(abs(x - y)) for x, y in ((a, b), (a, c), (b, c)))
    (total / len(groups)).backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for p in moved.parameters():
            if p.grad is not None:
                p += eta * p.grad
                p.grad = None
    whole_loss(moved, given, [0]).backward()  # type: ignore[no-untyped-call]
    expected, before = gradients(moved), state_of(model)
    metrics = backward(model, given, asked, groups)
    assert state_of(model) == before
    found = gradients(model)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)
    assert metrics["difference"] == pytest.approx(float(total.detach()) / len(groups), rel=1e-5)
    whole_loss(model, given, [0]).backward()  # type: ignore[no-untyped-call]
    assert float((found - gradients(model)).norm() / found.norm()) > 1e-3  # the move matters


def test_the_contrastive_gradient_is_that_of_the_whole_batch(tiny: Path) -> None:
    model, asked = make(
        tiny, **WHOLE | {"contrastive": 2.0, "dropout": NO_DROPOUT, "token_budget": 200, "temperature": 0.5}
    )
    given = pairs_of(model, pairs(12))
    chosen, rejected = (
        model.features(**model.collate([getattr(row, side) for row in given.rows])) for side in ("chosen", "rejected")
    )
    difference = chosen - rejected
    term = contrastive(difference, difference, 0.5).mean()
    (2 * term + whole_loss(model, given, [0])).backward()
    expected = gradients(model)
    metrics = backward(model, given, asked)
    torch.testing.assert_close(gradients(model), expected, atol=1e-4, rtol=1e-3)
    assert metrics["contrastive"] == pytest.approx(float(term.detach()), rel=1e-4)


def test_two_dropout_views_differ_and_come_again(tiny: Path) -> None:
    model, asked = make(tiny, **WHOLE | {"contrastive": 1.0, "dropout": 0.3})
    given = pairs_of(model, pairs(12))
    told = [backward(model, given, asked)["contrastive"] for _ in range(2)]
    other = backward(model, given, asked)
    start_learning(model, 0.0)
    model.eval()
    assert told[0] == told[1] == other["contrastive"]
    dropless = backward(model, given, replace(asked, dropout=NO_DROPOUT))["contrastive"]
    assert abs(told[0] - dropless) > 1e-3


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_a_pair_costs_what_the_formulas_say() -> None:
    r_w, r_l, p, m, e = 0.7, -0.4, 0.8, 0.3, 0.1
    logp = -2.0
    scored = Scored(torch.tensor([[r_w]]), torch.tensor([[r_l]]), torch.zeros(1, 1), torch.zeros(1, 1))
    target = Targets(torch.tensor([p]), torch.tensor([m]), torch.tensor([5.0]))

    def cost(found: Scored = scored, **options: Any) -> float:
        return float(pair_loss(found, target, RewardTraining(**options)))

    def ranking(p: float, m: float) -> float:
        return -p * math.log(logistic(r_w - r_l - m)) - (1 - p) * math.log(logistic(r_l - r_w - m))

    assert cost() == pytest.approx(ranking(p, 0))
    assert cost(margin=True) == pytest.approx(ranking(p, m))
    assert cost(label_smoothing=e) == pytest.approx(ranking(p * (1 - e) + (1 - p) * e, 0))
    assert cost(centering=0.5) == pytest.approx(ranking(p, 0) + 0.5 * (r_w + r_l) ** 2)
    right = -math.log(logistic(r_w)) - math.log(logistic(-r_l))
    wrong = -math.log(logistic(r_l)) - math.log(logistic(-r_w))
    assert cost(direct_reward=2.0) == pytest.approx(ranking(p, 0) + 2 * (p * right + (1 - p) * wrong))
    grm = replace(scored, logprobs=torch.tensor([logp]))
    expected = 0.9 * ranking(p, 0) + 0.1 * -math.log(logistic(0.5 * logp))
    assert cost(grm, sft=0.1, sft_beta=0.5) == pytest.approx(expected)
    tie = Targets(torch.tensor([0.5]), torch.tensor([0.0]), torch.tensor([1.0]))
    assert float(pair_loss(grm, tie, RewardTraining(sft=0.1))) == pytest.approx(0.9 * ranking(0.5, 0))
    tokens = torch.tensor([[9.0, 1.0, 2.0]]), torch.tensor([[-9.0, 0.5, 3.0]]), torch.tensor([[False, True, True]])
    sides = [np.mean([-math.log(logistic(s * 0.5)), -math.log(logistic(s * -1.0))]) for s in (1, -1)]
    found = cost(replace(scored, tokens=tokens))
    assert found == pytest.approx(p * sides[0] + (1 - p) * sides[1])


def test_ties_pull_scores_together_and_count_for_no_accuracy(tiny: Path, tmp_path: Path) -> None:
    given = [replace(p, p_a=0.5) for p in pairs(64)]
    model, asked = make(tiny, **FROZEN | {"epochs": 30, "batch_size": 8, "lr": 1e-2})
    decided = pairs(1, seed=9)
    history = train(model, given + decided, asked, tmp_path / "state")
    assert {"accuracy" in step for step in history} == {False, True}  # one pair of 65 has a winner
    spread = [float(deltas(m, given).std()) for m in (make(tiny, **FROZEN)[0], model)]
    assert spread[1] < spread[0] / 2


def deltas(model: RewardModel, given: Sequence[Preference]) -> Tensor:
    rows = pairs_of(model, given).rows
    with torch.no_grad():
        chosen, rejected = (model(**model.collate([getattr(r, s) for r in rows])) for s in ("chosen", "rejected"))
    return chosen - rejected


@pytest.mark.slow
def test_members_on_a_frozen_backbone_train_as_single_models_do(tiny: Path, tmp_path: Path) -> None:
    options = FROZEN | {"epochs": 2, "batch_size": 8, "max_grad_norm": 1e9}  # the norm is taken over all members
    ensemble, asked = make(tiny, **options | {"members": 3})
    single, alone = make(tiny, **options)
    assert isinstance(ensemble.head, MultiHead)
    with torch.no_grad():
        single.head.score.weight.copy_(ensemble.head.scores[0].weight)  # type: ignore[operator, union-attr]
    together = train(ensemble, pairs(50), asked, tmp_path / "ensemble")
    history = train(single, pairs(50), alone, tmp_path / "single")
    first, second, third = (score.weight for score in ensemble.head.scores)
    torch.testing.assert_close(single.head.score.weight, first)  # type: ignore[union-attr]
    assert [s["loss"] for s in history] == pytest.approx([s["loss_0"] for s in together])
    assert not torch.allclose(first, second, atol=1e-2) and not torch.allclose(second, third, atol=1e-2)


def test_members_on_a_frozen_backbone_have_their_own_orders(tiny: Path, tmp_path: Path) -> None:
    model, asked = make(tiny, **FROZEN | {"members": 2, "epochs": 1, "batch_size": 8})
    assert isinstance(model.head, MultiHead)
    first, second = (score.weight for score in model.head.scores)
    with torch.no_grad():
        second.copy_(first)
    train(model, pairs(50), asked, tmp_path / "state")
    assert not torch.equal(first, second)


@pytest.mark.slow
def test_a_lora_ensemble_learns_in_two_stages(tiny: Path, tmp_path: Path) -> None:
    model, asked = make(tiny, **WHOLE | {"freeze": "lora", "members": 2, "lr": 3e-3, "first_lr": 1e-3, "epochs": 2})
    original = {name: p.detach().clone() for name, p in model.backbone.named_parameters()}
    stages: list[str] = []
    after_first: dict[str, Tensor] = {}

    def on_chunk(what: str, done: int, total: int, loss: float | None) -> None:
        if what == "train" and not after_first:
            after_first.update({n: p.detach().clone() for n, p in model.backbone.named_parameters()})
        stages.append(what)

    history = train(model, pairs(400), asked, tmp_path / "state", on_chunk)
    assert stages == sorted(stages) and set(stages) == {"first", "train"} and len(stages) == len(history)
    for name, value in model.backbone.named_parameters():
        if ".lora_" in name:
            assert not torch.equal(value, after_first[name]) or "lora_A" in name
        else:
            assert torch.equal(value, after_first[name])
    bare = {name.replace(".base_layer", ""): value for name, value in after_first.items()}
    assert not any(torch.equal(bare[n], original[n]) for n in original if "q_proj" in n or "embed" in n)
    lora = {n: p for n, p in model.backbone.named_parameters() if ".lora_B.0" in n}
    assert all(not torch.equal(p, model.backbone.get_parameter(n.replace("B.0", "B.1"))) for n, p in lora.items())
    assert accuracy(model, pairs(200, seed=1)) > 0.9
    assert (tmp_path / "state.first").exists()
    model.save(tmp_path / "saved", tiny)
    torch.testing.assert_close(deltas(RewardModel.load(tmp_path / "saved"), pairs(9)), deltas(model, pairs(9)))


@pytest.mark.slow
def test_grm_trains_the_language_model_too(tiny: Path, tmp_path: Path) -> None:
    found = []
    for share in (0.0, 0.5):
        model, asked = make(
            tiny, **WHOLE | {"head": "mlp", "head_options": {"dropout": 0.0}, "sft": share, "epochs": 2}
        )
        rows = pairs_of(model, pairs(64)).rows
        before = None if model.lm_head is None else imitation(model, [r.chosen for r in rows])
        train(model, pairs(64), asked, tmp_path / f"state-{share}")
        if model.lm_head is not None and before is not None:
            assert imitation(model, [r.chosen for r in rows]) > before + 1
        found.append(model)
    assert found[0].lm_head is None and found[1].lm_head is not None


def imitation(model: RewardModel, answers: Any) -> float:
    batch = model.collate(answers)
    with torch.no_grad():
        tokens = model.tokens(**batch)
        return float(model.answer_logprobs(tokens, batch["input_ids"], batch["token_type_ids"]).mean())


def test_nan_is_refused(tiny: Path, tmp_path: Path) -> None:
    given = pairs(64)
    constant = {"schedule": "constant", "warmup": 0.0}
    model, asked = make(tiny, **FROZEN | constant)
    broken = [replace(p, weight=math.nan) if i == 40 else p for i, p in enumerate(given)]
    with pytest.raises(NotANumber, match=r"loss is nan.*no weight was changed"):
        train(model, broken, asked, tmp_path / "nan")
    model, asked = make(tiny, **FROZEN | constant | {"lr": 1e39, "batch_size": 64, "epochs": 1})
    with pytest.raises(NotANumber, match="the last step made head"):
        train(model, given, asked, tmp_path / "inf")


def test_nothing_learned_is_refused(tiny: Path, tmp_path: Path) -> None:
    model, asked = make(tiny, **FROZEN)
    with pytest.raises(StepError, match="changed no weight"):
        train(model, [replace(p, weight=0.0) for p in pairs(8)], asked, tmp_path / "state")
    with pytest.raises(DataError, match="nothing to learn from"):
        train(model, [replace(p, p_a=0.5) for p in pairs(8)], asked, tmp_path / "state")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"freeze": "head"}, "freeze is 'head'"),
        ({"freeze": "backbone", "sft": 0.1}, "sft acts on the backbone"),
        ({"freeze": "backbone", "contrastive": 0.1, "dropout": 0.1}, "contrastive acts on the backbone"),
        ({"contrastive": 1.0}, "without dropout"),
        ({"freeze": "lora"}, "members is 1"),
        ({"members": 3, "head": "proto"}, "has linear heads"),
        ({"head": "multi", "head_options": {"members": 3}}, "set members beside head"),
        ({"head": "proto_tokens", "margin": True}, "no margin"),
        ({"meta": 0.1}, "unlabelled answers"),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], said: str, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        model, asked = make(tiny, **options)
        train(model, pairs(8), asked, tmp_path / "state")


def test_learning_rates_by_what_learns() -> None:
    assert RewardTraining().learning_rate == 1e-5
    assert RewardTraining(freeze="backbone").learning_rate == 3e-3
    assert RewardTraining(freeze="lora", members=2).learning_rate == 5e-5
    assert RewardTraining(freeze="backbone", lr=0.5).learning_rate == 0.5


def test_dropout_is_the_one_asked_for(tiny: Path) -> None:
    model, _ = make(tiny, members=2)
    model.add_adapters(2, {"rank": 2, "dropout": 0.25})
    start_learning(model, 0.125)
    rates = {m.attention_dropout for m in model.backbone.modules() if hasattr(m, "attention_dropout")}
    assert rates == {0.125}
    adapters = {m.p for n, m in model.backbone.named_modules() if ".lora_" in n and isinstance(m, nn.Dropout)}
    assert adapters == {0.25}
    ids = pairs_of(model, pairs(1)).rows[0].chosen
    a, b = (model(**model.collate([ids])) for _ in range(2))
    assert not torch.equal(a, b)
    assert F.dropout(torch.ones(1), 0.0).item() == 1
