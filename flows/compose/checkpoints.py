"""Which checkpoint is meant: an id in the store, a model's folder, or a hub id."""

from dataclasses import replace
from pathlib import Path

from sparring.flows.config import Config
from sparring.loop.errors import ConfigError, DataError, StoreError
from sparring.loop.types import Checkpoint, RunInfo, make_id
from sparring.store import history
from sparring.store.store import DuckStore

LIST = "spar sql 'SELECT checkpoint_id, run_id, path FROM checkpoints'"


def named_checkpoint(store: DuckStore, name: str) -> Checkpoint:
    """The checkpoint of that id, or a model from outside, with no `id` and no `run`. Raises DataError, StoreError."""
    known = history.checkpoint(store.db, name) if store.db.path.exists() else None
    if known is not None:
        return known
    if name.startswith("checkpoint_") and not Path(name).exists():
        raise StoreError(f"{store.db.path} has no checkpoint {name}; list those it has with: {LIST}")
    return replace(model_checkpoint("", name), id="")


def model_checkpoint(run: str, model: str) -> Checkpoint:
    """A model's folder or hub id as a checkpoint of a run. Raises DataError or EnvironmentProblem."""
    from sparring.loop.learning.checkpoint import weights_sha256
    from sparring.loop.models import resolve_model

    folder = resolve_model(model)
    weights = weights_sha256(folder)
    return Checkpoint(make_id("checkpoint", run=run, weights=weights), run, str(folder), None, weights)


def policy_folder(model: str, store: DuckStore) -> str:
    """A model's folder or hub id, as given; `run:NAME` is the folder of the policy that a run of the store ended with.

    Raises ConfigError for a run that the store does not have, or that has no policy yet.
    """
    name = run_named(model)
    if name is None:
        return model
    run = store.run(name) if store.db.path.exists() else None
    policy = history.policy_after(store.db, run.id, history.rounds_settled(store.db, run.id)) if run else None
    if policy is None:
        raise ConfigError(f"{model} is the policy of a run, and {store.db.path} has no played run {name!r}")
    return policy.path


def run_named(model: str) -> str | None:
    """NAME of `run:NAME`; None for a model's folder or hub id."""
    kind, found, name = model.partition(":")
    return name if found and kind == "run" else None


def stored_run(store: DuckStore, name: str) -> RunInfo:
    """The run of that name or id. Raises StoreError when the store has none."""
    info = store.run(name)
    if info is None:
        raise StoreError(f"{store.db.path} has no run {name!r}; see: spar sql 'SELECT run_id FROM runs'")
    return info


def current_policy(store: DuckStore, config: Config, run: RunInfo | None) -> Checkpoint:
    """The policy that the last finished round of the config's run ended with. Raises StoreError when there is none."""
    found = history.policy_after(store.db, run.id, history.rounds_settled(store.db, run.id)) if run else None
    if found is None:
        raise StoreError(
            f"{store.db.path} has no finished round of a run {config.name!r}; play one with: spar run CONFIG, or say "
            "which model to measure with: --checkpoint ID, FOLDER or HUB_ID"
        )
    return found


def initial_policy(store: DuckStore, config: Config, run: RunInfo | None) -> Checkpoint:
    """What the config's run started from, or would start from."""
    found = history.policy_after(store.db, run.id, 0) if run else None
    return found or named_checkpoint(store, config.policy.model)


def loop_of(store: DuckStore, config: Config) -> RunInfo | None:
    """The run of that name, also where it was started with another config: other prompts may be what is measured."""
    found = store.run(config.name) if store.db.path.exists() else None
    return found if found is not None and found.kind == "loop" else None


def refuse_unusable(store: DuckStore, checkpoint: Checkpoint) -> None:
    """Raise DataError unless the files of a checkpoint are there, and hold the weights that the store names."""
    why = history.removed(store.db, checkpoint.id) if store.db.path.exists() else None
    if why is not None:
        raise DataError(
            f"the files of {checkpoint.id} were removed ({why}); measure one that is there, see: "
            "spar sql 'SELECT checkpoint_id, path FROM checkpoints ANTI JOIN removals USING (checkpoint_id)'"
        )
    from sparring.loop.learning.checkpoint import weights_sha256

    on_disk = weights_sha256(Path(checkpoint.path))
    if on_disk != checkpoint.weights_sha256:
        raise DataError(
            f"{checkpoint.path} holds other weights than {checkpoint.id}: sha256 {on_disk[:12]}, expected "
            f"{checkpoint.weights_sha256[:12]}; restore them, or measure what is there now by its folder"
        )
