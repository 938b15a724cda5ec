"""What programs and notebooks call: run a config, and ask the store what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparring.flows.config import Config, parse_config, read_config
from sparring.store import open as open_store

if TYPE_CHECKING:
    from sparring.store.reader import Rows


@dataclass(frozen=True)
class RunResult:
    """Where a run stands. `waiting` says which decision of a person it waits for; None where it does not."""

    run_id: str
    store: Path
    rounds: int
    policy: Path
    waiting: str | None = None

    def sql(self, query: str) -> "Rows":
        """The rows of a question to the store, which may hold other runs too. Read-only."""
        return open_store(self.store).sql(query)


def run(config: Config | Mapping[str, Any] | str | Path, *, quiet: bool = False) -> RunResult:
    """Play the rounds of a config that the store does not have, without Prefect; calling it again resumes.

    config: a Config, the values of one, or a YAML file. A judge, loss, builder or filter may stand in it as a Python
    object. quiet: no progress on stderr. Raises ConfigError or DataError before a model loads, and StepError where a
    round fails; what was stored before is kept.
    """
    from sparring.cli.progress import Display
    from sparring.flows.compose.build import prepare
    from sparring.flows.run.decisions import awaited
    from sparring.flows.run.rounds import rounds_done
    from sparring.flows.run.self_play import Silent, run_bare
    from sparring.store.history import policy_after, rounds_settled

    if isinstance(config, str | Path):
        config = read_config(config)
    elif not isinstance(config, Config):
        config = parse_config(config, "the config")
    ready = prepare(config)
    store, run_id = ready.store, ready.info.id
    waiting = awaited(store, run_id, config)
    if waiting is None and not store.complete(run_id, config.rounds):
        if quiet:
            waiting = run_bare(ready, Silent()).waiting
        else:
            with Display(store, run_id, config.rounds) as display:
                waiting = run_bare(ready, display).waiting
    policy = policy_after(store.db, run_id, rounds_settled(store.db, run_id))
    assert policy is not None  # round 0 measured it
    return RunResult(run_id, store.db.path, rounds_done(store, run_id), Path(policy.path), waiting)
