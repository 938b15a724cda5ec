"""Between two rounds: whether the run may continue, and what a person decides: approve, reject or roll back."""

from pathlib import Path
from typing import Literal

from sparring.flows.compose.sql_plugs import broken_by_query
from sparring.flows.config import Config
from sparring.flows.run.standing import waits
from sparring.flows.supervise.run_lock import lock_run
from sparring.loop.errors import ConfigError, StepError, StoreError
from sparring.loop.stopping import first_broken
from sparring.loop.types import Checkpoint, Decision, Round, Stop, make_id
from sparring.store import history
from sparring.store.store import DuckStore

Kind = Literal["approve", "reject", "rollback"]


class Stopped(StepError):
    """A stop rule ended the run."""


def awaited(store: DuckStore, run: str, config: Config) -> str | None:
    """The decision that the next round waits for, or None. Raises Stopped when the last round broke a stop rule.

    A decision about the last round takes precedence over both.
    """
    last = store.last_round(run) if store.db.path.exists() else None
    if last is None or history.rounds_settled(store.db, run) < last.index:
        return None
    if history.decision(store.db, run, last.index) is not None:
        return None
    stop = _broken(store, last, config)
    if stop is not None:
        store.add([[stop]])
        raise Stopped(stop.message)
    if config.approve:
        return waits(run, last.index)
    return None


def _broken(store: DuckStore, rnd: Round, config: Config) -> Stop | None:
    bounds = config.stop.model_dump(exclude={"query", "rules"})
    rules = [each.entry for each in config.stop.rules]
    broken = first_broken(history.facts(store.db, rnd.run, rnd.index), bounds, rules) or broken_by_query(
        store, rnd, config.stop.query
    )
    if broken is None:
        return None
    rule, bound, (value, why) = broken
    message = (
        f"round {rnd.index} stopped the run by stop.{rule}: {why}. Continue anyway with: spar approve {rnd.run}; "
        f"without its update: spar reject {rnd.run}; from an earlier policy: spar rollback {rnd.run} --to ROUND; or "
        f"change stop.{rule} in the config and run it again"
    )
    cause = {"run": rnd.run, "round": rnd.index, "rule": rule, "bound": bound}
    return Stop(make_id("stop", **cause), rnd.run, rnd.index, rule, value, bound, message)


def decide(
    store: DuckStore, run: str | None, kind: Kind, *, to: int | None = None, reason: str = "", by: str = ""
) -> Decision:
    """Decide from which policy a run continues after its last round. Nothing is deleted; new rounds get new numbers.

    approve: as the gate said. reject: from the policy before the round. rollback: from the policy that round `to` ended
    with; a round under way is abandoned. Raises ConfigError, StoreError, or StoreBusy while the run is being played.
    """
    info = store.run(run)
    if info is None or info.kind != "loop":
        raise StoreError(f"{store.db.path} has no loop {run or 'at all'}; see: spar sql 'SELECT run_id FROM runs'")
    lock = lock_run(store.db.path.parent / "runs" / info.id)
    try:
        last = store.last_round(info.id)
        if last is None:
            raise ConfigError(
                f"{info.id} has played no round yet, so there is nothing to {kind}; play one with: spar resume"
            )
        decision = _decision(store, last, kind, _policy(store, last, kind, to), reason, by)
        store.add([[decision]])
    finally:
        lock.release()
    return decision


def _decision(store: DuckStore, last: Round, kind: Kind, policy: Checkpoint, reason: str, by: str) -> Decision:
    before = history.decision(store.db, last.run, last.index)
    number = before.number + 1 if before else 0
    decision_id = make_id("decision", run=last.run, round=last.index, number=number)
    return Decision(decision_id, last.run, last.index, number, kind, policy.id, reason, by)


def _policy(store: DuckStore, last: Round, kind: Kind, to: int | None) -> Checkpoint:
    if kind == "rollback":
        return _target(store, last, to)
    policy = history.gated(store.db, last.run, last.index)
    if policy is None:
        raise ConfigError(
            f"round {last.index} of {last.run} is not finished, so there is nothing to {kind}; finish it: spar resume "
            f"{last.run}, or abandon it: spar rollback {last.run} --to {last.index - 1}"
        )
    return policy if kind == "approve" else last.policy


def _target(store: DuckStore, last: Round, to: int | None) -> Checkpoint:
    db, settled = store.db, history.rounds_settled(store.db, last.run)
    policy = None if to is None else history.policy_after(db, last.run, to)
    if policy is None or to is None:
        raise ConfigError(f"{last.run} has no finished round {to}; expected 0 (the initial policy) to {settled}")
    if (why := history.removed(db, policy.id)) is not None or not Path(policy.path).is_dir():
        raise ConfigError(
            f"the weights of round {to}'s policy {policy.id} are not in {policy.path} any more "
            f"({why or 'no such folder'}); roll back to another round"
        )
    if to == last.index:
        raise ConfigError(
            f"round {to} is the last one of {last.run}, so its policy is current; choose an earlier round"
        )
    return policy
