"""The optimizer loop of every training: gradients over any split of a batch, resumable after any step."""

import math
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from sparring.loop.errors import EnvironmentProblem, NotANumber, SavedAndLeft
from sparring.loop.hardware import device
from sparring.loop.learning.objectives import History, Objective
from sparring.loop.learning.options import Optimization
from sparring.loop.learning.state import load_moments, load_state, save_state


@dataclass(frozen=True)
class Optimized:
    """Each step's metrics, and the optimizer after the last step."""

    history: list[dict[str, float]]
    optimizer: torch.optim.Optimizer


Progress = Callable[[int, int, float], None]
B = TypeVar("B")


def optimize(
    model: Any,
    objective: Objective[B],
    batches: Sequence[B],
    optimization: Optimization,
    state: Path,
    *,
    progress: Progress,
    moments: Path | None = None,
    eps: float = 1e-8,
    cause: str = "",
    keep: bool = False,
) -> Optimized:
    """Train `model` in place with one optimizer step per batch, resuming from `state` if a killed training left one.

    Only parameters that require a gradient are changed. `moments` is a file with an earlier optimizer's moments to
    start from. `cause` identifies the training: a state with another cause raises StepError. `keep` also saves the
    state after the last step, for a training that has more to do.
    Raises NotANumber before a step that would write NaN or infinity into a weight. A SavedAndLeft that `progress`
    raises passes on when the state is saved.
    """
    from transformers import get_scheduler

    opt = optimization
    accelerator = own_accelerator()
    parameters = [p for p in model.parameters() if p.requires_grad]
    # Before `prepare`, so that the state's keys are those of the bare model.
    optimizer = torch.optim.AdamW(parameters, lr=opt.lr, weight_decay=opt.weight_decay, fused=True, eps=eps)
    if moments is not None:
        load_moments(moments, parameters, optimizer)
    position = load_state(state, parameters, optimizer, objective.tensors(), cause) or {"history": []}
    history: list[dict[str, float]] = position["history"]
    schedule = get_scheduler(opt.schedule, optimizer, round(opt.warmup * len(batches)), num_training_steps=len(batches))
    with warnings.catch_warnings():  # torch warns of schedule steps before its optimizer's, which a killed process took
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
        for _ in history:
            schedule.step()
    wrapped, stepper = accelerator.prepare(model, optimizer)
    saved = time.monotonic()
    for batch in batches[len(history) :]:
        metrics = accumulate(objective, wrapped, batch, history, accelerator.backward)
        norm = accelerator.clip_grad_norm_(parameters, opt.max_grad_norm)
        metrics |= {"grad_norm": float(norm), "lr": schedule.get_last_lr()[0]}
        _refuse_nan(metrics, len(history) + 1, opt.lr)
        stepper.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        history.append(metrics)
        objective.stepped(model, len(history))
        leaving = _leaving(progress, len(history), len(batches), metrics["loss"])
        last = len(history) == len(batches)
        if leaving or (time.monotonic() - saved >= opt.save_seconds and not last) or (keep and last):
            save_state(state, parameters, optimizer, {"cause": cause, "history": history}, objective.tensors())
            saved = time.monotonic()
        if leaving:
            raise leaving
    accelerator.free_memory()
    _refuse_broken(model, opt.lr)
    return Optimized(history, optimizer)


def _leaving(progress: Progress, done: int, total: int, loss: float) -> SavedAndLeft | None:
    """Report a step; returns the error of a run that was asked to leave, once the state is saved."""
    try:
        progress(done, total, loss)
    except SavedAndLeft as left:
        return left
    return None


def own_accelerator() -> Any:
    """An Accelerator of this process alone, without mixed precision, which is `autocast`'s part.

    Everything is given, because accelerate takes what is not from the environment. Raises EnvironmentProblem when
    somebody else's Accelerator has already set this process to something else: accelerate allows one per process.
    """
    from accelerate import Accelerator
    from accelerate.utils import GradientAccumulationPlugin

    steps = GradientAccumulationPlugin(num_steps=1)
    try:
        made = Accelerator(cpu=device().type == "cpu", mixed_precision="no", gradient_accumulation_plugin=steps)
        state = f"{made.num_processes} processes, {made.distributed_type.value}"
    except ValueError as error:
        made, state = None, str(error)
    if made is None or made.num_processes != 1 or made.device.type != device().type:
        raise EnvironmentProblem(
            f"accelerate is already set up in this process ({state}); expected one process on {device().type} without "
            "mixed precision. Start the run in a process of its own: spar run CONFIG"
        )
    return made


def accumulate(
    objective: Objective[B], model: Any, batch: B, history: History, backward: Callable[[Tensor], object]
) -> dict[str, float]:
    """Add up the gradients of one optimizer batch; returns its metrics."""
    sums: dict[str, float] = defaultdict(float)
    for loss, metrics in objective.losses(model, batch, history):
        backward(loss)
        for name, value in metrics.items():
            sums[name] += value
    return dict(sums)


def _refuse_nan(metrics: dict[str, float], step: int, lr: float) -> None:
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise NotANumber(
                f"step {step}: {name} is {value} (loss {metrics['loss']}, grad_norm {metrics['grad_norm']}); no weight "
                f"was changed by this step and no checkpoint was written. Lower the learning rate lr (now {lr:g}), or "
                "check the rows of this training"
            )


def _refuse_broken(model: Any, lr: float) -> None:
    """Raise NotANumber for weights that the last step broke: no loss has seen them."""
    for name, p in model.named_parameters():
        if p.requires_grad and not bool(torch.isfinite(p).all()):
            raise NotANumber(
                f"the last step made {name} infinite or NaN; no checkpoint was written. Lower the learning rate lr "
                f"(now {lr:g})"
            )
