"""Train a reward model from pairs in files or in the store; it is a checkpoint with lineage, like a policy."""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

from sparring.flows.compose.build import log, refuse_other_config, versions
from sparring.flows.compose.checkpoints import model_checkpoint, stored_run
from sparring.flows.config import sha256
from sparring.flows.config.reward import RewardConfig
from sparring.flows.run.relabel import check_labelling
from sparring.flows.supervise.device_lock import lock_devices
from sparring.flows.supervise.environment import own_environment
from sparring.flows.supervise.guard import guarding
from sparring.flows.supervise.leaving import leave_if_asked
from sparring.flows.supervise.run_lock import lock_run
from sparring.flows.supervise.threads import keep_threads
from sparring.loop.errors import ConfigError, DataError
from sparring.loop.labelled_pairs import Preference, read_preferences, split_by_prompt
from sparring.loop.options import check_options
from sparring.loop.types import (
    Checkpoint,
    Completion,
    Evaluation,
    Pair,
    Prompt,
    Record,
    RunInfo,
    Split,
    Update,
    UpdatePair,
    UpdateStep,
    digest,
    make_id,
)
from sparring.store.store import DuckStore

if TYPE_CHECKING:
    from sparring.judges.reward.options import RewardTraining

CHUNK = 512  # pairs stored at once
KIND: Final = "reward"


@dataclass(frozen=True)
class Labelled:
    """A labelled pair, with its id when it comes from the store."""

    preference: Preference
    pair_id: str | None = None


@dataclass(frozen=True)
class PreparedReward:
    config: RewardConfig
    info: RunInfo
    options: "RewardTraining"
    train: list[Labelled]
    held_out: list[Preference]
    unlabelled: list[Preference]
    store: DuckStore

    @property
    def folder(self) -> Path:
        return self.store.db.path.parent / "runs" / self.info.id


def prepare_reward(config: RewardConfig) -> PreparedReward:
    """Check everything that needs no model. Raises ConfigError, DataError or EnvironmentProblem."""
    own_environment()
    from sparring.judges.reward.options import RewardTraining

    check_options("reward training", "train", RewardTraining, config.train)
    store = DuckStore(config.store)
    if "seed" in config.train:
        raise ConfigError("train.seed is set; expected `seed` beside `train`, which seeds everything")
    options = RewardTraining(**config.train, seed=config.seed)
    if config.labels is not None:
        check_labelling(config.labels.kind, config.labels.options)
    train, held_out = _pairs(config, store)
    unlabelled = _unlabelled(config, held_out)
    digests = {
        "train": sha256([x.preference.id for x in train]),
        "run": config.pairs.run,
        "eval": sha256([p.id for p in held_out]),
        "unlabelled": sha256([p.id for p in unlabelled]),
    }
    shape = config.shape(digests)
    sha = sha256(shape)
    kept = config.model_dump(mode="json") | {"kind": KIND, "rounds": 1, "shape": shape, "folder": str(Path.cwd())}
    info = RunInfo(f"{config.name}-{sha[:8]}", config.name, config.seed, kept, sha, versions(), KIND)
    refuse_other_config(store, info)
    return PreparedReward(config, info, options, train, held_out, unlabelled, store)


def _pairs(config: RewardConfig, store: DuckStore) -> tuple[list[Labelled], list[Preference]]:
    pairs = config.pairs
    labelled = _of_run(store, pairs.run) if pairs.run else [Labelled(p) for p in read_preferences(str(pairs.train))]
    if pairs.eval:
        held_out = read_preferences(pairs.eval)
    else:
        _, held_out = split_by_prompt([x.preference for x in labelled], pairs.held_out, config.seed)
    seen = {p.prompt for p in held_out}
    kept = [x for x in labelled if x.preference.prompt not in seen]
    if pairs.eval and len(kept) < len(labelled):
        raise DataError(
            f"{len(labelled) - len(kept)} training pairs have a held-out prompt; remove them from pairs.train, or "
            "leave pairs.eval out so that prompts are split"
        )
    return [_flipped(x, pairs.flip, config.seed) for x in kept], held_out


def _unlabelled(config: RewardConfig, held_out: Sequence[Preference]) -> list[Preference]:
    """Pairs whose labels are ignored, without those of held-out prompts."""
    seen = {p.prompt for p in held_out}
    source = config.pairs.unlabelled
    return [p for p in read_preferences(source) if p.prompt not in seen] if source else []


def _flipped(x: Labelled, share: float, seed: int) -> Labelled:
    """The pair with its label flipped, for about `share` of the pairs: deliberate, reproducible noise."""
    p = x.preference
    if int(digest(["flip", seed, p.id], 4), 16) / 2**32 >= share:
        return x
    return Labelled(replace(p, p_a=1 - p.p_a), x.pair_id)


def _of_run(store: DuckStore, name: str) -> list[Labelled]:
    labelled = []
    for row in store.labelled(stored_run(store, name).id).to_pylist():
        messages, p = json.loads(row["messages"]), row["p_chosen"]
        fields = {"margin": row["margin"], "weight": row["weight"]}
        # The order must not reveal which answer is better, so the pair's id decides it.
        if int(row["pair_id"][-1], 16) % 2:
            preference = Preference.make(messages, row["chosen"], row["rejected"], p, **fields)
        else:
            preference = Preference.make(messages, row["rejected"], row["chosen"], 1 - p, **fields)
        labelled.append(Labelled(preference, row["pair_id"]))
    return labelled


Progress = Callable[[str, int, int, float | None], None]


def train_reward(ready: PreparedReward, progress: Progress = lambda what, done, total, loss: None) -> Checkpoint:
    """Train, measure on held-out pairs and store. Resumes where it stopped; does nothing when it is done."""
    done = ready.store.checkpoint_of(ready.info.id)
    if done is not None:
        return done
    with ExitStack() as held:
        held.callback(lock_run(ready.folder).release)
        guard = held.enter_context(guarding(ready.folder / "error.txt"))
        held.enter_context(lock_devices(say=log.warning))
        held.enter_context(guard.limit("train", timeout=None, stall=None))
        return _train(ready, _leaving(progress))


def _leaving(progress: Progress) -> Progress:
    """A `progress` after which the run may leave."""

    def shown(what: str, done: int, total: int, loss: float | None) -> None:
        progress(what, done, total, loss)
        leave_if_asked()

    return shown


def _train(ready: PreparedReward, progress: Progress) -> Checkpoint:
    from sparring.judges.reward.report import evaluate, scale
    from sparring.judges.reward.train import create, train

    started = time.monotonic()
    store, info = ready.store, keep_threads(ready.info, ready.store)
    before = model_checkpoint(info.id, ready.config.model)
    base = Path(before.path)
    store.add([[info, before]])
    store.add(_imported(info, ready.held_out, "eval", "labelled"))
    work = ready.folder / "training"  # training state to resume from, and features of a frozen backbone
    cache = work / "features"
    learned = _mended(ready, base, work, progress)
    store.add(_imported(info, [x.preference for x in learned if x.pair_id is None], "train", _builder(ready.config)))
    model = create(base, ready.options)
    preferences = [x.preference for x in learned]
    state = work / "state.safetensors"
    history = train(model, preferences, ready.options, state, progress, cache=cache, unlabelled=ready.unlabelled)
    model.set_scale(*scale(model, preferences, cache))
    sha = model.save(ready.folder / "model", base)
    cause = {"run": info.id, "round": 1, "policy": before.id}
    after = Checkpoint(make_id("checkpoint", **cause), info.id, str(ready.folder / "model"), before.id, sha)
    report = evaluate(model, ready.held_out, cache, progress) if ready.held_out else {}
    update_id = make_id("update", **cause)
    metrics = {name: fmean(step[name] for step in history if name in step) for name in history[-1]}
    seconds = time.monotonic() - started
    update = Update(update_id, info.id, 1, KIND, before.id, after.id, len(learned), seconds, metrics)
    store.add([[after, update, *_steps(ready, update_id, learned, history), *_evaluations(before, after, report)]])
    shutil.rmtree(work)
    return after


def _mended(ready: PreparedReward, base: Path, work: Path, progress: Progress) -> list[Labelled]:
    """The pairs to train on, relabelled. A pair whose label, margin and weight stay keeps its id in the store."""
    from sparring.flows.run.relabel import LABELS, Source

    labels = ready.config.labels
    if labels is None:
        return ready.train
    preferences = [x.preference for x in ready.train]
    source = Source(preferences, ready.unlabelled, base, ready.options, work, work / "features", progress)
    pair_ids = {_key(x.preference): x.pair_id for x in ready.train}
    return [Labelled(p, pair_ids.get(_key(p))) for p in LABELS[labels.kind](source, **labels.options)]


def _key(p: Preference) -> tuple[str, float, float]:
    return p.id, p.margin, p.weight


def _steps(
    ready: PreparedReward, update_id: str, learned: Sequence[Labelled], history: Sequence[dict[str, float]]
) -> Iterator[Record]:
    for i, step in enumerate(history, start=1):
        yield UpdateStep(make_id("update_step", update=update_id, step=i), update_id, i, step)
    for x in learned:
        pair_id = x.pair_id or _pair_id(ready.info, x.preference)
        yield UpdatePair(make_id("update_pair", update=update_id, pair=pair_id), update_id, pair_id)


def _evaluations(before: Checkpoint, after: Checkpoint, report: Mapping[str, Mapping[str, Any]]) -> list[Record]:
    return [
        Evaluation(
            make_id("evaluation", run=after.run, round=1, candidate=after.id, metric=metric),
            after.run, 1, after.id, before.id, metric, result["value"], result["low"], result["high"], result["n"],
        )
        for metric, result in report.items()
    ]  # fmt: skip


def _builder(config: RewardConfig) -> str:
    """The name that the store gives to the maker of a pair."""
    return config.labels.kind if config.labels else "labelled"


def _imported(info: RunInfo, preferences: Sequence[Preference], split: Split, builder: str) -> Iterator[list[Record]]:
    """The pairs of a file as rows: a prompt, two answers without a policy, and the pair."""
    rows = iter(preferences)
    while chunk := list(islice(rows, CHUNK)):
        yield list({r.id: r for p in chunk for r in _records(info, p, split, builder)}.values())


def _records(info: RunInfo, p: Preference, split: Split, builder: str) -> Iterator[Prompt | Completion | Pair]:
    prompt = Prompt.make(p.messages, split, "labelled pairs", {})
    yield prompt
    ids = [make_id("completion", run=info.id, prompt=prompt.id, text=text) for text in (p.a, p.b)]
    for completion_id, text in zip(ids, (p.a, p.b), strict=True):
        names = (completion_id, info.id, 0, prompt.id, "", 0)
        yield Completion(*names, "dataset", text, (), (), "stop", temperature=1.0, top_p=1.0, seed=0)
    chosen, rejected = ids if p.p_a >= 0.5 else ids[::-1]
    if chosen != rejected:  # two equal answers are not a pair; training counts and drops them
        p_chosen = max(p.p_a, 1 - p.p_a)
        pair_id = _pair_id(info, p)
        yield Pair(pair_id, info.id, 0, prompt.id, chosen, rejected, p_chosen, p.margin, p.weight, builder)


def _pair_id(info: RunInfo, p: Preference) -> str:
    return make_id("pair", run=info.id, preference=p.id, margin=p.margin, weight=p.weight)


def reward_flow(
    make: Callable[[RewardConfig], PreparedReward] = prepare_reward,
    progress: Progress = lambda what, done, total, loss: None,
) -> Any:
    """The Prefect flow of a reward model: one task, whose memory is the store and its state folder."""
    from prefect import flow, task
    from prefect.cache_policies import NO_CACHE

    @flow(name="reward-model", persist_result=False)
    def reward_model(config: RewardConfig) -> str:
        ready = make(config)

        @task(name="train", cache_policy=NO_CACHE, persist_result=False)
        def train() -> Checkpoint:
            return train_reward(ready, progress)

        return str(train().id)

    return reward_model
