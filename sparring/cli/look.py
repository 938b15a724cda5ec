"""`spar status`, `show` and `lineage`: views of the store, also while a run is live."""

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparring.cli.common import Run, Store, say
from sparring.loop.errors import StoreError
from sparring.store import DEFAULT_PATH

if TYPE_CHECKING:
    from sparring.loop.types import RunInfo
    from sparring.store.store import DuckStore


def register(app: typer.Typer) -> None:
    for command in (status, show, lineage):
        app.command()(command)


def status(
    run: Run = None,
    store: Store = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Show the rounds, the counts of each step, what is missing, and the last error."""
    from sparring.cli.tables import print_rows
    from sparring.store.store import DuckStore

    opened = DuckStore(store or DEFAULT_PATH)
    info = opened.run(run)
    if info is None:
        raise StoreError(f"{opened.db.path} has no run {run or 'at all'}; start one with: spar run CONFIG")
    if info.kind == "reward":
        _reward_status(opened, info.id, as_json)
        return
    if info.kind == "import":
        _import_status(opened, info.id, as_json)
        return
    state = _state(opened, info)
    if as_json:
        print(json.dumps(state, ensure_ascii=False, indent=2, default=str))
        return
    print(
        f"{info.id}: {state['rounds_done']} of {state['rounds_wanted']} rounds done; "
        + (state["missing"] or "complete")
        + (f", {state['live']}" if state["live"] else "")
    )
    learned = ["examples"] if any(row["examples"] for row in state["rounds"]) else ["pairs"]
    why = ["ties", "identical", "abstained", *(["filtered"] if any(r["filtered"] for r in state["rounds"]) else [])]
    columns = ["round", "prompts", "completions", "judged", *learned, *why, "failed"]
    print_rows(state["rounds"], [*columns, "pass_rate", "win_rate", "accepted"], "table")
    for decision in state["decisions"]:
        print(
            f"after round {decision['round']}: {decision['kind']} by {decision['decided_by']}, continues from "
            f"{decision['policy_id']}" + (f" ({decision['reason']})" if decision["reason"] else "")
        )
    for name in ("waiting", "stop", "last_error"):
        if state[name]:
            say(f"{name.replace('_', ' ')}: {state[name]}")


def _state(store: "DuckStore", info: "RunInfo") -> dict[str, Any]:
    """What happened to a run, and what is missing."""
    from sparring.flows.run.rounds import error_file
    from sparring.flows.run.standing import decisions_and_stops, standing, summaries
    from sparring.flows.supervise.run_lock import is_locked

    rounds, (decisions, stops) = summaries(store, info.id), decisions_and_stops(store, info.id)
    at, error = standing(info.id, info.config, rounds, decisions, stops), error_file(store, info.id)
    return {
        "run_id": info.id,
        "store": str(store.db.path),
        "rounds_done": at.done,
        "rounds_wanted": at.planned,
        "complete": at.done >= info.config["rounds"],
        "missing": at.missing,
        "live": "being played now" if is_locked(store.db.path.parent / "runs" / info.id) else None,
        "waiting": at.waiting,
        "stop": at.stop,
        "decisions": decisions,
        "last_error": error.read_text().strip() if error.exists() else None,
        "rounds": rounds,
    }


def _reward_status(store: "DuckStore", run_id: str, as_json: bool) -> None:
    """Whether a reward model is trained, and its results on held-out pairs."""
    from sparring.cli.tables import print_rows
    from sparring.store.db import rows

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


def _import_status(store: "DuckStore", run_id: str, as_json: bool) -> None:
    """The imported files, and how many of their rows are in the store."""
    from sparring.cli.tables import print_rows
    from sparring.store.db import rows

    with store.db.read() as con:
        sql = """SELECT path, source, licence, shape, split, rows, refused,
            (SELECT count(*) FROM source_rows r WHERE r.source_id = s.source_id) AS imported
        FROM sources s WHERE run_id = ? ORDER BY path"""
        files = rows(con, sql, [run_id])
    complete = bool(files) and all(file["imported"] == file["rows"] for file in files)
    if as_json:
        print(json.dumps({"run_id": run_id, "complete": complete, "files": files}, ensure_ascii=False, indent=2))
        return
    print(f"{run_id} is an import" + ("" if complete else " that was interrupted: the same spar import finishes it"))
    print_rows(files, ["path", "source", "licence", "shape", "split", "rows", "imported", "refused"], "table")


def show(id: Annotated[str, typer.Argument(help="The id of any row.")], store: Store = None) -> None:
    """Print the row with this id, of any table, as JSON."""
    print(json.dumps(_row(store, id), ensure_ascii=False, indent=2, default=str))


def lineage(
    id: Annotated[str, typer.Argument(help="The id of any row.")],
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of rows of each kind to follow from one row.")] = 10,
    everything: Annotated[bool, typer.Option("--all", help="Leave nothing out, and follow every checkpoint.")] = False,
    store: Store = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Show everything that caused a row, and everything that it led to."""
    from sparring.store.db import Database
    from sparring.store.lineage import history

    with Database(store or DEFAULT_PATH).read() as con:
        walk = history(con, id, None if everything else limit)
    if as_json:
        values = {name: value for name, value in vars(walk).items() if value is not None}
        print(json.dumps({"id": id, **values}, ensure_ascii=False, indent=2))
        return
    for update in walk.updates or ():
        _print_update(update)
    for title, steps in (("caused by", walk.causes), ("led to", walk.effects)):
        print(f"{id} {title}:" if steps else f"{id} {title}: nothing")
        _print_tree(id, steps)


def _print_tree(root: str, steps: list[dict[str, Any]]) -> None:
    """Print each row below the row that it was reached from."""
    below = defaultdict(list)
    for step in steps:
        below[step["of"]].append(step)
    todo: list[dict[str, Any] | str] = [*reversed(below[root])]
    while todo:
        match todo.pop():
            case str(note):
                print(note)
            case step:
                indent, role = "  " * step["depth"], "" if step["role"] == step["kind"] else f" ({step['role']})"
                print(f"{indent}{step['kind']} {step['id']}{role}" + (f"  {step['label']}" if step["label"] else ""))
                if step["left_out"]:  # printed after what the last one led to
                    todo.append(f"{indent}... and {step['left_out']} more: --limit, or --all")
                todo += reversed(below[step["id"]])


def _print_update(update: dict[str, Any]) -> None:
    versions = ", ".join(f"{name} {version}" for name, version in update["versions"].items())
    print(
        f"round {update['round']} of {update['run_id']}: {update['algorithm']} on {update['rows_learned']} rows of "
        f"{len(update['prompt_ids'])} prompts, judged by {update['judge'] or '(not recorded)'}, against "
        f"{', '.join(update['reference_ids']) or 'no reference'}; config {update['config_sha256'][:12]}; {versions}"
    )


def _row(store: str | None, id: str) -> dict[str, Any]:
    from sparring.store.db import Database, rows
    from sparring.store.records import TABLES

    path = Path(store or DEFAULT_PATH)
    with Database(path).read() as con:
        for name, columns in TABLES.values():
            matches = rows(con, f"SELECT * FROM {name} WHERE {columns[0][0]} = ?", [id])
            if matches:
                return {"table": name, **matches[0]}
    raise StoreError(f"{path} has no row {id!r}; ids look like completion_1a2b..., list some with: spar sql")
