"""How the models of a run are computed: decided on its first one before round 0, kept with the run, and used again."""

import json
from datetime import UTC, datetime
from pathlib import Path

from sparring.flows.config import Config
from sparring.loop.hardware import device
from sparring.loop.learning.checkpoint import load_model
from sparring.loop.learning.forward import Forward
from sparring.loop.learning.forward_choice import config_sha256, forward_of, settle
from sparring.loop.tokens import Rendering
from sparring.loop.types import RunModel
from sparring.store.history import run_model, started_on
from sparring.store.store import DuckStore


def settled(store: DuckStore, run: str, folder: Path, engine: str) -> RunModel:
    """As it was decided when the run began; decided now for a new run. Raises ConfigError for an unsupported model."""
    known = run_model(store.db, run) if store.db.path.exists() else None
    if known is None:
        return decided(run, folder, engine, date_of(store, run))
    settle(known.config_sha256, Forward(known.attention, known.layout, known.head))
    return known


def decided(run: str, folder: Path, engine: str, date: str) -> RunModel:
    model = load_model(folder, device())
    how = forward_of(model)
    return RunModel(run, type(model).__name__, config_sha256(model), how.attention, how.layout, how.head, engine, date)


def date_of(store: DuckStore, run: str) -> str:
    """What chat templates take for today in a run: the day on which it began, in UTC, whenever it is resumed."""
    known = run_model(store.db, run) if store.db.path.exists() else None
    began = started_on(store.db, run) if store.db.path.exists() and known is None else None
    return known.date if known else began or datetime.now(UTC).date().isoformat()


def rendering_of(config: Config, date: str) -> Rendering:
    arguments = json.dumps(config.policy.template, sort_keys=True)
    return Rendering(arguments, date, config.prompts.system)
