"""Our losses and TRL's give one value on one batch, each with its own tokenisation and log-probs.

TRL 1.16 has label smoothing of cDPO's kind and SimPO only in CPOTrainer; its DPO loss is reached by running DPOTrainer.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from loop.learning.batches import Row, collate
from loop.learning.checkpoint import load_model
from loop.learning.logprobs import completion_logprobs
from loop.learning.losses import Logps, bind
from loop.tokens import Template
from tests.learning.data import columns, logps
from tests.learning.pairs import EXCHANGES, initial, make_learner, round_of, scored, unscored
from tests.tiny import build_tiny_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reference that differs from the policy, so that no loss is at its start."""
    return build_tiny_model(tmp_path_factory.mktemp("models") / "other", seed=1)


def peer(model: Path, reference: Path, out: Path, **options: Any) -> Any:
    """A DPOTrainer that takes all of EXCHANGES at each step, from their texts on, in float32 on the CPU."""
    trl = pytest.importorskip("trl", reason="TRL is the peer of these losses; it comes with the dev extra")
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
    trl = pytest.importorskip("trl.experimental.cpo", reason="TRL is the peer of these losses")
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
