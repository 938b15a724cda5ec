"""`spar status`, `sql`, `show` and `lineage`: looking at the store, also while a run is live."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.common import STORE, Format, Run, Store, say
from loop.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from loop.types import RunInfo
    from store.store import DuckStore


def register(app: typer.Typer) -> None:
    for command in (status, sql, show, lineage):
        app.command()(command)


def status(
    run: Run = None,
    store: Store = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Rounds, counts of each step, what is missing, and the last error."""
    from flows.cli.tables import print_rows, summaries
    from store.store import DuckStore

    found = DuckStore(store or STORE)
    info = found.run(run)
    if info is None:
        raise StoreError(f"{found.db.path} has no run {run or 'at all'}; start one with: spar run CONFIG")
    if info.config.get("kind") == "reward":
        _reward_status(found, info.id, as_json)
        return
    state = _state(found, info, summaries(found, info.id))
    if as_json:
        print(json.dumps(state, ensure_ascii=False, indent=2, default=str))
        return
    print(
        f"{info.id}: {state['rounds_done']} of {state['rounds_wanted']} rounds done; "
        + (state["missing"] or "complete")
        + (f", {state['live']}" if state["live"] else "")
    )
    made = ["examples"] if any(row["examples"] for row in state["rounds"]) else ["pairs"]
    why = ["ties", "identical", "abstained", *(["filtered"] if any(r["filtered"] for r in state["rounds"]) else [])]
    columns = ["round", "prompts", "completions", "judged", *made, *why, "failed"]
    print_rows(state["rounds"], [*columns, "pass_rate", "win_rate", "accepted"], "table")
    for decision in state["decisions"]:
        print(
            f"after round {decision['round']}: {decision['kind']} by {decision['decided_by']}, goes on from "
            f"{decision['policy_id']}" + (f" ({decision['reason']})" if decision["reason"] else "")
        )
    for name in ("waiting", "stop", "last_error"):
        if state[name]:
            say(f"{name.replace('_', ' ')}: {state[name]}")


def _state(store: "DuckStore", info: "RunInfo", rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """What happened to a run, and what is missing."""
    from flows.decisions import waits
    from flows.holding import held
    from flows.operate import error_file, rounds_done
    from store import history
    from store.db import rows

    wanted, done = info.config["rounds"], rounds_done(store, info.id)
    error = error_file(store, info.id)
    with store.db.read() as con:
        sql = """SELECT * EXCLUDE (run_id) REPLACE (decided_at::VARCHAR AS decided_at) FROM decisions
        WHERE run_id = ? ORDER BY round, number"""
        decisions = rows(con, sql, [info.id])
    last = store.last_round(info.id)
    open_question = last is not None and last.index == done and all(d["round"] != done for d in decisions)
    stop = history.stop(store.db, info.id, done) if open_question else None
    asks = open_question and bool(info.config.get("approve"))
    return {
        "run_id": info.id,
        "store": str(store.db.path),
        "rounds_done": done,
        "rounds_wanted": max(wanted, done),
        "complete": store.complete(info.id, wanted),
        "missing": _missing(rounds, wanted, done),
        "live": "being played now" if held(store.db.path.parent / "runs" / info.id) else None,
        "waiting": waits(info.id, done) if asks else None,
        "stop": stop.message if stop else None,
        "decisions": decisions,
        "last_error": error.read_text().strip() if error.exists() else None,
        "rounds": rounds,
    }


def _reward_status(store: "DuckStore", run_id: str, as_json: bool) -> None:
    """A reward model's training: done or not, and how it did on held-out pairs."""
    from flows.cli.tables import print_rows
    from store.db import rows

    checkpoint = store.checkpoint_of(run_id)
    with store.db.read() as con:
        sql = "SELECT metric, e.value, low, high, n FROM evaluations e WHERE run_id = ? ORDER BY metric"
        measured = rows(con, sql, [run_id])
    if as_json:
        path = checkpoint.path if checkpoint else None
        print(json.dumps({"run_id": run_id, "complete": checkpoint is not None, "model": path, "held_out": measured}))
        return
    print(f"{run_id}: " + (f"trained, in {checkpoint.path}" if checkpoint else "not trained yet: spar reward train"))
    print_rows(measured, ["metric", "value", "low", "high", "n"], "table")


def _missing(rounds: list[dict[str, Any]], wanted: int, done: int) -> str | None:
    """The first step that has something left to do, in the order of loop/round.py."""
    if not rounds:
        return "round 0 has yet to measure the initial policy"
    last = rounds[-1]
    if last["round"] <= done and (last["accepted"] is not None or last["round"] > 0):
        return None if last["round"] >= wanted else f"round {last['round'] + 1} has yet to start"
    steps = {
        "sampling": last["completions"],
        "judging": last["judged"],
        "pairing": last["paired"],
        "learning": last["loss"],
    }
    return f"round {last['round']} has " + (
        ", ".join(f"no {step}" for step, value in steps.items() if value is None) or "no evaluation"
    )


def sql(
    query: Annotated[str, typer.Argument(help="SQL, read-only.")],
    store: Store = None,
    format: Annotated[Format, typer.Option(help="How rows are printed.")] = "table",
) -> None:
    """Ask the store in SQL. Read-only: it cannot write, attach, or read other files."""
    import duckdb

    from flows.cli.tables import distinct, print_rows
    from store.db import Database, table

    try:
        with Database(store or STORE).read(sealed=True) as con:
            found = table(con, query)
    except duckdb.Error as error:
        raise ConfigError(f"the query failed: {error}") from error
    found = found.rename_columns(distinct(found.column_names))
    print_rows(found.to_pylist(), found.column_names, format)


def show(id: Annotated[str, typer.Argument(help="The id of any row.")], store: Store = None) -> None:
    """Print a row of any table, named by its id, as JSON."""
    print(json.dumps(_row(store, id), ensure_ascii=False, indent=2, default=str))


def lineage(
    id: Annotated[str, typer.Argument(help="The id of any row.")],
    store: Store = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Walk from a row to everything that caused it, and to everything that came of it."""
    from store.db import Database
    from store.lineage import walk

    with Database(store or STORE).read() as con:
        causes, effects = walk(con, id, "causes"), walk(con, id, "effects")
    if not causes and not effects:
        _row(store, id)  # raises when there is no such row
    if as_json:
        print(json.dumps({"id": id, "causes": causes, "effects": effects}, indent=2))
        return
    for title, edges in (("caused by", causes), ("led to", effects)):
        print(f"{id} {title}:" if edges else f"{id} {title}: nothing")
        for edge in edges:
            print("  " * edge["depth"] + f"{edge['kind']} {edge['id']}")


def _row(store: str | None, id: str) -> dict[str, Any]:
    from store.db import Database, rows
    from store.records import TABLES

    path = Path(store or STORE)
    with Database(path).read() as con:
        for name, columns in TABLES.values():
            found = rows(con, f"SELECT * FROM {name} WHERE {columns[0][0]} = ?", [id])
            if found:
                return {"table": name, **found[0]}
    raise StoreError(f"{path} has no row {id!r}; ids look like completion_1a2b..., list some with: spar sql")
