"""The optimizer steps of an update: gradients over any split of a batch, resumable after any step."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sparring.loop.errors import NotANumber
from sparring.loop.hardware import device
from sparring.loop.learning.batches import Plan
from sparring.loop.learning.objectives import Objective
from sparring.loop.learning.schedule import forward
from sparring.loop.learning.state import load_moments, load_state, save_state


@dataclass(frozen=True)
class Optimization:
    """How an update is made, whatever its loss."""

    lr: float = 1e-6
    batch_size: int = 8  # pairs or groups an optimizer step
    epochs: int = 1
    warmup: float = 0.1  # share of the steps
    schedule: str = "constant_with_warmup"  # any name that transformers.get_scheduler knows
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    token_budget: int | None = None  # padded tokens a micro-batch; None: what the hardware holds at ease
    save_seconds: float = 120.0  # how often a long update saves its own state


@dataclass(frozen=True)
class Optimized:
    """Each step's metrics, and the optimizer as the last step left it."""

    history: list[dict[str, float]]
    optimizer: torch.optim.Optimizer


Progress = Callable[[int, int, float], None]


def optimize(
    model: Any,
    objective: Objective,
    batches: Plan,
    optimization: Optimization,
    state: Path,
    *,
    progress: Progress,
    moments: Path | None = None,
    eps: float = 1e-8,
    keep: bool = False,
) -> Optimized:
    """Change `model` in place by one optimizer step a batch, from where a killed update left off in `state`.

    Only parameters that require a gradient are changed. `moments` are an earlier optimizer's, to go on with. `keep`
    saves the state after the last step, too: for an update that has more to do.
    Raises NotANumber before a step that would write NaN or infinity into a weight.
    """
    from accelerate import Accelerator
    from transformers import get_scheduler

    opt = optimization
    # No mixed_precision: `autocast` sees to that, and accelerate allows one value in the life of a process.
    accelerator = Accelerator(cpu=device().type == "cpu")
    parameters = [p for p in model.parameters() if p.requires_grad]
    # Before `prepare`, so that the state's keys are those of the bare model.
    optimizer = torch.optim.AdamW(parameters, lr=opt.lr, weight_decay=opt.weight_decay, fused=True, eps=eps)
    if moments is not None:
        load_moments(moments, parameters, optimizer)
    position = load_state(state, parameters, optimizer, objective.tensors()) or {"history": []}
    history: list[dict[str, float]] = position["history"]
    schedule = get_scheduler(opt.schedule, optimizer, round(opt.warmup * len(batches)), num_training_steps=len(batches))
    forward(schedule, len(history))
    wrapped, stepper = accelerator.prepare(model, optimizer)
    saved = time.monotonic()
    for batch in batches[len(history) :]:
        found = _accumulate(accelerator, wrapped, objective, batch, history)
        norm = accelerator.clip_grad_norm_(parameters, opt.max_grad_norm)
        found |= {"grad_norm": float(norm), "lr": schedule.get_last_lr()[0]}
        _refuse_nan(found, len(history) + 1, opt.lr)
        stepper.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        history.append(found)
        objective.stepped(model, len(history))
        progress(len(history), len(batches), found["loss"])
        last = len(history) == len(batches)
        if (time.monotonic() - saved >= opt.save_seconds and not last) or (keep and last):
            save_state(state, parameters, optimizer, {"history": history}, objective.tensors())
            saved = time.monotonic()
    accelerator.free_memory()
    _refuse_broken(model, opt.lr)
    return Optimized(history, optimizer)


def _accumulate(
    accelerator: Any, model: Any, objective: Objective, batch: Sequence[Sequence[int]], history: list[dict[str, float]]
) -> dict[str, float]:
    """Gradients of the loss of one optimizer batch, whatever its split; returns its metrics."""
    objective.begin(model, batch, history)
    sums: dict[str, float] = defaultdict(float)
    for micro in batch:
        loss, found = objective.share(model, micro)
        accelerator.backward(loss)
        for name, value in found.items():
            sums[name] += value
    return dict(sums)


def _refuse_nan(found: dict[str, float], step: int, lr: float) -> None:
    for name, value in found.items():
        if value != value or value in (float("inf"), float("-inf")):
            raise NotANumber(
                f"step {step}: {name} is {value} (loss {found['loss']}, grad_norm {found['grad_norm']}); no weight was "
                f"changed by it and no checkpoint written. Lower learn.lr (now {lr:g}) or look at the round's rows"
            )


def _refuse_broken(model: Any, lr: float) -> None:
    """The last step's weights are seen by no loss: look at them before they become a checkpoint."""
    for name, p in model.named_parameters():
        if not bool(torch.isfinite(p).all()):
            raise NotANumber(
                f"the last step made {name} infinite or NaN; no checkpoint was written. Lower learn.lr ({lr:g})"
            )
