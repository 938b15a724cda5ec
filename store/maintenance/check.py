"""The check of the file itself: can every row be read, and does every rule hold?"""

import hashlib
from collections.abc import Iterator, Sequence

import duckdb

from sparring.loop.errors import StoreBusy, StoreError, StoreTooNew, StoreTooOld
from sparring.store.catalog import count, keys, read_whole, tables
from sparring.store.db import Database, migrations
from sparring.store.maintenance.finding import Finding
from sparring.store.maintenance.rules import REFERENCES, RULES, Rule

# The SHA-256 of the hashes of the nine migrations that 0009_schema.sql replaces, in their order: same schema.
NINE_FILES = "049c978c7aaab72993def22e8f1abcfedb99033b083582ed021014a00c07ac69"
REBUILD = "rebuild the file from its parts with spar store rebuild, or put a backup in its place"


def check(db: Database) -> tuple[dict[str, int], list[Finding]]:
    """Rows by table, and one finding per rule. A file that cannot be read is a finding, not an error.

    Raises StoreError if there is no store, StoreBusy, StoreTooNew and StoreTooOld.
    """
    if not db.path.exists():
        raise StoreError(f"there is no store at {db.path}; if it was lost, and its parts are there: spar store rebuild")
    try:
        with db.read() as con:
            return examine(con)
    except (StoreBusy, StoreTooNew, StoreTooOld):
        raise
    except StoreError as error:
        return {}, [Finding("the file can be opened", False, str(error), REBUILD)]


def examine(con: duckdb.DuckDBPyConnection) -> tuple[dict[str, int], list[Finding]]:
    """What `check` returns, on an open connection."""
    counts: dict[str, int] = {}
    done: list[Finding] = []
    try:
        counts |= {table: read_whole(con, table)[0] for table in tables(con)}
        done += [Finding("every row can be read", True, f"{sum(counts.values()):,} rows"), *_versions(con)]
        done += [apply(con, rule) for rule in all_rules(con)]
        done.append(_elsewhere(con))
    except duckdb.Error as error:  # after some errors no further query is possible
        done.append(Finding("every row can be read", False, f"{type(error).__name__}: {error}", REBUILD))
    return counts, done


def all_rules(con: duckdb.DuckDBPyConnection) -> Sequence[Rule]:
    primary_keys = keys(con)
    return [*(reference.rule(primary_keys[reference.table]) for reference in REFERENCES), *RULES]


def apply(con: duckdb.DuckDBPyConnection, rule: Rule) -> Finding:
    ((n, example),) = con.execute(f"SELECT count(*), min(id) FROM ({rule.sql})").fetchall()
    if n == 0:
        return Finding(rule.name, True, "holds")
    return Finding(rule.name, False, f"{n:,} rows break it, such as {example}", rule.remedy)


def _elsewhere(con: duckdb.DuckDBPyConnection) -> Finding:
    n = count(con, "judgements ANTI JOIN completions USING (completion_id)")
    return Finding("verdicts on answers from elsewhere", True, f"{n:,}, as canaries and benches keep" if n else "none")


def _versions(con: duckdb.DuckDBPyConnection) -> Iterator[Finding]:
    """Whether the file was made by the migrations that this code has."""
    expected = {number: hashlib.sha256(path.read_bytes()).hexdigest() for number, path in migrations()}
    applied = dict(con.execute("SELECT version, sha256 FROM schema_version ORDER BY version").fetchall())
    version = max(applied, default=0)
    first = "".join(sha256 for number, sha256 in applied.items() if number <= min(expected))
    if hashlib.sha256(first.encode()).hexdigest() == NINE_FILES:
        applied = {number: sha256 for number, sha256 in applied.items() if number > min(expected)}
        applied[min(expected)] = expected[min(expected)]
    other = set(expected.items()) ^ set(applied.items())
    numbers = ", ".join(str(n) for n in sorted({number for number, _ in other}))
    yield Finding(
        "the schema is that of this version",
        not other,
        f"migrations {numbers} differ" if other else f"version {version}",
        "the file was made by other code: export your rows with that code, or rebuild from the parts" * bool(other),
    )
