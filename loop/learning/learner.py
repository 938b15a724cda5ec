"""The learner: improves the policy in this process with accelerate, by any learning method."""

import shutil
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import torch

from sparring.loop.errors import StepError
from sparring.loop.hardware import autocast, default_token_budget, device, fast_dtype
from sparring.loop.learning.batches import Plan, micro_batches, plan, widths
from sparring.loop.learning.checkpoint import load_model, save_model
from sparring.loop.learning.forward_choice import batch_for, forward_of
from sparring.loop.learning.logprobs import completion_kl, token_logprobs
from sparring.loop.learning.lora import Adapted
from sparring.loop.learning.optimize import Progress
from sparring.loop.learning.options import Lora, Optimization, Reference
from sparring.loop.learning.probing import write_probe
from sparring.loop.learning.references import average
from sparring.loop.learning.training_rows import TrainingRows
from sparring.loop.tokens import Rendering, Template
from sparring.loop.types import Checkpoint, Divergence, Layout, LogProb, Round, Update, UpdateStep, make_id

CHUNK = 64  # log-probs per stored chunk


@dataclass(frozen=True)
class UpdateContext:
    """What a method needs to improve a policy."""

    rnd: Round
    model: Any  # the policy's model, changed in place
    data: TrainingRows
    template: Template  # of the policy
    optimization: Optimization
    dtype: str
    seed: int
    state: Path  # the file where a long update saves its state
    progress: Progress
    reference: Reference
    carries: bool  # whether the update trains the same weights in every round (false with adapters)

    def batches(self, epochs: int | None = None) -> Plan:
        opt, layout = self.optimization, forward_of(self.model).layout
        return _plan(self.data, opt, layout, self.seed, opt.epochs if epochs is None else epochs)


@dataclass(frozen=True)
class UpdateResult:
    """The metrics of each optimizer step and of the whole update.

    `keep` writes files into the checkpoint's folder beside the policy.
    """

    history: list[dict[str, float]]
    keep: Callable[[Path], None] = lambda folder: None
    metrics: Mapping[str, float] = field(default_factory=dict)


class Method(Protocol):
    """A learning method, e.g. a preference loss on pairs, or a policy gradient."""

    algorithm: str
    from_divergence: bool

    def improve(self, work: UpdateContext) -> UpdateResult: ...


class TorchLearner:
    """Learns by any method (see loop.learning.preference_method, loop.learning.policy_gradient_method).

    Checkpoints go to `folder`/round-NNNN. `progress(done, total, loss)` is called after each step.
    """

    def __init__(
        self,
        folder: Path,
        method: Method,
        optimization: Optimization,
        *,
        seed: int,
        reference: Reference | None = None,
        lora: Lora | None = None,
        dtype: str | None = None,
        rendering: Rendering | None = None,
        progress: Progress = lambda done, total, loss: None,
    ) -> None:
        self.folder, self.method, self.opt, self.seed, self.lora = folder, method, optimization, seed, lora
        self.reference, self.dtype, self.progress = reference or Reference(), dtype or fast_dtype(), progress
        self.rendering = rendering or Rendering()
        self._held: tuple[str, Any] | None = None  # the last loaded model, until its weights change

    def anchor(self, rnd: Round) -> Checkpoint:
        if self.reference.kind == "initial":
            return rnd.initial
        if self.reference.kind != "ema" or rnd.reference.weights_sha256 == rnd.policy.weights_sha256:
            return rnd.policy
        before, policy = (load_model(Path(k.path), device()) for k in (rnd.reference, rnd.policy))
        average(before, policy, self.reference.decay)
        folder = self.folder / f"reference-{rnd.index:04d}"
        weights = save_model(policy, Path(rnd.policy.path), folder)
        write_probe(policy, folder, weights)
        cause = {"run": rnd.run, "round": rnd.index, "reference": rnd.reference.id, "policy": rnd.policy.id}
        return Checkpoint(make_id("checkpoint", **cause), rnd.run, str(folder), rnd.policy.id, weights)

    def references(self, rnd: Round) -> Sequence[Checkpoint]:
        return self.reference.of_round(rnd)

    def score(self, checkpoint: Checkpoint, rows: pa.Table) -> Iterator[list[LogProb]]:
        """log P of the completions that have none, in chunks.

        Rows are scored in the micro-batches that the update will use. The same shapes give the same rounding, so a
        policy that equals its reference has a margin of exactly 0.
        """
        scored = [None not in (references[0] if references else [None]) for references in rows["reference"].to_pylist()]
        if all(scored):
            return
        data = TrainingRows.read(rows, checkpoint.path, rendering=self.rendering)
        ids = rows["completion_ids"].to_pylist()
        model = self._model(checkpoint)
        chunk: list[LogProb] = []
        for micro in self._scoring_plan(data, forward_of(model).layout):
            if all(scored[i] for i in micro):
                continue
            batch = batch_for(model, [data.rows[i] for i in micro])
            with torch.no_grad(), autocast(self.dtype):
                values = torch.split(token_logprobs(model, batch).cpu(), batch.lengths.tolist())
            completions = [completion_id for i in micro for completion_id in ids[i]]
            chunk += [_logprob(checkpoint, *each) for each in zip(completions, values, strict=True)]
            if len(chunk) >= CHUNK:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def diverge(self, policy: Checkpoint, reference: Checkpoint, rows: pa.Table) -> Iterator[list[Divergence]]:
        """KL(policy || reference) along each answer that has none, a micro-batch per chunk.

        The micro-batches are those of all answers, whatever is known of them: the same shapes give the same rounding.
        """
        known = rows["divergence"].is_valid().to_pylist()
        if all(known):
            return
        data = TrainingRows.read(rows, policy.path, rendering=self.rendering)
        ids = [completion_id for each in rows["completion_ids"].to_pylist() for completion_id in each]
        models = self._model(policy), load_model(Path(reference.path), device())
        for micro in self._scoring_plan(data, forward_of(models[0]).layout):
            if all(known[i] for i in micro):
                continue
            with torch.no_grad():  # in float32: bfloat16 rounds two near models apart, by more than their KL
                values = completion_kl(*models, [data.rows[i] for i in micro]).tolist()
            counts = [len(data.rows[i].completions[0]) for i in micro]
            hashes = policy.weights_sha256, reference.weights_sha256
            yield [
                Divergence.make(ids[i], *hashes, value, count)
                for i, value, count in zip(micro, values, counts, strict=True)
            ]

    def learn(self, rnd: Round, data: pa.Table) -> tuple[Checkpoint, Update, list[UpdateStep]]:
        started = time.monotonic()
        cause = {"run": rnd.run, "round": rnd.index, "policy": rnd.policy.id}
        update_id = make_id("update", **cause)
        work = self._work(rnd, data, self.folder / f"{update_id}.safetensors")
        adapted = Adapted(work.model, self.lora, self.seed) if self.lora else None
        result = self.method.improve(work)

        def beside(folder: Path) -> None:
            result.keep(folder)
            if adapted:
                adapted.save(folder)

        folder = self.folder / f"round-{rnd.index:04d}"
        model = adapted.merge(Path(rnd.policy.path)) if adapted else work.model
        weights = save_model(model, Path(rnd.policy.path), folder, beside)
        if weights == rnd.policy.weights_sha256:
            shutil.rmtree(folder)
            raise StepError(
                f"the update of round {rnd.index} changed no weight ({len(data)} rows, lr {self.opt.lr:g}); "
                "raise learn.lr, and check grad_norm in update_steps"
            )
        write_probe(model, folder, weights)
        for state in self.folder.glob(f"{update_id}*"):
            state.unlink()
        candidate = Checkpoint(make_id("checkpoint", **cause), rnd.run, str(folder), rnd.policy.id, weights)
        history = result.history
        metrics, seconds = _means(history) | dict(result.metrics), time.monotonic() - started
        what = update_id, rnd.run, rnd.index, self.method.algorithm, rnd.policy.id, candidate.id
        update = Update(*what, len(data), seconds, metrics, self.reference.named(rnd))
        steps = [
            UpdateStep(make_id("update_step", update=update_id, step=i), update_id, i, step)
            for i, step in enumerate(history, start=1)
        ]
        return candidate, update, steps

    def _work(self, rnd: Round, data: pa.Table, state: Path) -> UpdateContext:
        diverging = self.method.from_divergence
        rows = TrainingRows.read(data, rnd.policy.path, from_divergence=diverging, rendering=self.rendering)
        model = self._model(rnd.policy)
        self._held = None  # its weights are about to change
        template = Template.of(rnd.policy.path, self.rendering)
        how = self.opt, self.dtype, self.seed, state, self.progress, self.reference
        return UpdateContext(rnd, model, rows, template, *how, carries=self.lora is None)

    def _scoring_plan(self, data: TrainingRows, layout: Layout) -> list[list[int]]:
        if all(len(row.completions) == 1 for row in data.rows):  # answers, not pairs: no update sees these batches
            budget = self.opt.token_budget or default_token_budget()
            return micro_batches(range(len(data)), [row.length for row in data.rows], budget)
        return [micro for batch in _plan(data, self.opt, layout, self.seed, 1) for micro in batch]

    def _model(self, checkpoint: Checkpoint) -> Any:
        if self._held is None or self._held[0] != checkpoint.weights_sha256:
            self._held = None
            self._held = (checkpoint.weights_sha256, load_model(Path(checkpoint.path), device()))
        return self._held[1]


def _plan(data: TrainingRows, opt: Optimization, layout: Layout, seed: int, epochs: int) -> Plan:
    budget = opt.token_budget or default_token_budget()
    return plan(*widths(data.rows, layout), batch_size=opt.batch_size, token_budget=budget, seed=seed, epochs=epochs)


def _means(history: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(step[name] for step in history) / len(history) for name in history[0]}


def _logprob(checkpoint: Checkpoint, completion_id: str, tokens: torch.Tensor) -> LogProb:
    weights, total = checkpoint.weights_sha256, float(tokens.double().sum())
    cause = make_id("logprob", weights=weights, completion=completion_id)
    return LogProb(cause, completion_id, weights, total, len(tokens), array("f", tokens.tolist()))
