"""The data of a report as plain dicts and lists, which `spar report --json` prints."""

import json
from collections.abc import Sequence
from math import isfinite
from typing import Any

from sparring.loop.errors import StoreError
from sparring.loop.evaluator import wilson
from sparring.report import report_sql as queries
from sparring.report.status import policy_now, status
from sparring.store.db import rows
from sparring.store.store import DuckStore

POINTS = 300  # per curve over optimizer steps
CHARACTERS = 20_000  # shown per text

Row = dict[str, Any]


def find_runs(store: DuckStore, names: Sequence[str]) -> list[str]:
    """Ids of the runs with these names or ids, each once; the latest run by default. Raises StoreError."""
    by_name = {name: store.run(name) for name in (names or (None,))}
    if missing := [name for name, info in by_name.items() if info is None]:
        raise StoreError(
            f"{store.db.path} has no run {', '.join(map(str, filter(None, missing))) or 'at all'}; list them with: "
            "spar sql 'SELECT run_id, name FROM runs', or start one with: spar run CONFIG"
        )
    return list(dict.fromkeys(info.id for info in by_name.values() if info is not None))


def report_data(store: DuckStore, run_ids: Sequence[str], pairs: int = 12) -> Row:
    """`{"runs": [one dict per run, in the order given], "pairs": [pairs to read]}`, from one snapshot of the store.

    Non-finite numbers are None. Raises StoreError for a run that the store does not have.
    """
    runs = find_runs(store, run_ids)
    parameters = {"runs": runs}
    with store.db.read() as con:
        heads = {row["run_id"]: row for row in rows(con, queries.RUNS, parameters)}
        own = {"steps": {"points": POINTS}}
        parts = {name: rows(con, sql, parameters | own.get(name, {})) for name, sql in queries.PARTS.items()}
        parts["position"] = _shares(rows(con, queries.POSITION, parameters), "both_first", "both_second")
        compared = len({row["judge"] for row in parts["judges"]}) > 1
        verdicts = rows(con, queries.AGREEMENT, parameters) if compared else []
        parts["agreement"] = _shares(verdicts, "agreed", "opposed")
        sampled = rows(con, queries.PAIRS, parameters | {"pairs": pairs, "characters": CHARACTERS})
    data = [_run(heads[run], {name: _of(run, part) for name, part in parts.items()}) for run in runs]
    report: Row = _finite({"runs": data, "pairs": [_pair(row) for row in sampled]})
    return report


def measured(run: Row, metric: str) -> list[Row]:
    """The evaluations of one metric, by round."""
    return [row for row in run["metrics"] if row["metric"] == metric]


def _of(run: str, part: Sequence[Row]) -> list[Row]:
    return [{key: value for key, value in row.items() if key != "run_id"} for row in part if row["run_id"] == run]


def _run(head: Row, parts: dict[str, list[Row]]) -> Row:
    config = json.loads(head["config"])
    run = head | {"config": config, "versions": json.loads(head["versions"])} | parts
    return run | {"status": status(run), "policy": policy_now(run)}


def _shares(duels: Sequence[Row], *names: str) -> list[Row]:
    return [row | {name: _share(row[name], row["duels"]) for name in names} for row in duels]


def _share(count: int, n: int) -> Row:
    low, high = wilson(count / n, n)
    return {"count": count, "value": count / n, "low": low, "high": high}


def _pair(row: Row) -> Row:
    texts = [(m["role"], m["content"]) for m in json.loads(row.pop("messages"))]
    return row | {"prompt": [{"role": role, "text": t[:CHARACTERS], "length": len(t)} for role, t in texts]}


def _finite(value: Any) -> Any:
    """The value with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value
