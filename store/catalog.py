"""What an open database has: its tables, their keys and columns, the number of rows and a digest of them."""

import duckdb


def tables(con: duckdb.DuckDBPyConnection, database: str | None = None) -> list[str]:
    """Every table of a database, by default the current one."""
    names = con.execute(
        """SELECT table_name FROM duckdb_tables() WHERE NOT internal AND NOT temporary
        AND database_name = coalesce(?, current_database()) ORDER BY table_name""",
        [database],
    ).fetchall()
    return [name for (name,) in names]


def keys(con: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """The primary key of every table whose key is a single column."""
    columns = con.execute(
        """SELECT table_name, constraint_column_names[1] FROM duckdb_constraints()
        WHERE constraint_type = 'PRIMARY KEY' AND len(constraint_column_names) = 1
        AND database_name = current_database() AND table_name <> 'schema_version' ORDER BY table_name"""
    ).fetchall()
    return dict(columns)


def columns_of(con: duckdb.DuckDBPyConnection, source: str) -> list[str]:
    """The columns of a table, or of another source of rows in SQL."""
    return [name for name, *_ in con.execute(f"DESCRIBE FROM {source}").fetchall()]


def ids(con: duckdb.DuckDBPyConnection, sql: str) -> list[str]:
    """The values of a query with one column, sorted."""
    return sorted(id for (id,) in con.execute(sql).fetchall())


def count(con: duckdb.DuckDBPyConnection, rest: str) -> int:
    """The number of rows of `FROM rest`."""
    return int(con.execute(f"SELECT count(*) FROM {rest}").fetchall()[0][0])


def read_whole(con: duckdb.DuckDBPyConnection, table: str) -> tuple[int, int]:
    """The number of rows and a digest that does not depend on their order. Reads every block and its checksum."""
    (counted,) = con.execute(f"SELECT count(*), coalesce(sum(hash(t)::HUGEINT), 0) FROM {table} t").fetchall()
    return int(counted[0]), int(counted[1])
