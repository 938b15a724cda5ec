"""The learner: preference optimisation of the policy on pairs, in this process, on accelerate."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from loop.errors import NotANumber, StepError
from loop.hardware import default_token_budget, device, fast_dtype
from loop.learning.batches import Plan, Row, collate, plan
from loop.learning.checkpoint import load_model, save_model
from loop.learning.logprobs import completion_logprobs
from loop.learning.losses import Logps, Loss, mean_loss, metrics
from loop.learning.probing import write_probe
from loop.learning.state import load_state, save_state
from loop.tokens import Template
from loop.types import Checkpoint, LogProb, Round, Update, UpdateStep, make_id


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


class DpoLearner:
    """Direct preference optimisation with any pairwise loss (see loop.learning.losses).

    Checkpoints go to `folder`/round-NNNN. `identity` names what shaped the update in the ids of its records.
    `beta` only scales the implicit rewards that are reported. `progress(done, total, loss)` is called each step.
    """

    algorithm = "dpo"

    def __init__(
        self,
        folder: Path,
        loss: Loss,
        optimization: Optimization,
        *,
        seed: int,
        beta: float = 0.1,
        dtype: str | None = None,
        progress: Callable[[int, int, float], None] = lambda done, total, loss: None,
    ) -> None:
        self.folder, self.loss, self.opt, self.seed, self.beta = folder, loss, optimization, seed, beta
        self.dtype = dtype or fast_dtype()
        self.progress = progress
        self._held: tuple[str, Any] | None = None  # the model last loaded, as long as its weights are as loaded

    def score(self, checkpoint: Checkpoint, rows: pa.Table) -> Iterator[list[LogProb]]:
        """log P of the completions that have none, in the micro-batches that learning will use.

        The same shapes give the same rounding, so a policy that equals its reference has margin 0 exactly.
        """
        known = [None not in r for r in rows["reference"].to_pylist()]
        if all(known):
            return
        batches, ids = self._rows(checkpoint, rows), rows["completion_ids"].to_pylist()
        model = self._model(checkpoint)
        for batch in self._plan(batches, epochs=1):
            for micro in batch:
                if all(known[i] for i in micro):
                    continue
                collated = collate([batches[i] for i in micro]).to(device())
                with torch.no_grad(), self._autocast():
                    values = completion_logprobs(model, collated)
                named = [completion_id for i in micro for completion_id in ids[i]]
                yield [
                    LogProb(
                        make_id("logprob", weights=checkpoint.weights_sha256, completion=completion_id),
                        completion_id,
                        checkpoint.weights_sha256,
                        value,
                        tokens,
                    )
                    for completion_id, value, tokens in zip(
                        named, values.tolist(), collated.lengths.tolist(), strict=True
                    )
                ]

    def learn(self, rnd: Round, pairs: pa.Table) -> tuple[Checkpoint, Update, list[UpdateStep]]:
        started = time.monotonic()
        rows = self._rows(rnd.policy, pairs)
        batches = self._plan(rows, self.opt.epochs)
        model = self._model(rnd.policy)
        self._held = None  # its weights are about to change
        cause = {"run": rnd.run, "round": rnd.index, "policy": rnd.policy.id}
        update_id = make_id("update", **cause)
        state = self.folder / f"{update_id}.safetensors"
        history = self._descend(model, rows, pairs, batches, state)
        folder = self.folder / f"round-{rnd.index:04d}"
        weights = save_model(model, Path(rnd.policy.path), folder)
        if weights == rnd.policy.weights_sha256:
            raise StepError(
                f"the update of round {rnd.index} changed no weight ({len(rows)} pairs, lr {self.opt.lr:g}); "
                "raise learn.lr, and look at grad_norm in update_steps"
            )
        write_probe(model, folder)
        state.unlink(missing_ok=True)
        candidate = Checkpoint(make_id("checkpoint", **cause), rnd.run, str(folder), rnd.policy.id, weights)
        update = Update(
            update_id,
            rnd.run,
            rnd.index,
            self.algorithm,
            rnd.policy.id,
            candidate.id,
            len(rows),
            time.monotonic() - started,
            {name: sum(step[name] for step in history) / len(history) for name in history[0]},
        )
        steps = [
            UpdateStep(make_id("update_step", update=update_id, step=i), update_id, i, step)
            for i, step in enumerate(history, start=1)
        ]
        return candidate, update, steps

    def _descend(
        self, model: Any, rows: Sequence[Row], pairs: pa.Table, batches: Plan, state: Path
    ) -> list[dict[str, float]]:
        """Take the optimizer steps, from where a killed update left off; returns each step's metrics."""
        from accelerate import Accelerator
        from transformers import get_scheduler

        # No mixed_precision: `_autocast` sees to that, and accelerate allows one value in the life of a process.
        accelerator = Accelerator(cpu=device().type == "cpu")
        # Before `prepare`, so that the state's keys are those of the bare model.
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=self.opt.lr, weight_decay=self.opt.weight_decay, fused=True, betas=(0.9, 0.999)
        )
        position = load_state(state, model, optimizer) or {"history": []}
        history: list[dict[str, float]] = position["history"]
        schedule = get_scheduler(
            self.opt.schedule, optimizer, round(self.opt.warmup * len(batches)), num_training_steps=len(batches)
        )
        for _ in history:
            schedule.step()
        wrapped, stepper = accelerator.prepare(model, optimizer)
        columns = _Columns(pairs, device())
        saved = time.monotonic()
        for batch in batches[len(history) :]:
            found = self._accumulate(accelerator, wrapped, rows, columns, batch)
            norm = accelerator.clip_grad_norm_(model.parameters(), self.opt.max_grad_norm)
            found |= {"grad_norm": float(norm), "lr": schedule.get_last_lr()[0]}
            _refuse_nan(found, len(history) + 1, self.opt.lr)
            stepper.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            history.append(found)
            self.progress(len(history), len(batches), found["loss"])
            if time.monotonic() - saved >= self.opt.save_seconds and len(history) < len(batches):
                save_state(state, model, optimizer, {"history": history})
                saved = time.monotonic()
        accelerator.free_memory()
        return history

    def _accumulate(
        self, accelerator: Any, model: Any, rows: Sequence[Row], columns: "_Columns", batch: list[list[int]]
    ) -> dict[str, float]:
        """Gradients of the mean loss over one optimizer batch, whatever its split; returns the mean metrics."""
        n = sum(map(len, batch))
        sums: dict[str, float] = defaultdict(float)
        for micro in batch:
            collated = collate([rows[i] for i in micro]).to(accelerator.device)
            with self._autocast():
                values = completion_logprobs(model, collated)
            logps = columns.logps(values, collated.lengths, micro)
            losses = self.loss(logps)
            accelerator.backward(mean_loss(losses, logps.weight, n))
            for name, value in metrics(logps, losses, self.beta).items():
                sums[name] += float(value)
        return {name: value / n for name, value in sums.items()}

    def _rows(self, checkpoint: Checkpoint, table: pa.Table) -> list[Row]:
        template = Template.of(checkpoint.path)
        prompts = [template.prompt_ids(text) for text in table["messages"].to_pylist()]
        completions = table["token_ids"].to_pylist()
        return [Row(p, tuple(c)) for p, c in zip(prompts, completions, strict=True)]

    def _plan(self, rows: Sequence[Row], epochs: int) -> Plan:
        return plan(
            [row.length for row in rows],
            batch_size=self.opt.batch_size,
            token_budget=self.opt.token_budget or default_token_budget(),
            seed=self.seed,
            epochs=epochs,
        )

    def _model(self, checkpoint: Checkpoint) -> Any:
        if self._held is None or self._held[0] != checkpoint.weights_sha256:
            self._held = None
            self._held = (checkpoint.weights_sha256, load_model(Path(checkpoint.path), device()))
        return self._held[1]

    def _autocast(self) -> torch.autocast:
        return torch.autocast(device().type, dtype=torch.bfloat16, enabled=self.dtype == "bfloat16")


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
