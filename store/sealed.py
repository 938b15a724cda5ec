"""What SQL from outside may do: read rows of the store, one question at a time, and nothing else.

Five locks, each enough for most attacks: the connection is read-only; it has no access to other files, extensions or
networks; DuckDB's own file system is off, because what is left open otherwise are the store's own files, which COPY
would overwrite; no setting can be changed; and a statement must be a question.
"""

from pathlib import Path

import duckdb

from sparring.loop.errors import ConfigError
from sparring.store.engine import MEMORY

SEALS = (
    "SET temp_directory = ''",  # nothing is spilled beside the store: a question that needs more memory fails
    "SET enable_progress_bar = false",  # it goes to stdout, among the rows
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
    """The file, sealed: in a DuckDB of its own, because the seal is of a DuckDB and all its connections."""
    con = duckdb.connect(str(path), read_only=True, config={"memory_limit": MEMORY})
    seal(con)
    return con


def seal(con: duckdb.DuckDBPyConnection) -> None:
    """Take from an open read-only connection everything but reading its own tables; there is no way back."""
    for each in SEALS:
        con.execute(each)


def statements(sql: str) -> list[str]:
    """The single statements of a text, without the empty ones. Raises ConfigError where it is no SQL."""
    return [str(each.query).strip() for each in _parsed(sql)]


def check_question(sql: str) -> None:
    """Raises ConfigError unless `sql` is one statement, and one that asks."""
    parsed = _parsed(sql)
    if len(parsed) != 1:
        raise ConfigError(
            f"the query failed: it has {len(parsed)} statements, where one is wanted; ask them one by one, for "
            "instance in: spar shell"
        )
    if (kind := _kind(parsed[0])) not in QUESTIONS:
        raise ConfigError(
            f"the query failed: {kind} is refused, only questions are answered: SELECT, FROM, WITH, VALUES, PIVOT, "
            "DESCRIBE, SHOW, SUMMARIZE, EXPLAIN. The store is read-only here"
        )


def _parsed(sql: str) -> list[duckdb.Statement]:
    try:
        return list(duckdb.extract_statements(sql))
    except duckdb.Error as error:
        raise ConfigError(f"the query failed: {error}") from error


def _kind(statement: duckdb.Statement) -> str:
    try:
        return str(statement.type.name)
    except ValueError:  # of a kind for which DuckDB's Python has no name; none of them asks
        return "this"
