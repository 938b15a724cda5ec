"""The prompt of `spar shell`: SQL statements up to `;`, each in its own connection, and a few commands."""

import sqlite3
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sparring.cli.common import Format, say
from sparring.cli.results import write
from sparring.loop.errors import ConfigError, SparError
from sparring.store.reader import COLUMNS, TABLES, VIEWS, answer
from sparring.store.sealed import statements

if TYPE_CHECKING:
    from sparring.store.db import Database

PROMPT, MORE = "spar> ", "  ..> "
HELP = """SELECT ...;   a query, on one line or several
.tables       the tables and their contents
.views        the views, which answer common questions
.schema NAME  the columns of a table or view
.quit         leave; so does Ctrl-D"""
NAMES = """SELECT column_name AS name FROM duckdb_columns() WHERE NOT internal
    UNION SELECT table_name FROM duckdb_columns() WHERE NOT internal
    UNION SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved' ORDER BY name"""


class Shell:
    """An SQL shell. At a terminal it continues after an error; with a pipe or a file the first error ends it."""

    def __init__(self, db: "Database", seconds: float | None, format: Format) -> None:
        self._db = db
        self._seconds = seconds
        self._format: Format = format

    def run(self) -> None:
        if sys.stdin.isatty() and sys.stdout.isatty():
            self._talk()
            return
        for command in whole(sys.stdin):
            if command == ".quit":
                return
            self._do(command)

    def _talk(self) -> None:
        with _line_editing(self._names()):
            say(f"{self._db.path}, read-only; .help for help")
            while (command := _typed()) != ".quit":
                try:
                    self._do(command)
                except SparError as error:
                    say(str(error))
                except KeyboardInterrupt:
                    say("interrupted")

    def _do(self, command: str) -> None:
        if not command.startswith("."):
            for each in statements(command):
                self._ask(each)
            return
        name, _, of = command.rstrip(";").partition(" ")
        if name == ".help":
            say(HELP)
        elif name in (".tables", ".views"):
            self._ask(f"SELECT * EXCLUDE (columns) FROM ({TABLES if name == '.tables' else VIEWS})")
        elif name == ".schema" and of:
            self._ask(COLUMNS, name=of.strip())
        else:
            raise ConfigError(f"there is no command {command!r}; .help lists them")

    def _ask(self, sql: str, **parameters: Any) -> None:
        with answer(self._db, sql, parameters, seconds=self._seconds) as batches:
            write(batches, self._format, sys.stdout)

    def _names(self) -> list[str]:
        """What Tab completes: the names in the store, and SQL keywords."""
        with answer(self._db, NAMES, seconds=self._seconds) as batches:
            return [str(name) for name in batches.read_all()["name"].to_pylist()]


def whole(lines: Iterable[str]) -> Iterator[str]:
    """Commands (a line that begins with a dot) and statements (lines up to `;`, or to the end)."""
    waiting = ""
    for line in lines:
        waiting = (waiting + line).lstrip()
        if waiting.startswith(".") or sqlite3.complete_statement(waiting):  # it handles quotes and comments
            yield waiting.strip()
            waiting = ""
    if waiting.strip():
        yield waiting.strip()


def _typed() -> str:
    """The next command from the keyboard. Ctrl-C discards the current input, Ctrl-D leaves."""
    while True:
        try:
            return next(whole(_lines()))
        except KeyboardInterrupt:
            print()
        except StopIteration:
            return ".quit"


def _lines() -> Iterator[str]:
    prompt = PROMPT
    while True:
        try:
            yield input(prompt) + "\n"
        except EOFError:
            print()
            return
        prompt = MORE


@contextmanager
def _line_editing(names: list[str]) -> Iterator[None]:
    """Arrow keys, a saved history, and Tab completion."""
    import readline

    from platformdirs import user_state_path

    def complete(begun: str, index: int) -> str | None:
        matches = [name for name in names if name.lower().startswith(begun.lower())]
        return matches[index] if index < len(matches) else None

    history = user_state_path("sparring") / "sql_history"
    history.parent.mkdir(parents=True, exist_ok=True)
    if history.exists():
        readline.read_history_file(history)
    readline.set_completer(complete)
    readline.set_completer_delims(" \t\n,.()=<>+-*/;")
    readline.parse_and_bind("tab: complete")
    try:
        yield
    finally:
        readline.set_history_length(1_000)
        readline.write_history_file(history)
