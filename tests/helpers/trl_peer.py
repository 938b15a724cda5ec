"""TRL's losses on given log-probs: values and gradients of its arithmetic alone, without a model or a trainer.

Its trainers take their settings from `self` and log-probs from a model; both are plain objects here.
"""

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sparring.loop.learning.losses import Logps
from tests.helpers.logps import columns, logps

REASON = "TRL is the peer of these losses; it comes with the dev extra"


def same(gathered: Any) -> Any:
    return gathered


ACCELERATOR = SimpleNamespace(device="cpu", gather=same, gather_for_metrics=same)


class Answers:
    """A model that says what it is given: log-probs of S answers, each spread evenly over its tokens."""

    def __init__(self, logps: Tensor, tokens: Tensor) -> None:
        self.mask = (torch.arange(int(tokens.max())) < tokens[:, None]).to(logps)  # (S, T)
        self.log_probs = self.mask * (logps / tokens)[:, None]

    def __call__(self, **_: Any) -> Any:
        nought = torch.zeros_like(self.mask)
        fields = dict.fromkeys(("entropy", "mean_logits", "is_top1", "log_sum_sq_probs"), nought)
        return SimpleNamespace(log_probs=self.log_probs, **fields | {"is_top1": nought.bool()})

    @property
    def inputs(self) -> dict[str, Tensor]:
        mask = torch.cat([torch.zeros(len(self.mask), 1), self.mask], 1).long()  # one token of prompt
        return {"input_ids": mask, "attention_mask": mask, "completion_mask": mask}


def dpo_trainer(loss: str | list[str], beta: float, **settings: Any) -> Any:
    kinds = [loss] if isinstance(loss, str) else loss
    made = {
        "model": SimpleNamespace(training=False),
        "accelerator": ACCELERATOR,
        "loss_types": kinds,
        "loss_weights": [1.0] * len(kinds),
        "beta": beta,
        "args": SimpleNamespace(discopop_tau=0.05),
        "f_divergence_type": "reverse_kl",
        "precompute_ref_logps": True,
        "ld_alpha": None,
        "label_smoothing": 0.0,
        "_metrics": defaultdict(lambda: defaultdict(list)),
        "_total_train_tokens": 0,
        "_tp_size": 1,
    }
    return SimpleNamespace(**made | dict.fromkeys(("use_weighting", "aux_loss_enabled"), False) | settings)


def dpo_loss(settings: Any, pairs: Logps) -> Tensor:
    """TRL's mean over the batch."""
    trl = pytest.importorskip("trl", reason=REASON)
    policy = torch.cat([pairs.policy_chosen, pairs.policy_rejected])
    model = Answers(policy, torch.cat([pairs.chosen_tokens, pairs.rejected_tokens]))
    reference = {"ref_chosen_logps": pairs.reference_chosen, "ref_rejected_logps": pairs.reference_rejected}
    found: Tensor = trl.DPOTrainer._compute_loss(settings, model, model.inputs | reference, False)
    return found


def hard_pairs(**more: np.ndarray) -> Logps:
    """Hard labels, log-ratios of at most a few nats, and gradients to both sides."""
    found = columns(24, seed=5) | {"p": np.ones(24), "baseline": np.zeros(24)} | more
    for side in ("chosen", "rejected"):
        near = (found[f"policy_{side}"] - found[f"reference_{side}"]) / 4
        found[f"reference_{side}"] -= 20
        found[f"policy_{side}"] = found[f"reference_{side}"] + near
    floats = {name: value if "tokens" in name else value.astype(np.float32) for name, value in found.items()}
    made = logps(floats)
    made.policy_chosen.requires_grad_()
    made.policy_rejected.requires_grad_()
    return made


def agree(ours: Tensor, theirs: Tensor, made: Logps) -> None:
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    sides = (made.policy_chosen, made.policy_rejected)
    both = zip(
        *(torch.autograd.grad(loss, sides, retain_graph=True, materialize_grads=True) for loss in (ours, theirs)),
        strict=True,
    )
    for mine, other in both:
        np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=1e-4, atol=2e-4 * other.abs().max().item())
