"""The optimizer steps of a stage: any split of a batch, any number of members, resumable after any step."""

import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from sparring.judges.reward.features import Progress, tensors_key
from sparring.judges.reward.losses import meta_difference
from sparring.judges.reward.model import RewardModel
from sparring.judges.reward.objective import Targets, contrast, moved, pair_loss
from sparring.judges.reward.options import RewardTraining
from sparring.judges.reward.scorers import Scorer, seeded
from sparring.judges.reward.stages import Stage, Stream, Tally
from sparring.loop.errors import NotANumber, StepError
from sparring.loop.hardware import default_token_budget, device
from sparring.loop.learning.batches import micro_batches
from sparring.loop.learning.schedule import forward
from sparring.loop.learning.state import load_state, save_state
from sparring.loop.types import derive_seed

START = 256  # pairs that prototypes start from


class Descent:
    """Descends the loss of pairs for a model's trainable weights, which it changes in place."""

    def __init__(
        self, model: RewardModel, scorer: Scorer, stage: Stage, options: RewardTraining, progress: Progress
    ) -> None:
        from accelerate import Accelerator

        self.model, self.scorer, self.stage, self.opt, self.progress = model, scorer, stage, options, progress
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.targets = Targets.of(stage.rows, model.device)
        self.budget = options.token_budget or default_token_budget()
        # No mixed_precision: `autocast` sees to that, and accelerate allows one value in the life of a process.
        self.accelerator = Accelerator(cpu=device().type == "cpu")

    def run(self, state: Path, cause: str, *, keep: bool = False) -> list[dict[str, float]]:
        """Take the steps, from where a killed training left off; returns each step's metrics.

        `cause` names the training, `keep` also saves its state at the end. Raises NotANumber, and StepError when no
        weight has changed, or when the state is another training's.
        """
        from transformers import get_scheduler

        total = self.stage.steps
        untrained = tensors_key(self.parameters)
        optimizer = torch.optim.AdamW(
            self.parameters, lr=self.stage.lr, weight_decay=self.opt.weight_decay, fused=True, betas=(0.9, 0.999)
        )
        kept = [*self.parameters, *self.model.head.buffers()]
        _refuse_foreign(state, cause)
        position = load_state(state, kept, optimizer)
        history: list[dict[str, float]] = position["history"] if position else []
        self._initialise()
        schedule = get_scheduler(self.opt.schedule, optimizer, round(self.opt.warmup * total), total)
        forward(schedule, len(history))
        stepper = self.accelerator.prepare(optimizer)
        saved = time.monotonic()
        while len(history) < total:
            found, features = self.gradients(len(history))
            norm = self.accelerator.clip_grad_norm_(self.parameters, self.opt.max_grad_norm)
            found |= {"grad_norm": float(norm), "lr": schedule.get_last_lr()[0]}
            _refuse_nan(found, len(history) + 1, self.stage.lr)
            stepper.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            self.model.head.advance(*features)
            history.append(found)
            self.progress(self.stage.name, len(history), total, found["loss"])
            due = time.monotonic() - saved >= self.opt.save_seconds and len(history) < total
            if due or (keep and len(history) == total):
                save_state(state, kept, optimizer, {"cause": cause, "history": history})
                saved = time.monotonic()
        self.accelerator.free_memory()
        self._refuse_untrained(untrained)
        return history

    def gradients(self, step: int) -> tuple[dict[str, float], tuple[Tensor, Tensor]]:
        """Gradients of the mean loss of each stream's batch; (metrics, features of the pairs with a winner)."""
        tally, extra = Tally(self.model.members), dict[str, float]()
        if self.opt.meta:
            extra["difference"] = self._mean(self._difference(step, stream) for stream in self.stage.streams)
        with moved(self.parameters, self.opt.meta) if self.opt.meta else nullcontext():
            for stream in self.stage.streams:
                self._descend(step, stream, tally)
            if self.opt.contrastive:
                extra["contrastive"] = self._mean(self._contrast(step, stream) for stream in self.stage.streams)
            auxiliary = self.model.head.auxiliary()
            if auxiliary.requires_grad:
                self.accelerator.backward(auxiliary)
                extra["auxiliary"] = float(auxiliary.detach())
        return tally.metrics() | extra, tally.features()

    def _descend(self, step: int, stream: Stream, tally: Tally) -> None:
        batch, columns = stream.batches[step], list(stream.members)
        n = sum(map(len, batch))
        for j, micro in enumerate(batch):
            with self._seeded(step, stream, j):
                found = self.scorer.pairs(micro, stream.adapter)
            target = self.targets[micro]
            losses = pair_loss(found, target, self.opt)
            losses = (losses if losses.shape[1] == 1 else losses[:, columns]) * target.weight[:, None]
            self.accelerator.backward(losses.mean(1).sum() / n)
            tally.add(columns, losses.detach(), found, target)

    def _contrast(self, step: int, stream: Stream) -> float:
        batch = stream.batches[step]

        def view(j: int, v: int) -> Tensor:
            with self._seeded(step, stream, j, v):
                return self.scorer.pooled(batch[j], stream.adapter)

        return contrast(view, len(batch), self.opt, self.accelerator.backward)

    def _difference(self, step: int, stream: Stream) -> float:
        """Gradients of MetaRM's J, the mean over a batch of groups; returns J."""
        groups, members = self.stage.groups, list(stream.members)
        size = min(self.opt.batch_size, len(groups))
        random = np.random.default_rng([derive_seed(self.opt.seed, self.stage.name, "groups", members), step])
        drawn = random.choice(len(groups), size, replace=False).tolist()
        total = 0.0
        for micro in micro_batches(drawn, self.stage.group_lengths, self.budget):
            found = [meta_difference(s[:, members].T).mean() for s in self.scorer.answers(micro, stream.adapter)]
            value = torch.stack(found).sum() / size
            self.accelerator.backward(value)
            total += float(value.detach())
        return total

    def _initialise(self) -> None:
        """Prototypes start from training pairs; those of a head that was trained before stay as they are."""
        if int(getattr(self.model.head, "step", 1)):
            return
        generator = torch.Generator().manual_seed(derive_seed(self.opt.seed, "start"))
        decided = [i for i, row in enumerate(self.stage.rows) if row.p > 0.5]
        drawn = [decided[i] for i in torch.randperm(len(decided), generator=generator)[:START].tolist()]
        with torch.no_grad():
            found = [self.scorer.pairs(micro, 0) for micro in micro_batches(drawn, self.stage.row_lengths, self.budget)]
        chosen, rejected = (
            torch.cat([f.chosen_features for f in found]),
            torch.cat([f.rejected_features for f in found]),
        )
        self.model.head.initialise(chosen, rejected, generator)

    def _seeded(self, step: int, stream: Stream, *cause: int) -> Any:
        return seeded(self.model.device, self.opt.seed, self.stage.name, stream.members, step, *cause)

    def _mean(self, values: Iterator[float]) -> float:
        return sum(values) / len(self.stage.streams)

    def _refuse_untrained(self, untrained: str) -> None:
        """The last step's weights are seen by no loss: look at them before they are saved."""
        for name, p in self.model.named_parameters():
            if p.requires_grad and not bool(torch.isfinite(p).all()):
                raise NotANumber(f"the last step made {name} infinite or NaN; lower lr (now {self.stage.lr:g})")
        if tensors_key(self.parameters) == untrained:
            raise StepError(
                f"{self.stage.steps} steps on {len(self.stage.rows)} pairs changed no weight (lr {self.stage.lr:g}); "
                "raise lr, and look at grad_norm and at the weights of the pairs"
            )


def _refuse_foreign(state: Path, cause: str) -> None:
    if not state.exists():
        return
    with safe_open(state, "pt") as file:
        found = json.loads(file.metadata()["position"]).get("cause")
    if found != cause:
        raise StepError(
            f"{state} is the state of training {found}, this is {cause}: other pairs, options or weights; remove it, "
            "or give another file"
        )


def _refuse_nan(found: dict[str, float], step: int, lr: float) -> None:
    for name, value in found.items():
        if not np.isfinite(value):
            raise NotANumber(
                f"step {step}: {name} is {value} (loss {found['loss']}, grad_norm {found['grad_norm']}); no weight was "
                f"changed by it. Lower lr (now {lr:g}), or look at the pairs"
            )
