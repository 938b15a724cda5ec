"""Short, locked connections to the one DuckDB file.

A connection lasts for one transaction: lock, open, work, commit, close, unlock. Other processes can therefore read and
write the file while a run is live. DuckDB loses its own lock when any code of the same process opens and closes the
file (POSIX fcntl). So only DuckDB touches the file, and a separate lock file beside it protects it.
"""

import hashlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from filelock import FileLock, Timeout

from sparring.loop.errors import StoreBusy, StoreError, StoreTooNew, StoreTooOld
from sparring.store.engine import attach, detach
from sparring.store.parts import complete, parts_folder
from sparring.store.sealed import open_sealed

FULL_DISK = (duckdb.IOException, duckdb.TransactionException, duckdb.FatalException)  # it raises any of them
MIGRATIONS = Path(__file__).parent / "migrations"


class Database:
    """The file at `path`. `wait` is how many seconds to wait for another process before StoreBusy."""

    def __init__(self, path: str | Path, *, wait: float = 60.0) -> None:
        self.path = Path(path).expanduser().resolve()
        self.wait = wait
        self._lock = FileLock(str(self.path) + ".lock", timeout=wait)
        self._migrated = self._prepared = False

    @contextmanager
    def write(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """One transaction, which is committed at the end of the block and rolled back if the block raises."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.locked():
            self._refuse_lost()
            with self.connection(read_only=False) as con:
                if not self._prepared:
                    self._prepare(con)
                con.execute("BEGIN")
                yield con
                con.execute("COMMIT")

    @contextmanager
    def read(self, *, sealed: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """A read-only connection. `sealed` also denies access to files, extensions and settings: see store.sealed."""
        if not self.path.exists():
            self._refuse_lost()
            raise StoreError(f"there is no store at {self.path}; give --store PATH, or start one with: spar run CONFIG")
        if not self._migrated:
            self._upgrade()
        with self.locked(), self.connection(read_only=True, sealed=sealed) as con:
            check_version(con)
            yield con

    def rows(self, sql: str, parameters: "Parameters" = None) -> list[dict[str, Any]]:
        """The rows of one query, in a connection of its own."""
        with self.read() as con:
            return rows(con, sql, parameters)

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Hold the lock, with nothing left in the write-ahead log, so that the file can be copied."""
        with self.locked():
            if self.path.with_name(f"{self.path.name}.wal").exists():  # the last writer was killed
                with self.connection(read_only=False) as con:
                    con.execute("CHECKPOINT")
            yield

    def _refuse_lost(self) -> None:
        parts = parts_folder(self.path)
        if not self.path.exists() and parts.exists():
            raise StoreError(
                f"{self.path} is gone, but its parts in {parts} are there; rebuild it from them: spar store rebuild, "
                f"or remove {parts} to start an empty store"
            )

    def _prepare(self, con: duckdb.DuckDBPyConnection) -> None:
        has_rows = version_of(con) > 0
        migrate(con)
        folder = parts_folder(self.path)
        if has_rows and not folder.exists():
            complete(con, folder)
        self._prepared = self._migrated = True

    def _upgrade(self) -> None:
        """Migrate a file that an older version wrote, so that queries find the tables they name.

        Parts are left to the first write, because a read copy has none.
        """
        with self.locked():
            with self.connection(read_only=True) as con:
                current = check_version(con) == migrations()[-1][0]
            if not current:
                with self.connection(read_only=False) as con:
                    migrate(con)
        self._migrated = True

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock file, so that no other sparring process has the store open. Raises StoreBusy."""
        self._acquire()
        try:
            yield
        finally:
            self._lock.release()

    def _acquire(self) -> None:
        # A file lock has no queue. The longer a process has waited, the more often it tries, so that none starves.
        began = time.monotonic()
        while True:
            try:
                self._lock.acquire(timeout=0)
                return
            except Timeout as error:
                waited = time.monotonic() - began
                if waited > self.wait:
                    lock = self._lock.lock_file
                    raise StoreBusy(
                        f"another process has held {lock} for over {self.wait:g} s; wait for it to finish, or find it "
                        f"with: fuser {lock}"
                    ) from error
                time.sleep(max(0.002, 0.02 / (1 + 10 * waited)))

    @contextmanager
    def connection(self, *, read_only: bool, sealed: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection without lock or migrations, for use inside `locked`."""
        con = self._open(read_only=read_only, sealed=sealed)
        try:
            yield con
        except FULL_DISK as error:
            raise StoreError(
                f"the store {self.path} could not be read or written ({error}); check free space with: df -h "
                f"{self.path.parent}. What was committed before is safe"
            ) from error
        except duckdb.Error as error:
            if "corrupt" not in str(error).lower():
                raise
            message = f"{self.path} is damaged ({error}); rebuild it from its parts: spar store rebuild"
            raise StoreError(message) from error
        finally:
            con.close() if sealed else detach(con)

    def _open(self, *, read_only: bool, sealed: bool) -> duckdb.DuckDBPyConnection:
        # A program that does not take our lock, such as a SQL shell, may have it open: try until `wait` has passed.
        deadline = time.monotonic() + self.wait
        while True:
            try:
                return open_sealed(self.path) if sealed else attach(self.path, read_only=read_only)
            except duckdb.Error as error:
                if not any(sign in str(error).lower() for sign in ("could not set lock", "already attached")):
                    raise StoreError(
                        f"{self.path} cannot be opened as a DuckDB file: {error}; if it is damaged, rebuild it from "
                        "its parts: spar store rebuild"
                    ) from error
                if time.monotonic() > deadline:
                    raise in_use(self.path, error) from error
                time.sleep(0.05)


def in_use(path: Path, error: duckdb.Error) -> StoreBusy:
    return StoreBusy(f"another program has {path} open; close it and try again ({error})")


def migrations() -> list[tuple[int, Path]]:
    return sorted((int(path.name[:4]), path) for path in MIGRATIONS.glob("[0-9][0-9][0-9][0-9]_*.sql"))


def version_of(con: duckdb.DuckDBPyConnection) -> int:
    try:  # every connection runs this, and a query of the catalog would take ten times as long
        return int(con.execute("SELECT coalesce(max(version), 0) FROM schema_version").fetchall()[0][0])
    except duckdb.CatalogException:
        return 0


def check_version(con: duckdb.DuckDBPyConnection) -> int:
    """The schema version of the file, 0 for a new file. Raises StoreTooNew, StoreTooOld."""
    version, numbers = version_of(con), [number for number, _ in migrations()]
    if version > numbers[-1]:
        raise StoreTooNew(
            f"the store has schema version {version}, this sparring knows up to {numbers[-1]}; install the newer one "
            "that wrote it"
        )
    if 0 < version < numbers[0]:
        raise StoreTooOld(
            f"the store has schema version {version}, this sparring opens version {numbers[0]} or later; open it once "
            f"with commit d957747 of the sparring repository, which brings it to version {numbers[0]}"
        )
    return version


VERSIONS = """CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY, name VARCHAR NOT NULL,
    sha256 VARCHAR NOT NULL, applied_at TIMESTAMPTZ NOT NULL DEFAULT now())"""


def migrate(con: duckdb.DuckDBPyConnection) -> None:
    """Apply the numbered SQL files that the store does not have yet, each in one transaction."""
    version = check_version(con)
    todo = [(number, path) for number, path in migrations() if number > version]
    for number, path in todo:
        sql = path.read_text(encoding="utf-8")
        applied = [number, path.stem, hashlib.sha256(sql.encode()).hexdigest()]
        con.execute("BEGIN")
        con.execute(VERSIONS)
        con.execute(sql)
        con.execute("INSERT INTO schema_version (version, name, sha256) VALUES (?, ?, ?)", applied)
        con.execute("COMMIT")
    if todo:
        con.execute("CHECKPOINT")  # a crash can corrupt schema changes that are left in the write-ahead log


Parameters = Sequence[Any] | Mapping[str, Any] | None


def named(sql: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that `sql` names. DuckDB accepts no others."""
    return {name: parameters[name] for name in set(re.findall(r"\$(\w+)", sql))}


def rows(con: duckdb.DuckDBPyConnection, sql: str, parameters: Parameters = None) -> list[dict[str, Any]]:
    return list(table(con, sql, parameters).to_pylist())


def table(con: duckdb.DuckDBPyConnection, sql: str, parameters: Parameters = None) -> pa.Table:
    relation = con.sql(sql, params=parameters)
    return pa.table({}) if relation is None else relation.to_arrow_table()  # None: a statement without rows
