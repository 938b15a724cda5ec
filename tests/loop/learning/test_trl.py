"""Our losses and TRL's give one value on one batch.

First whole trainers, each with its own tokenisation and log-probs; then every loss of TRL 1.16 on given log-probs, with
its gradients. All in one file, since importing TRL takes far longer than the tests. TRL has label smoothing of cDPO's
kind and SimPO only in CPOTrainer.
"""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sparring.loop.learning.batches import Row, collate
from sparring.loop.learning.checkpoint import load_model
from sparring.loop.learning.logprobs import completion_logprobs
from sparring.loop.learning.losses import Groups, Logps, bind, bind_group, bind_modifiers
from sparring.loop.tokens import Template
from tests.helpers.learner_pairs import EXCHANGES, initial, make_learner, round_of, scored, unscored
from tests.helpers.logps import columns, logps
from tests.helpers.tiny import build_tiny_model
from tests.helpers.trl_peer import ACCELERATOR, REASON, Answers, agree, dpo_loss, dpo_trainer, hard_pairs

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reference that differs from the policy, so that no loss is at its start."""
    return build_tiny_model(tmp_path_factory.mktemp("models") / "other", seed=1)


def peer(model: Path, reference: Path, out: Path, **options: Any) -> Any:
    """A DPOTrainer that takes all of EXCHANGES at each step, from their texts on, in float32 on the CPU."""
    trl = pytest.importorskip("trl", reason=REASON)
    from datasets import Dataset

    tokenizer = Template(str(model)).tokenizer
    asked = (
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
        )
        for question, _, _ in EXCHANGES
    )
    rows = [
        {"prompt": prompt, "chosen": chosen, "rejected": rejected}  # TRL adds the end token
        for prompt, (_, chosen, rejected) in zip(asked, EXCHANGES, strict=True)
    ]
    fixed = {"bf16": False, "use_cpu": True, "gradient_checkpointing": False, "logging_steps": 1}
    quiet = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True}
    return trl.DPOTrainer(
        model=load_model(model, CPU),
        ref_model=load_model(reference, CPU),
        args=trl.DPOConfig(str(out), per_device_train_batch_size=len(rows), **fixed, **quiet, **options),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )


@pytest.fixture(scope="module")
def ours(tiny: Path, other: Path) -> Logps:
    table, template = unscored(tiny), Template.of(str(tiny))
    columns = zip(table["messages"].to_pylist(), table["token_ids"].to_pylist(), strict=True)
    batch = collate([Row(template.prompt_ids(messages), tuple(answers)) for messages, answers in columns])
    with torch.no_grad():
        policy, reference = (completion_logprobs(load_model(f, CPU), batch).view(-1, 2) for f in (tiny, other))
    tokens = batch.lengths.view(-1, 2)
    return Logps(policy[:, 0], policy[:, 1], reference[:, 0], reference[:, 1], tokens[:, 0], tokens[:, 1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("theirs", "beta", "name", "options"),
    [("sigmoid", 0.1, "sigmoid", {}), ("ipo", 0.3, "ipo", {"length_norm": True}), ("hinge", 0.02, "hinge", {})],
)
def test_dpo_trainer(
    theirs: str, beta: float, name: str, options: dict[str, Any], tiny: Path, other: Path, ours: Logps, tmp_path: Path
) -> None:
    trainer = peer(tiny, other, tmp_path, beta=beta, loss_type=[theirs], max_steps=1)
    trainer.train()
    found = trainer.state.log_history[0]
    assert found["logps/chosen"] == pytest.approx(ours.policy_chosen.mean().item(), rel=1e-5)
    assert found["logps/rejected"] == pytest.approx(ours.policy_rejected.mean().item(), rel=1e-5)
    assert found["rewards/margins"] == pytest.approx(beta * ours.gap.mean().item(), rel=1e-4)
    assert found["loss"] == pytest.approx(bind(name, beta=beta, **options)(ours).mean().item(), rel=1e-4)


@pytest.mark.slow
def test_a_whole_update_is_that_of_dpo_trainer(tiny: Path, tmp_path: Path) -> None:
    both: dict[str, Any] = {"beta": 0.3, "max_grad_norm": 0.5, "weight_decay": 0.1}
    trainer = peer(tiny, tiny, tmp_path, **both, max_steps=4, learning_rate=1e-4, lr_scheduler_type="linear")
    trainer.train()
    policy = initial(tiny)
    learner = make_learner(tmp_path / "ours", **both, epochs=4, lr=1e-4, schedule="linear", token_budget=300)
    candidate, _, steps = learner.learn(round_of(policy), scored(learner, policy, unscored(tiny)))
    theirs = [row for row in trainer.state.log_history if "loss" in row]
    assert len(theirs) == len(steps) == 4
    for step, row in zip((s.metrics for s in steps), theirs, strict=True):
        assert step["loss"] == pytest.approx(row["loss"], rel=1e-3)
        assert step["grad_norm"] == pytest.approx(row["grad_norm"], rel=1e-3)
        assert step["reward_margin"] == pytest.approx(row["rewards/margins"], rel=1e-3)
        assert step["lr"] == pytest.approx(row["learning_rate"])
    start, mine = (dict(load_model(Path(f), CPU).named_parameters()) for f in (policy.path, candidate.path))
    # Matrices only: the Trainer keeps the scales of norms from weight decay, our optimizer does not.
    matrices = {name: p for name, p in trainer.model.named_parameters() if p.dim() > 1}
    assert len(matrices) == 15  # the embedding, and seven in each of two layers
    for name, parameter in matrices.items():
        assert (parameter - mine[name]).norm() < 0.01 * (mine[name] - start[name]).norm()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sigmoid", {"beta": 0.1, "label_smoothing": 0.0}),
        ("sigmoid", {"beta": 0.3, "label_smoothing": 0.2}),
        ("ipo", {"beta": 0.3}),
        ("hinge", {"beta": 0.3}),
        ("simpo", {"beta": 2.0, "gamma": 1.0, "label_smoothing": 0.0}),
        ("simpo", {"beta": 2.5, "gamma": 0.5, "label_smoothing": 0.1}),
    ],
)
def test_cpo_loss(name: str, options: dict[str, float]) -> None:
    """CPO has no reference, so its loss of two log-ratios is DPO's; for SimPO it is fed means over tokens."""
    trl = pytest.importorskip("trl.experimental.cpo", reason=REASON)
    found = columns() | {"p": np.ones(64)}
    settings = SimpleNamespace(
        loss_type=name,
        beta=options["beta"],
        simpo_gamma=options.get("gamma"),
        label_smoothing=options.get("label_smoothing", 0.0),
        alpha=0.0,
        accelerator=SimpleNamespace(device="cpu"),
    )
    sides = (
        torch.from_numpy(
            found[f"policy_{side}"] / found[f"{side}_tokens"]
            if name == "simpo"
            else found[f"policy_{side}"] - found[f"reference_{side}"]
        )
        for side in ("chosen", "rejected")
    )
    losses, _, _ = trl.CPOTrainer.cpo_loss(settings, *sides)
    assert len(losses) == 64
    np.testing.assert_allclose(bind(name, **options)(logps(found)).numpy(), losses.numpy(), 1e-12)


@pytest.mark.parametrize(
    ("theirs", "name", "beta", "shared", "ours"),
    [
        ("sigmoid", "sigmoid", 0.3, {}, {}),
        ("hinge", "hinge", 0.3, {}, {}),
        ("ipo", "ipo", 0.3, {}, {"length_norm": True}),
        ("exo_pair", "exo", 0.3, {"label_smoothing": 0.01}, {}),
        ("nca_pair", "nca", 0.3, {}, {}),
        ("robust", "robust", 0.3, {"label_smoothing": 0.2}, {}),
        ("bco_pair", "bco", 0.3, {}, {}),
        ("sppo_hard", "sppo_hard", 0.3, {}, {}),
        ("aot", "aot", 0.3, {"label_smoothing": 0.2}, {}),
        ("aot_unpaired", "aot_unpaired", 0.3, {"label_smoothing": 0.2}, {}),
        ("apo_zero", "apo_zero", 0.3, {}, {}),
        ("apo_down", "apo_down", 0.3, {}, {}),
        ("discopop", "discopop", 0.3, {}, {"tau": 0.05}),
        ("sigmoid_norm", "sigmoid_norm", 5.0, {}, {}),
    ],
)
def test_losses_of_pairs(theirs: str, name: str, beta: float, shared: dict[str, float], ours: dict[str, Any]) -> None:
    made = hard_pairs()
    agree(
        bind(name, beta=beta, **shared, **ours)(made).mean(), dpo_loss(dpo_trainer(theirs, beta, **shared), made), made
    )


def test_every_loss_type_is_compared() -> None:
    trl = pytest.importorskip("trl", reason=REASON)
    with pytest.raises(ValueError, match="Unknown loss type: ours") as refused:
        dpo_loss(dpo_trainer("ours", 0.3), hard_pairs())
    known = {word.strip("'.") for word in str(refused.value).split("one of ")[1].strip("[]").split(", ")}
    assert trl.__version__.startswith("1.16")
    assert {word.rstrip("]'") for word in known} == {
        *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired"),
        *("apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
    }


@pytest.mark.parametrize(
    ("divergence", "theirs", "settings"),
    [
        ("forward_kl", "forward_kl", {}),
        ("js", "js_divergence", {}),
        ("alpha", "alpha_divergence", {"f_alpha_divergence_coef": 0.7}),  # 1 less the paper's alpha
    ],
)
def test_f_divergences(divergence: str, theirs: str, settings: dict[str, float]) -> None:
    made = hard_pairs()
    entry = {"kind": "f_divergence", "divergence": divergence, "alpha": 0.3}
    for name, options in (("sigmoid", {}), ("hinge", {}), ("ipo", {"length_norm": True})):
        trainer = dpo_trainer(name, 0.3, f_divergence_type=theirs, **settings)
        ours = bind(name, beta=0.3, **options)(bind_modifiers([entry], name)(made))
        agree(ours.mean(), dpo_loss(trainer, made), made)


def test_wpo() -> None:
    made = hard_pairs()
    weighed = bind_modifiers([{"kind": "wpo"}], "sigmoid")(made)
    ours = (bind("sigmoid", beta=0.3)(weighed) * weighed.weight / made.weight).mean()
    agree(ours, dpo_loss(dpo_trainer("sigmoid", 0.3, use_weighting=True), made), made)


def test_a_weighted_sum_of_losses() -> None:
    made = hard_pairs()
    trainer = dpo_trainer(["sigmoid", "bco_pair"], 0.3, loss_weights=[0.8, 0.2])
    mixed = [{"kind": "sigmoid", "beta": 0.3, "weight": 0.8}, {"kind": "bco", "beta": 0.3, "weight": 0.2}]
    agree(bind(mixed)(made).mean(), dpo_loss(trainer, made), made)


@pytest.mark.parametrize("sign", [1, -1])
def test_kto(sign: int) -> None:
    """Both forms, with a mismatched KL above and below zero."""
    trl = pytest.importorskip("trl", reason=REASON)
    made, other = hard_pairs(), torch.randn(48, generator=torch.Generator().manual_seed(0))
    policy = torch.cat([made.policy_chosen, made.policy_rejected])
    reference = torch.cat([made.reference_chosen, made.reference_rejected])
    tokens = torch.cat([made.chosen_tokens, made.rejected_tokens])
    mismatched = Answers(reference + sign * (2 + other), tokens)
    matched = Answers(policy, tokens)

    def model(**inputs: Any) -> Any:
        return (mismatched if inputs["input_ids"][0, 0] == 7 else matched)()

    label = torch.arange(48) < 24
    batch: dict[str, Any] = matched.inputs | {"label": label, "ref_logps": reference, "ref_KL_logps": reference}
    batch |= {f"KL_{name}": value for name, value in matched.inputs.items()}
    batch["KL_input_ids"] = batch["KL_input_ids"].clone()
    batch["KL_input_ids"][:, 0] = 7
    trainer = dpo_trainer("kto", 0.3, loss_type="kto", desirable_weight=1.33, undesirable_weight=0.7, calculate_KL=True)
    trainer._compute_kl_logps = partial(trl.KTOTrainer._compute_kl_logps, trainer)
    theirs = trl.KTOTrainer._compute_loss(trainer, model, batch, False)

    z0 = max(0.0, sign * (2 + other).mean().item())
    weights = {"desirable_weight": 1.33, "undesirable_weight": 0.7}
    based = Logps(**{**vars(made), "baseline": torch.tensor(z0)})
    agree(bind("kto", beta=0.3, **weights)(based).mean() / 2, theirs, made)
    alone = torch.ones(48), torch.arange(48)
    unpaired = Groups(policy, reference, tokens, label.float(), *alone, baseline=torch.tensor(z0))
    agree(bind_group("kto_unpaired", beta=0.3, **weights)(unpaired).mean(), theirs, made)


def test_sft_loss() -> None:
    """TRL's is a mean over the tokens of the batch: ours where answers are of one length."""
    made = hard_pairs(chosen_tokens=np.full(24, 17))
    rest = torch.zeros(24), torch.ones(24), torch.arange(24) // 2
    answers = Groups(made.policy_chosen, made.reference_chosen, made.chosen_tokens, *rest)
    agree(bind_group("sft")(answers).mean(), dpo_loss(dpo_trainer("sft", 0.3), made), made)


def test_cpo_with_its_likelihood_term() -> None:
    trl = pytest.importorskip("trl.experimental.cpo", reason=REASON)
    made = hard_pairs()
    settings = SimpleNamespace(
        loss_type="sigmoid", beta=0.3, label_smoothing=0.0, alpha=0.0, cpo_alpha=0.7, aux_loss_enabled=False
    )
    settings.accelerator, settings.cpo_loss = ACCELERATOR, partial(trl.CPOTrainer.cpo_loss, settings)
    nll = -(made.policy_chosen / made.chosen_tokens).mean()
    logits = torch.zeros(1)
    settings.concatenated_forward = lambda model, batch: (made.policy_chosen, made.policy_rejected, logits, logits, nll)
    theirs, _ = trl.CPOTrainer.get_batch_loss_metrics(settings, None, {})
    agree(bind("cpo", beta=0.3, alpha=0.7)(made).mean(), theirs, made)


def test_orpo() -> None:
    trl = pytest.importorskip("trl.experimental.orpo", reason=REASON)
    made = hard_pairs()
    sides = (made.policy_chosen / made.chosen_tokens, made.policy_rejected / made.rejected_tokens)
    reward, *_ = trl.ORPOTrainer.odds_ratio_loss(SimpleNamespace(beta=0.3, accelerator=ACCELERATOR), *sides)
    agree(bind("orpo", beta=0.3)(made).mean(), (-sides[0] - reward).mean(), made)
