"""Export of rows with the columns that trainers read, to a Parquet file, JSON lines, or a dataset's folder."""

from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from sparring.loop.errors import ConfigError, StoreError
from sparring.loop.types import Split
from sparring.store.db import named, rows
from sparring.store.exchange.card import card
from sparring.store.exchange.export_sql import UNITS, UNITS_AT, query
from sparring.store.exchange.formats import Style, Text, What, unfit
from sparring.store.exchange.writing import CARD, Sink, check_target, sink, written
from sparring.store.store import DuckStore

BATCH = 20_000  # rows in memory at once


@dataclass(frozen=True)
class Wanted:
    """What to export, and how. `judge`: whose scores and comparisons. `at`: the score from which a label is true."""

    what: What
    to: str
    run: str | None = None
    split: Split = "train"
    style: Style = "trl"
    text: Text = "chat"
    judge: str | None = None
    at: float | None = None


@dataclass
class Exported:
    """What was written. `left_out`: answers without a score, if labels come from scores."""

    rows: int = 0
    left_out: int = 0
    prompts: set[str] = field(default_factory=set)
    sources: Counter[str] = field(default_factory=Counter)
    units: dict[tuple[str, int], int] = field(default_factory=dict)  # rows by run and round
    columns: tuple[str, ...] = ()


def export(store: DuckStore, request: Wanted) -> Exported:
    """Write the rows of a run, or of all runs, completely or not at all.

    Prompts of the other split are never exported. One round is read at a time, in one transaction, in batches.
    Raises ConfigError for options that do not fit together, StoreError for an unknown run.
    """
    path = Path(request.to).expanduser().resolve()
    check_target(path)
    _check(request)
    run = _run_id(store, request.run)
    with store.db.read() as con:
        units = _units(con, request, run)
        structure = _structure(con, request, units)
    if not units and request.what == "labels" and request.at is None:
        raise ConfigError(
            f"{store.db.path} has no labelled answers of {run or 'any run'}; set the score from which an answer is "
            "good: --at SCORE; or export pairs, which KTO trainers split"
        )
    sql = query(request.what, request.style, request.text, request.at, structure)
    done = Exported()
    with written(path) as partial:
        _write(store, request, sql, units, done, partial, path.suffix)
        if not path.suffix:
            (partial / CARD).write_text(card(store.db, request.what, request.split, done), encoding="utf-8")
    return done


def _check(request: Wanted) -> None:
    if why := unfit(request.what, request.style, request.text):
        raise ConfigError(why)
    if request.at is not None and request.what != "labels":
        raise ConfigError(f"--at {request.at:g} sets which answers are labelled good; it is for labels only")
    if request.judge is not None and (request.what == "pairs" or (request.what == "labels" and request.at is None)):
        raise ConfigError("--judge is for groups, comparisons, and labels from scores (--at SCORE)")


def _run_id(store: DuckStore, name: str | None) -> str | None:
    if name is None:
        return None
    info = store.run(name)
    if info is None:
        raise StoreError(f"{store.db.path} has no run {name!r}; see: spar sql 'SELECT run_id FROM runs'")
    return info.id


def _units(con: duckdb.DuckDBPyConnection, request: Wanted, run: str | None) -> list[tuple[str, int]]:
    sql = UNITS_AT if request.what == "labels" and request.at is not None else UNITS[request.what]
    units = rows(con, f"FROM ({sql}) WHERE $run IS NULL OR run_id = $run ORDER BY run_id, round", {"run": run})
    return [(row["run_id"], row["round"]) for row in units]


def _structure(con: duckdb.DuckDBPyConnection, request: Wanted, units: list[tuple[str, int]]) -> str:
    """The further columns of an import's files, if it is exported alone: several imports may differ in them."""
    if request.what != "comparisons" or len(units) != 1:
        return "{}"
    sql = """SELECT json_group_structure(s.fields)::VARCHAR FROM source_rows s JOIN sources USING (source_id)
        WHERE run_id = ?"""
    ((structure,),) = con.execute(sql, [units[0][0]]).fetchall()
    return structure if structure and structure.startswith("{") else "{}"


def _write(
    store: DuckStore, request: Wanted, sql: str, units: Sequence[tuple[str, int]], done: Exported, to: Path, suffix: str
) -> None:
    with ExitStack() as opened:
        out: Sink | None = None
        for run, round in units or [("", 0)]:  # an export without rows is a file with its columns
            with closing(_batches(store, sql, request, run, round)) as batches:
                for batch in batches:
                    kept = _tallied(batch, request, run, round, done)
                    if out is None:
                        out = opened.enter_context(closing(sink(to, suffix, request.split, kept.schema)))
                        done.columns = tuple(kept.schema.names)
                    if kept.num_rows:  # `datasets` cannot read an empty row group
                        out.write_table(kept)


def _batches(store: DuckStore, sql: str, request: Wanted, run: str, round: int) -> Generator[pa.Table]:
    parameters = {"run": run, "round": round, "split": request.split, "judge": request.judge, "at": request.at}
    with store.db.read() as con:
        reader = con.sql(sql, params=named(sql, parameters)).to_arrow_reader(BATCH)
        yield pa.Table.from_batches([], reader.schema)
        for batch in reader:
            yield pa.Table.from_batches([batch])


def _tallied(batch: pa.Table, request: Wanted, run: str, round: int, done: Exported) -> pa.Table:
    """The rows to write, counted."""
    kept = batch.filter(batch["_kept"])
    if request.text == "plain" and not pc.all(kept["_single"], min_count=0).as_py():
        index = kept["_single"].to_pylist().index(False)
        raise ConfigError(
            f"{kept['_prompt'][index]} is a conversation, and not one text of a user: plain text would lose the roles; "
            "leave out --text plain"
        )
    done.rows += kept.num_rows
    done.left_out += batch.num_rows - kept.num_rows
    done.prompts |= set(pc.unique(kept["_prompt"]).to_pylist())
    done.sources += Counter({v["values"]: v["counts"] for v in pc.value_counts(kept["_source"]).to_pylist()})
    if kept.num_rows:
        done.units[run, round] = done.units.get((run, round), 0) + kept.num_rows
    return kept.drop_columns([name for name in kept.column_names if name.startswith("_")])
