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
from tests.tiny import build_tiny_model

CPU = torch.device("cpu")
EXCHANGES = [
    ("What is 2 + 2?", "Four.", "Five, I should think, or perhaps six."),
    ("Name a colour", "Blue is one, as the sky shows.", "No"),
    ("Bonjour!", "Bonjour à toi.", "漢字"),
]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reference that differs from the policy, so that no loss is at its start."""
    return build_tiny_model(tmp_path_factory.mktemp("models") / "other", seed=1)


@pytest.fixture(scope="module")
def ours(tiny: Path, other: Path) -> Logps:
    template = Template.of(str(tiny))
    encode, end = template.tokenizer.encode, template.tokenizer.eos_token_id
    rows = [
        Row(
            template.prompt_ids([{"role": "user", "content": asked}]),
            tuple([*encode(answer, add_special_tokens=False), end] for answer in answers),
        )
        for asked, *answers in EXCHANGES
    ]
    batch = collate(rows)
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
    trl = pytest.importorskip("trl", reason="TRL is the peer of these losses; it comes with the dev extra")
    from datasets import Dataset

    render = Template.of(str(tiny)).tokenizer.apply_chat_template
    data = Dataset.from_list(
        [
            {
                "prompt": render([{"role": "user", "content": asked}], add_generation_prompt=True, tokenize=False),
                "chosen": chosen,  # TRL adds the end token
                "rejected": rejected,
            }
            for asked, chosen, rejected in EXCHANGES
        ]
    )
    trainer = trl.DPOTrainer(
        model=load_model(tiny, CPU),
        ref_model=load_model(other, CPU),
        args=trl.DPOConfig(
            str(tmp_path),
            beta=beta,
            loss_type=[theirs],
            per_device_train_batch_size=len(data),
            max_steps=1,
            logging_steps=1,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=data,
        processing_class=Template(str(tiny)).tokenizer,
    )
    trainer.train()
    found = trainer.state.log_history[0]
    assert found["logps/chosen"] == pytest.approx(ours.policy_chosen.mean().item(), rel=1e-5)
    assert found["logps/rejected"] == pytest.approx(ours.policy_rejected.mean().item(), rel=1e-5)
    assert found["rewards/margins"] == pytest.approx(beta * ours.gap.mean().item(), rel=1e-4)
    assert found["loss"] == pytest.approx(bind(name, beta=beta, **options)(ours).mean().item(), rel=1e-4)


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
