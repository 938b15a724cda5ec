"""The optimizer steps of an update: gradients over any split of a batch, resumable after any step."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from loop.errors import NotANumber
from loop.hardware import autocast, device
from loop.learning.batches import Plan, Row, collate
from loop.learning.logprobs import completion_logprobs
from loop.learning.losses import Logps, Loss, mean_loss, metrics
from loop.learning.schedule import forward
from loop.learning.state import load_state, save_state


@dataclass(frozen=True)
class Optimization:
    """How an update is made, whatever its loss."""

    lr: float = 1e-6
    batch_size: int = 8  # pairs an optimizer step
    epochs: int = 1
    warmup: float = 0.1  # share of the steps
    schedule: str = "constant_with_warmup"  # any name that transformers.get_scheduler knows
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    token_budget: int | None = None  # padded tokens a micro-batch; None: what the hardware holds at ease
    save_seconds: float = 120.0  # how often a long update saves its own state


class Descent:
    """Descends the loss of pairs for one model, which it changes in place."""

    def __init__(
        self,
        model: Any,
        loss: Loss,
        optimization: Optimization,
        *,
        beta: float,
        dtype: str,
        progress: Callable[[int, int, float], None],
    ) -> None:
        self.model, self.loss, self.opt = model, loss, optimization
        self.beta, self.dtype, self.progress = beta, dtype, progress

    def run(self, rows: Sequence[Row], pairs: pa.Table, batches: Plan, state: Path) -> list[dict[str, float]]:
        """Take the optimizer steps, from where a killed update left off; returns each step's metrics."""
        from accelerate import Accelerator
        from transformers import get_scheduler

        # No mixed_precision: `_autocast` sees to that, and accelerate allows one value in the life of a process.
        accelerator = Accelerator(cpu=device().type == "cpu")
        # Before `prepare`, so that the state's keys are those of the bare model.
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=self.opt.lr, weight_decay=self.opt.weight_decay, fused=True, betas=(0.9, 0.999)
        )
        position = load_state(state, self.model, optimizer) or {"history": []}
        history: list[dict[str, float]] = position["history"]
        schedule = get_scheduler(
            self.opt.schedule, optimizer, round(self.opt.warmup * len(batches)), num_training_steps=len(batches)
        )
        forward(schedule, len(history))
        wrapped, stepper = accelerator.prepare(self.model, optimizer)
        columns = _Columns(pairs, device())
        saved = time.monotonic()
        for batch in batches[len(history) :]:
            found = self._accumulate(accelerator, wrapped, rows, columns, batch)
            norm = accelerator.clip_grad_norm_(self.model.parameters(), self.opt.max_grad_norm)
            found |= {"grad_norm": float(norm), "lr": schedule.get_last_lr()[0]}
            _refuse_nan(found, len(history) + 1, self.opt.lr)
            stepper.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            history.append(found)
            self.progress(len(history), len(batches), found["loss"])
            if time.monotonic() - saved >= self.opt.save_seconds and len(history) < len(batches):
                save_state(state, self.model, optimizer, {"history": history})
                saved = time.monotonic()
        accelerator.free_memory()
        _refuse_broken(self.model, self.opt.lr)
        return history

    def _accumulate(
        self, accelerator: Any, model: Any, rows: Sequence[Row], columns: "_Columns", batch: list[list[int]]
    ) -> dict[str, float]:
        """Gradients of the mean loss over one optimizer batch, whatever its split; returns the mean metrics."""
        n = sum(map(len, batch))
        sums: dict[str, float] = defaultdict(float)
        for micro in batch:
            collated = collate([rows[i] for i in micro]).to(accelerator.device)
            with autocast(self.dtype):
                values = completion_logprobs(model, collated)
            logps = columns.logps(values, collated.lengths, micro)
            losses = self.loss(logps)
            accelerator.backward(mean_loss(losses, logps.weight, n))
            for name, value in metrics(logps, losses, self.beta).items():
                sums[name] += float(value)
        return {name: value / n for name, value in sums.items()}


class _Columns:
    """The columns of the pairs table that a loss needs, as tensors."""

    def __init__(self, pairs: pa.Table, where: torch.device) -> None:
        self.reference = torch.tensor(pairs["reference"].to_pylist(), device=where)  # (B, 2) chosen, rejected
        self.p, self.margin, self.weight = (
            torch.tensor(pairs[name].to_pylist(), device=where) for name in ("p_chosen", "margin", "weight")
        )

    def logps(self, values: Tensor, lengths: Tensor, rows: Sequence[int]) -> Logps:
        policy, tokens, reference = values.view(-1, 2), lengths.view(-1, 2), self.reference[rows]
        return Logps(
            policy[:, 0],
            policy[:, 1],
            reference[:, 0],
            reference[:, 1],
            tokens[:, 0],
            tokens[:, 1],
            self.p[rows],
            self.margin[rows],
            self.weight[rows],
        )


def _refuse_nan(found: dict[str, float], step: int, lr: float) -> None:
    for name, value in found.items():
        if value != value or value in (float("inf"), float("-inf")):
            raise NotANumber(
                f"step {step}: {name} is {value} (loss {found['loss']}, grad_norm {found['grad_norm']}); no weight was "
                f"changed by it and no checkpoint written. Lower learn.lr (now {lr:g}) or look at the round's pairs"
            )


def _refuse_broken(model: Any, lr: float) -> None:
    """The last step's weights are seen by no loss: look at them before they become a checkpoint."""
    for name, p in model.named_parameters():
        if not bool(torch.isfinite(p).all()):
            raise NotANumber(
                f"the last step made {name} infinite or NaN; no checkpoint was written. Lower learn.lr ({lr:g})"
            )
