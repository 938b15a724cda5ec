"""How the models of a run are computed: decided on its first one before round 0, kept with the run, and used again."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import torch

from sparring.flows.config import Config
from sparring.loop.hardware import device, vllm_environment
from sparring.loop.learning.checkpoint import load_model
from sparring.loop.learning.forward import Forward
from sparring.loop.learning.forward_choice import config_sha256, forward_of, settle
from sparring.loop.learning.lora import check_merge
from sparring.loop.learning.probing import PROBES, probe_file, take_probe
from sparring.loop.tokens import Rendering
from sparring.loop.types import Checkpoint, RunModel
from sparring.store.history import run_model, started_on
from sparring.store.store import DuckStore


def settled(store: DuckStore, run: str, initial: Checkpoint, config: Config, run_folder: Path) -> RunModel:
    """As it was decided when the run began; decided now for a new run. Raises ConfigError for an unsupported model."""
    known = run_model(store.db, run) if store.db.path.exists() else None
    if known is None:
        return decided(run, initial, config, date_of(store, run), run_folder / PROBES)
    settle(known.config_sha256, Forward(known.attention, known.layout, known.head))
    return known


def decided(run: str, initial: Checkpoint, config: Config, date: str, probes: Path | None = None) -> RunModel:
    """Decided on the loaded model, whose probe goes to the folder `probes` unless transformers samples.

    Raises ConfigError for a model that is not supported, or that cannot get the adapters of the config.
    """
    folder, engine = Path(initial.path), config.sample.engine
    place = placement(initial.path, engine)
    model = load_model(folder, device())
    how = forward_of(model)
    if probes is not None and engine == "vllm":  # while it is in memory, and before an engine takes that up
        probe = take_probe(model, folder, initial.weights_sha256, rounding=True)
        probe.write(probe_file(probes, initial.weights_sha256))
    facts = type(model).__name__, config_sha256(model), how.attention, how.layout, how.head
    if config.learn.lora is not None:
        check_merge(model, folder, config.learn.lora)  # the last that the model is used for: it gets adapters
    del model
    if device().type == "cuda":
        torch.cuda.empty_cache()  # torch would keep the memory that the engine needs
    return RunModel(run, *facts, place, date)


def placement(folder: str, engine: str) -> str:
    """Where the engine of a model lives: this process, a process of its own, or transformers."""
    if engine == "transformers":
        return engine
    os.environ.update(vllm_environment(cache_gib=1))
    from sparring.loop.sampling.vllm_start import needs_own_process

    return "a process of its own" if needs_own_process(folder) else "this process"


def date_of(store: DuckStore, run: str) -> str:
    """What chat templates take for today in a run: the day on which it began, in UTC, whenever it is resumed."""
    known = run_model(store.db, run) if store.db.path.exists() else None
    began = started_on(store.db, run) if store.db.path.exists() and known is None else None
    return known.date if known else began or datetime.now(UTC).date().isoformat()


def rendering_of(config: Config, date: str) -> Rendering:
    arguments = json.dumps(config.policy.template, sort_keys=True)
    return Rendering(arguments, date, config.prompts.system)
