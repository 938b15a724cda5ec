"""Measure any checkpoint against any rival on a config's held-out prompts, as a run apart from the loop.

Round 0 measures the rival and round 1 the candidate, with the same step as a loop (loop.round.evaluate). None of the
rows belong to the loop. The run's id is derived from both models' weights, the prompts, the sampling and the judge.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from sparring.flows.compose.build import log, make_evaluator, read_all_prompts, versions
from sparring.flows.compose.checkpoints import (
    current_policy,
    initial_policy,
    loop_of,
    named_checkpoint,
    refuse_unusable,
)
from sparring.flows.compose.families import FamilySampler, same_tokens
from sparring.flows.compose.judge_factory import check_eval_judge, judge_info
from sparring.flows.compose.learner import make_learner
from sparring.flows.compose.run_model import date_of, rendering_of
from sparring.flows.compose.sampler import make_sampler
from sparring.flows.config import Config, JudgeConfig, sha256
from sparring.flows.run.judge_trials import opened, refuse_failing
from sparring.flows.run.rounds import error_file, last_error
from sparring.flows.supervise.device_lock import lock_devices
from sparring.flows.supervise.guard import guarding
from sparring.flows.supervise.run_lock import lock_run
from sparring.flows.supervise.step_limits import beating, limited
from sparring.flows.supervise.threads import keep_threads
from sparring.loop.pairing.pipeline import pairing
from sparring.loop.parts import Judge, OnChunk, Parts, Run, Sampler, call, passthrough
from sparring.loop.round import evaluate, round_zero
from sparring.loop.tokens import Rendering
from sparring.loop.types import Checkpoint, Evaluation, Prompt, Round, RunInfo, make_id
from sparring.store.store import DuckStore

KIND: Final = "evaluate"


@dataclass(frozen=True)
class Measurement:
    """A candidate and a rival that passed all checks without a model, and the run that measures them."""

    config: Config
    info: RunInfo
    candidate: Checkpoint
    rival: Checkpoint
    held_out: list[Prompt]
    section: JudgeConfig
    judge: Judge
    store: DuckStore

    @property
    def folder(self) -> Path:
        return self.store.db.path.parent / "runs" / self.info.id

    @property
    def rendering(self) -> Rendering:
        """Prompts read as in the loop that the candidate comes from."""
        return rendering_of(self.config, date_of(self.store, self.candidate.run))

    @property
    def done(self) -> bool:
        return self.store.complete(self.info.id, 1)

    @property
    def rounds(self) -> tuple[Round, Round]:
        """The round that measures the rival, and the round that measures the candidate against it."""
        zeroth = round_zero(self.info.id, self.rival)
        return zeroth, replace(zeroth, index=1)

    def results(self) -> list[Evaluation]:
        """The stored evaluations of the rival (round 0) and of the candidate (round 1)."""
        zeroth, first = self.rounds
        return [e for rnd in (zeroth, replace(first, policy=self.candidate)) for e in self.store.evaluated(rnd)]


def evaluate_checkpoint(
    config: Config,
    checkpoint: str | None = None,
    rival: str | None = None,
    *,
    run: Run = call,
    on_chunk: OnChunk = passthrough,
) -> list[Evaluation]:
    """Every metric of the rival (round 0) and of the candidate (round 1); stored rows are not made again.

    `checkpoint` and `rival` are ids in the store, model folders or hub ids; by default the current policy of the
    config's run and its initial policy. `run` calls a step (`loop.round.evaluate`, twice), `on_chunk` sees chunks on
    their way into the store. Raises ConfigError, DataError, StoreError, and StoreBusy when another process measures
    the same.
    """
    with prepared(config, checkpoint, rival) as ready:
        return measure(ready, run, on_chunk)


@contextmanager
def prepared(config: Config, checkpoint: str | None = None, rival: str | None = None) -> Iterator[Measurement]:
    """The measurement after all checks that need no model. The judge is closed at the end."""
    section = config.evaluate.judge or config.judge
    check_eval_judge(section)
    with opened(section) as judge:
        _, held_out = read_all_prompts(config)
        store = DuckStore(config.store)
        loop = loop_of(store, config)
        one = named_checkpoint(store, checkpoint) if checkpoint else current_policy(store, config, loop)
        other = named_checkpoint(store, rival) if rival else initial_policy(store, config, loop)
        info = _describe(config, one, other, held_out, judge, loop)
        yield Measurement(config, info, _owned(one, info), _owned(other, info), held_out, section, judge, store)


def measure(ready: Measurement, run: Run = call, on_chunk: OnChunk = passthrough) -> list[Evaluation]:
    """See `evaluate_checkpoint`."""
    if not ready.done:
        for checkpoint in (ready.rival, ready.candidate):
            if checkpoint.run != ready.info.id:  # a model from outside the store, which was just read
                refuse_unusable(ready.store, checkpoint)
        file = error_file(ready.store, ready.info.id)
        with ExitStack() as held:
            held.callback(lock_run(ready.folder).release)
            guard = held.enter_context(guarding(file))
            held.enter_context(lock_devices(say=log.warning))
            held.enter_context(last_error(file))
            known = replace(ready, info=keep_threads(ready.info, ready.store))
            _measure(known, limited(guard, ready.config.steps, run), beating(on_chunk))
    return ready.results()


def _measure(ready: Measurement, run: Run, on_chunk: OnChunk) -> None:
    refuse_failing(ready.section, ready.judge, ready.store)
    family = _family(ready)
    sampler = FamilySampler(lambda: make_sampler(ready.config, ready.info.id, ready.folder, ready.rendering), family)
    kin = family(ready.rival) == family(ready.candidate) or same_tokens(ready.rival, ready.candidate)
    try:
        play_measurement(ready, parts_of(ready, sampler, on_chunk), run, kl=kin)
    finally:
        sampler.close()


def parts_of(ready: Measurement, sampler: Sampler, on_chunk: OnChunk) -> Parts:
    """The parts of a loop that a measurement needs; nothing is paired or learned."""
    config, judge = ready.config, ready.judge
    return Parts(
        store=ready.store,
        sampler=sampler,
        judge=judge,
        max_abstain=ready.section.max_abstain,
        pairing=pairing("best_worst", judge.read),
        learner=make_learner(config, ready.folder, ready.rendering),
        evaluator=make_evaluator(config.evaluate.model_copy(update={"rival": "previous"}), judge),
        train=(),
        held_out=tuple(p.id for p in ready.held_out),
        per_round=0,
        on_chunk=on_chunk,
    )


def play_measurement(ready: Measurement, parts: Parts, run: Run = call, *, kl: bool = True) -> None:
    """Measure the rival, then the candidate against it. KL is measured from the rival, unless `kl` is False."""
    zeroth, first = ready.rounds
    known = judge_info(ready.section, ready.judge)
    parts.store.add([[ready.info, ready.rival, ready.candidate, *ready.held_out, known]])
    run(evaluate, zeroth, ready.rival, parts)
    parts.store.add([[first]])
    # The step measures KL from the round's initial policy, unless that is the candidate itself.
    run(evaluate, first if kl else replace(first, initial=ready.candidate), ready.candidate, parts)


def _family(ready: Measurement) -> Callable[[Checkpoint], str]:
    """Names the family of a checkpoint: its loop, or itself when it is from outside the store."""

    def family(checkpoint: Checkpoint) -> str:
        made_by = ready.store.run(checkpoint.run)
        return checkpoint.run if made_by is not None and made_by.kind == "loop" else checkpoint.id

    return family


def _describe(
    config: Config,
    candidate: Checkpoint,
    rival: Checkpoint,
    held_out: Sequence[Prompt],
    judge: Judge,
    loop: RunInfo | None,
) -> RunInfo:
    """The run that measures. Its id is also its name, so that it never has the name of a loop."""
    shape: dict[str, Any] = {
        "candidate": _cause(candidate),
        "rival": _cause(rival),
        "prompts": {"eval": sha256([p.id for p in held_out])},
        "seed": config.seed,
        "sample": config.sample.model_dump(mode="json", exclude={"n", "extra", "tree"}),
        "evaluate": config.evaluate.model_dump(mode="json", include={"n", "gate", "pass_at"}),
        "judge": judge.name,
        # They affect KL by rounding.
        "score": config.learn.model_dump(mode="json", include={"dtype", "token_budget", "batch_size"}),
    }
    if config.policy.template:
        shape["template"] = config.policy.template
    if config.prompts.system != "keep":
        shape["system"] = config.prompts.system
    digest = sha256(shape)
    name = f"{config.name}-{KIND}-{digest[:8]}"
    kept = {"kind": KIND, "rounds": 1, "loop": loop.id if loop else None, "shape": shape, "folder": str(Path.cwd())}
    return RunInfo(name, name, config.seed, kept, digest, versions(), KIND)


def _cause(checkpoint: Checkpoint) -> dict[str, str]:
    return {"checkpoint": checkpoint.id, "weights": checkpoint.weights_sha256}


def _owned(checkpoint: Checkpoint, info: RunInfo) -> Checkpoint:
    """A stored checkpoint unchanged, with its lineage; a model from outside as a checkpoint of this run."""
    if checkpoint.run:
        return checkpoint
    checkpoint_id = make_id("checkpoint", run=info.id, weights=checkpoint.weights_sha256)
    return replace(checkpoint, id=checkpoint_id, run=info.id)
