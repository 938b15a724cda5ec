"""Rows out of the store, in the columns that trainers read: to a Parquet file, JSON lines, or a dataset's folder."""

from collections import Counter
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from sparring.loop.errors import ConfigError, StoreError
from sparring.loop.types import Split
from sparring.store.db import rows
from sparring.store.exchange.card import card
from sparring.store.exchange.export_sql import UNITS, UNITS_AT, query
from sparring.store.exchange.formats import Style, Text, What, unfit
from sparring.store.exchange.writing import CARD, Sink, check_target, sink, written
from sparring.store.store import DuckStore

BATCH = 20_000  # rows in memory at once


@dataclass(frozen=True)
class Wanted:
    """What to export, and how. `judge`: whose scores and comparisons; `at`: the score from which a label is true."""

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
    """What was written. `left_out`: answers without a score, where labels come from scores."""

    rows: int = 0
    left_out: int = 0
    prompts: set[str] = field(default_factory=set)
    sources: Counter[str] = field(default_factory=Counter)
    units: dict[tuple[str, int], int] = field(default_factory=dict)  # rows by run and round
    columns: tuple[str, ...] = ()


def export(store: DuckStore, wanted: Wanted) -> Exported:
    """Write what the store holds of a run, or of all runs; whole or not at all.

    Prompts of the other split are never among it. One round is read at a time, in one transaction, in batches.
    Raises ConfigError for what cannot be written so, StoreError for a run that there is not.
    """
    path = Path(wanted.to).expanduser().resolve()
    check_target(path)
    _check(wanted)
    run = _run_id(store, wanted.run)
    with store.db.read() as con:
        units = _units(con, wanted, run)
        structure = _structure(con, wanted, units)
    if not units and wanted.what == "labels" and wanted.at is None:
        raise ConfigError(
            f"{store.db.path} has no labelled answers of {run or 'any run'}; say from which score an answer is good: "
            "--at SCORE; or export pairs, which KTO trainers take apart"
        )
    sql = query(wanted.what, wanted.style, wanted.text, wanted.at, structure)
    done = Exported()
    with written(path) as partial:
        _write(store, wanted, sql, units, done, partial, path.suffix)
        if not path.suffix:
            (partial / CARD).write_text(card(store.db, wanted.what, wanted.split, done), encoding="utf-8")
    return done


def _check(wanted: Wanted) -> None:
    if why := unfit(wanted.what, wanted.style, wanted.text):
        raise ConfigError(why)
    if wanted.at is not None and wanted.what != "labels":
        raise ConfigError(f"--at {wanted.at:g} says which answers are labelled good; it goes with labels only")
    if wanted.judge is not None and (wanted.what == "pairs" or (wanted.what == "labels" and wanted.at is None)):
        raise ConfigError("--judge goes with groups, comparisons, and labels from scores (--at SCORE)")


def _run_id(store: DuckStore, name: str | None) -> str | None:
    if name is None:
        return None
    info = store.run(name)
    if info is None:
        raise StoreError(f"{store.db.path} has no run {name!r}; see: spar sql 'SELECT run_id FROM runs'")
    return info.id


def _units(con: duckdb.DuckDBPyConnection, wanted: Wanted, run: str | None) -> list[tuple[str, int]]:
    sql = UNITS_AT if wanted.what == "labels" and wanted.at is not None else UNITS[wanted.what]
    units = rows(con, f"FROM ({sql}) WHERE $run IS NULL OR run_id = $run ORDER BY run_id, round", {"run": run})
    return [(row["run_id"], row["round"]) for row in units]


def _structure(con: duckdb.DuckDBPyConnection, wanted: Wanted, units: list[tuple[str, int]]) -> str:
    """The further columns of the files of an import, where it is exported by itself: several may differ in them."""
    if wanted.what != "comparisons" or len(units) != 1:
        return "{}"
    records = rows(
        con,
        """SELECT json_group_structure(s.fields)::VARCHAR AS structure FROM source_rows s JOIN sources USING (source_id)
        WHERE run_id = ?""",
        [units[0][0]],
    )
    structure = records[0]["structure"]
    return structure if structure and structure.startswith("{") else "{}"


def _write(
    store: DuckStore, wanted: Wanted, sql: str, units: list[tuple[str, int]], done: Exported, partial: Path, suffix: str
) -> None:
    out: Sink | None = None
    try:
        for run, round in units or [("", 0)]:  # of nothing, too, there is a file with its columns
            with closing(_batches(store, sql, wanted, run, round)) as batches:
                for batch in batches:
                    kept = _tallied(batch, wanted, run, round, done)
                    if out is None:
                        out = sink(partial, suffix, wanted.split, kept.schema)
                        done.columns = tuple(kept.schema.names)
                    if kept.num_rows:  # an empty row group would stop the readers of datasets
                        out.write(kept)
    finally:
        if out is not None:
            out.close()


def _batches(store: DuckStore, sql: str, wanted: Wanted, run: str, round: int) -> Generator[pa.Table]:
    parameters = {"run": run, "round": round, "split": wanted.split, "judge": wanted.judge, "at": wanted.at}
    with store.db.read() as con:
        reader = con.sql(sql, params={k: v for k, v in parameters.items() if f"${k}" in sql}).to_arrow_reader(BATCH)
        yield pa.Table.from_batches([], reader.schema)
        for batch in reader:
            yield pa.Table.from_batches([batch])


def _tallied(batch: pa.Table, wanted: Wanted, run: str, round: int, done: Exported) -> pa.Table:
    """The rows to write, counted."""
    kept = batch.filter(batch["_kept"])
    if wanted.text == "plain" and not pc.all(kept["_single"], min_count=0).as_py():
        index = kept["_single"].to_pylist().index(False)
        raise ConfigError(
            f"{kept['_prompt'][index]} is a conversation, and not one text of a user: as plain text it would lose who "
            "said what; leave out --text plain"
        )
    done.rows += kept.num_rows
    done.left_out += batch.num_rows - kept.num_rows
    done.prompts |= set(pc.unique(kept["_prompt"]).to_pylist())
    done.sources += Counter({v["values"]: v["counts"] for v in pc.value_counts(kept["_source"]).to_pylist()})
    if kept.num_rows:
        done.units[run, round] = done.units.get((run, round), 0) + kept.num_rows
    return kept.drop_columns([name for name in kept.column_names if name.startswith("_")])
