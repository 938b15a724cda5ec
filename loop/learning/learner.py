"""The learner: preference optimisation of the policy on pairs, in this process, on accelerate."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from loop.errors import StepError
from loop.hardware import autocast, default_token_budget, device, fast_dtype
from loop.learning.batches import Plan, Row, collate, micro_batches, plan
from loop.learning.checkpoint import load_model, save_model
from loop.learning.descent import Descent, Optimization
from loop.learning.logprobs import completion_logprobs
from loop.learning.losses import Loss
from loop.learning.probing import write_probe
from loop.tokens import Template
from loop.types import Checkpoint, LogProb, Round, Update, UpdateStep, make_id

CHUNK = 64  # log-probs that are stored at once


class DpoLearner:
    """Direct preference optimisation with any pairwise loss (see loop.learning.losses).

    Checkpoints go to `folder`/round-NNNN. `beta` only scales the implicit rewards that are reported.
    `progress(done, total, loss)` is called each step.
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
        """log P of the completions that have none. Pairs are scored in the micro-batches that learning will use:

        the same shapes give the same rounding, so a policy that equals its reference has margin 0 exactly.
        """
        known = [None not in r for r in rows["reference"].to_pylist()]
        if all(known):
            return
        prepared, ids = self._rows(checkpoint, rows), rows["completion_ids"].to_pylist()
        model = self._model(checkpoint)
        chunk: list[LogProb] = []
        for micro in self._scoring_plan(prepared):
            if all(known[i] for i in micro):
                continue
            batch = collate([prepared[i] for i in micro]).to(device())
            with torch.no_grad(), autocast(self.dtype):
                values = completion_logprobs(model, batch)
            named = [completion_id for i in micro for completion_id in ids[i]]
            for found in zip(named, values.tolist(), batch.lengths.tolist(), strict=True):
                chunk.append(_logprob(checkpoint, *found))
            if len(chunk) >= CHUNK:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def learn(self, rnd: Round, pairs: pa.Table) -> tuple[Checkpoint, Update, list[UpdateStep]]:
        started = time.monotonic()
        rows = self._rows(rnd.policy, pairs)
        batches = self._plan(rows, self.opt.epochs)
        model = self._model(rnd.policy)
        self._held = None  # its weights are about to change
        cause = {"run": rnd.run, "round": rnd.index, "policy": rnd.policy.id}
        update_id = make_id("update", **cause)
        state = self.folder / f"{update_id}.safetensors"
        descent = Descent(model, self.loss, self.opt, beta=self.beta, dtype=self.dtype, progress=self.progress)
        history = descent.run(rows, pairs, batches, state)
        folder = self.folder / f"round-{rnd.index:04d}"
        weights = save_model(model, Path(rnd.policy.path), folder)
        if weights == rnd.policy.weights_sha256:
            shutil.rmtree(folder)
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

    def _scoring_plan(self, rows: Sequence[Row]) -> list[list[int]]:
        if all(len(row.completions) == 1 for row in rows):  # answers, not pairs: no update will see these batches
            budget = self.opt.token_budget or default_token_budget()
            return micro_batches(range(len(rows)), [row.length for row in rows], budget)
        return [micro for batch in self._plan(rows, epochs=1) for micro in batch]

    def _model(self, checkpoint: Checkpoint) -> Any:
        if self._held is None or self._held[0] != checkpoint.weights_sha256:
            self._held = None
            self._held = (checkpoint.weights_sha256, load_model(Path(checkpoint.path), device()))
        return self._held[1]


def _logprob(checkpoint: Checkpoint, completion_id: str, value: float, tokens: int) -> LogProb:
    weights = checkpoint.weights_sha256
    return LogProb(make_id("logprob", weights=weights, completion=completion_id), completion_id, weights, value, tokens)
