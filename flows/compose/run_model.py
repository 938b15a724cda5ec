"""How the models of a run are computed: decided on its first one before round 0, kept with the run, and used again."""

from pathlib import Path

from sparring.loop.hardware import device
from sparring.loop.learning.checkpoint import load_model
from sparring.loop.learning.forward import Forward
from sparring.loop.learning.forward_choice import config_sha256, forward_of, settle
from sparring.loop.types import Checkpoint, RunModel
from sparring.store.history import run_model
from sparring.store.store import DuckStore


def settled(store: DuckStore, run: str, initial: Checkpoint, engine: str) -> RunModel:
    """As it was decided when the run began; decided now for a new run. Raises ConfigError for an unsupported model."""
    known = run_model(store.db, run) if store.db.path.exists() else None
    if known is not None:
        settle(known.config_sha256, Forward(known.attention, known.layout, known.head))
        return known
    return decided(run, Path(initial.path), engine)


def decided(run: str, folder: Path, engine: str) -> RunModel:
    model = load_model(folder, device())
    how = forward_of(model)
    return RunModel(run, type(model).__name__, config_sha256(model), how.attention, how.layout, how.head, engine)
