"""The limits on SQL from outside: it may read rows of the store, one query at a time, and nothing else.

There are five locks, and each stops most attacks. The connection is read-only. It has no access to other files,
extensions or networks. DuckDB's own file system is off, because COPY could otherwise overwrite the store's own files.
No setting can be changed. A statement must be a query.
"""

from pathlib import Path

import duckdb

from sparring.loop.errors import ConfigError
from sparring.store.engine import MEMORY

SEALS = (
    "SET temp_directory = ''",  # nothing is spilled to disk: a query that needs more memory fails
    "SET enable_progress_bar = false",  # it would be printed to stdout, into the rows
    "SET python_enable_replacements = false",  # `FROM x` never means a variable of the program
    "SET http_proxy = ''",  # DuckDB copies it, with its password, from the environment into a table of settings
    "SET http_proxy_username = ''",
    "SET http_proxy_password = ''",
    "SET enable_external_access = false",
    "SET disabled_filesystems = 'LocalFileSystem'",
    "SET lock_configuration = true",
)
# SELECT is also FROM, WITH, VALUES, DESCRIBE, SHOW and SUMMARIZE; a PIVOT that looks up its columns is MULTI.
QUESTIONS = {"SELECT", "EXPLAIN", "MULTI"}


def open_sealed(path: Path) -> duckdb.DuckDBPyConnection:
    """A sealed connection to the file, in a DuckDB instance of its own: a seal holds for all of an instance."""
    con = duckdb.connect(str(path), read_only=True, config={"memory_limit": MEMORY})
    seal(con)
    return con


def seal(con: duckdb.DuckDBPyConnection) -> None:
    """Restrict an open read-only connection to reading its own tables. This cannot be undone."""
    for each in SEALS:
        con.execute(each)


def statements(sql: str) -> list[str]:
    """The statements of a text, without empty ones. Raises ConfigError if the text is not SQL."""
    return [str(each.query).strip() for each in _parsed(sql)]


def check_question(sql: str) -> None:
    """Raises ConfigError unless `sql` is one statement, and that statement is a query."""
    parsed = _parsed(sql)
    if len(parsed) != 1:
        raise ConfigError(
            f"the query failed: it has {len(parsed)} statements, expected one; run them one by one, for example in: "
            "spar shell"
        )
    if (kind := _kind(parsed[0])) not in QUESTIONS:
        raise ConfigError(
            f"the query failed: {kind} is refused, expected a query: SELECT, FROM, WITH, VALUES, PIVOT, DESCRIBE, "
            "SHOW, SUMMARIZE, EXPLAIN. The store is read-only here"
        )


def _parsed(sql: str) -> list[duckdb.Statement]:
    try:
        return list(duckdb.extract_statements(sql))
    except duckdb.Error as error:
        raise ConfigError(f"the query failed: {error}") from error


def _kind(statement: duckdb.Statement) -> str:
    try:
        return str(statement.type.name)
    except ValueError:  # of a type for which DuckDB's Python has no name; none of them is a query
        return "this"
