"""`spar status`, `show` and `lineage`: views of the store, also while a run is live."""

from collections import defaultdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparring.cli.common import AsJson, Run, Store, find_run, open_store, print_json, say
from sparring.cli.reward import RESULTS, held_out
from sparring.cli.tables import print_rows
from sparring.loop.errors import StoreError

if TYPE_CHECKING:
    from sparring.loop.types import RunInfo
    from sparring.store.store import DuckStore


def status(run: Run = None, store: Store = None, as_json: AsJson = False) -> None:
    """Show the rounds, the counts of each step, what is missing, and the last error."""
    opened = open_store(store)
    info = find_run(opened, run)
    kinds = {"reward": (_reward_state, _print_reward), "import": (_import_state, _print_import)}
    state_of, show = kinds.get(info.kind, (_state, _print_state))
    state = state_of(opened, info)
    if as_json:
        print_json(state)
    else:
        show(state)


def _print_state(state: dict[str, Any]) -> None:
    live = f", {state['live']}" if state["live"] else ""
    done = f"{state['rounds_done']} of {state['rounds_wanted']} rounds done"
    print(f"{state['run_id']}: {done}; {state['missing'] or 'complete'}{live}")
    learned = ["examples"] if any(row["examples"] for row in state["rounds"]) else ["pairs"]
    why = ["ties", "identical", "abstained", *(["filtered"] if any(r["filtered"] for r in state["rounds"]) else [])]
    columns = ["round", "prompts", "completions", "judged", *learned, *why, "failed"]
    print_rows(state["rounds"], [*columns, "pass_rate", "win_rate", "accepted"])
    for each in state["decisions"]:
        reason = f" ({each['reason']})" if each["reason"] else ""
        decided = f"{each['kind']} by {each['decided_by']}, continues from {each['policy_id']}"
        print(f"after round {each['round']}: {decided}{reason}")
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
        "last_error": error.read_text(encoding="utf-8").strip() if error.exists() else None,
        "rounds": rounds,
    }


def _reward_state(store: "DuckStore", info: "RunInfo") -> dict[str, Any]:
    """Whether a reward model is trained, and its results on held-out pairs."""
    path, measured = held_out(store, info.id)
    return {"run_id": info.id, "complete": path is not None, "model": path, "held_out": measured}


def _print_reward(state: dict[str, Any]) -> None:
    trained = f"trained, in {state['model']}" if state["complete"] else "not trained yet: spar reward train"
    print(f"{state['run_id']}: {trained}")
    print_rows(state["held_out"], RESULTS)


def _import_state(store: "DuckStore", info: "RunInfo") -> dict[str, Any]:
    """The imported files, and how many of their rows are in the store."""
    from sparring.store.db import rows

    with store.db.read() as con:
        sql = """SELECT path, source, licence, shape, split, rows, refused,
            (SELECT count(*) FROM source_rows r WHERE r.source_id = s.source_id) AS imported
        FROM sources s WHERE run_id = ? ORDER BY path"""
        files = rows(con, sql, [info.id])
    complete = bool(files) and all(file["imported"] == file["rows"] for file in files)
    return {"run_id": info.id, "complete": complete, "files": files}


def _print_import(state: dict[str, Any]) -> None:
    rest = "" if state["complete"] else " that was interrupted: the same spar import finishes it"
    print(f"{state['run_id']} is an import{rest}")
    columns = ("path", "source", "licence", "shape", "split", "rows", "imported", "refused")
    print_rows(state["files"], columns)


def show(id: Annotated[str, typer.Argument(help="The id of any row.")], store: Store = None) -> None:
    """Print the row with this id, of any table, as JSON."""
    from sparring.store.db import rows
    from sparring.store.records import TABLES

    db = open_store(store).db
    with db.read() as con:
        queries = ((name, f"SELECT * FROM {name} WHERE {columns[0][0]} = ?") for name, columns in TABLES.values())
        row = next(({"table": name, **each} for name, sql in queries for each in rows(con, sql, [id])), None)
    if row is None:
        raise StoreError(f"{db.path} has no row {id!r}; ids look like completion_1a2b..., list some with: spar sql")
    print_json(row)


def lineage(
    id: Annotated[str, typer.Argument(help="The id of any row.")],
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of rows of each kind to follow from one row.")] = 10,
    everything: Annotated[bool, typer.Option("--all", help="Leave nothing out, and follow every checkpoint.")] = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Show everything that caused a row, and everything that it led to."""
    from sparring.store.lineage import history

    with open_store(store).db.read() as con:
        walk = history(con, id, None if everything else limit)
    if as_json:
        print_json({"id": id, **{name: value for name, value in vars(walk).items() if value is not None}})
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
