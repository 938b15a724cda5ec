"""SQL queries as parts of a run: which answers are paired, which prompts come next, when to stop.

A query is checked before the run, and runs sealed. Its parameters are $run, the run's id, $round, the number of the
round, and $judge, the judge by whose answers that round is paired. It may leave out any of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import duckdb

from sparring.loop.errors import ConfigError, StepError
from sparring.store.db import Database, migrate, rows
from sparring.store.sealed import check_question, seal

PARAMETERS = ("run", "round", "judge")


@dataclass(frozen=True)
class Plug:
    """The columns that a query must return, and those that it may return, with their types."""

    key: str  # of the config
    needed: Mapping[str, str]
    optional: Mapping[str, str] = field(default_factory=dict)


PAIRS = Plug(
    "pair.query",
    {"chosen_id": "VARCHAR", "rejected_id": "VARCHAR"},
    {"p_chosen": "DOUBLE", "margin": "DOUBLE", "weight": "DOUBLE", "reference_sample_id": "VARCHAR"},
)
PROMPTS = Plug("prompts.query", {"prompt_id": "VARCHAR"})
STOP = Plug("stop.query", {"found": "DOUBLE", "bound": "DOUBLE", "message": "VARCHAR"})
NUMBERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL"}


def check_query(sql: str, plug: Plug) -> None:
    """Try a query on an empty store. Raises ConfigError if it is not a query, fails, or returns other columns."""
    try:
        check_question(sql)
        with duckdb.connect() as con:
            migrate(con)
            seal(con)
            described = con.execute(f"DESCRIBE {sql}", _named(sql, dict.fromkeys(PARAMETERS))).fetchall()
    except (duckdb.Error, ConfigError) as error:
        raise ConfigError(f"{plug.key}: {error}") from error
    columns = {str(name): str(kind) for name, kind, *_ in described}
    allowed = {**plug.needed, **plug.optional}
    if missing := sorted(plug.needed.keys() - columns.keys()):
        raise ConfigError(
            f"{plug.key} returns {_listed(columns)}, without {', '.join(missing)}; expected {_listed(plug.needed)}"
        )
    if unknown := sorted(columns.keys() - allowed.keys()):
        raise ConfigError(
            f"{plug.key} also returns {', '.join(unknown)}; expected only {_listed(allowed)}: leave out the rest"
        )
    for name, kind in columns.items():
        if not _fits(kind, allowed[name]):
            raise ConfigError(f"{plug.key}: {name} is {kind}; expected {allowed[name]}: cast it")


def ask_query(db: Database, sql: str, plug: Plug, **parameters: Any) -> list[dict[str, Any]]:
    """The rows of a checked query, with every column of the plug. Optional columns may be None.

    Raises StepError if the query fails, or a required value is NULL.
    """
    with db.read(sealed=True) as con:
        try:
            records = rows(con, sql, _named(sql, parameters))
        except duckdb.Error as error:
            raise StepError(f"{plug.key} failed: {error}") from error
    for row, name in product(records, plug.needed):
        if row[name] is None:
            raise StepError(f"{plug.key} returns a row whose {name} is NULL ({row}); leave out such rows with WHERE")
    return [dict.fromkeys(plug.optional) | row for row in records]


def _named(sql: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that the query names. DuckDB accepts no others."""
    (statement,) = duckdb.extract_statements(sql)
    if unknown := sorted(statement.named_parameters - set(PARAMETERS)):
        known = ", ".join(f"${name}" for name in PARAMETERS)
        raise ConfigError(f"${unknown[0]} is not a parameter; expected one of {known}")
    return {name: parameters[name] for name in statement.named_parameters}


def _fits(kind: str, expected: str) -> bool:
    return kind == expected or (expected == "DOUBLE" and kind.partition("(")[0] in NUMBERS)


def _listed(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in columns.items())
