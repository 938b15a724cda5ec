"""Maintenance of parts (see store.parts): are they whole, do they agree with the file; and merging of small ones."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
from pyarrow import parquet

from sparring.store.catalog import count, keys
from sparring.store.db import Database
from sparring.store.engine import quoted
from sparring.store.maintenance.finding import Finding
from sparring.store.parts import copy, new_part, parts_folder

SMALL = 64 * 2**20  # bytes below which a part is merged with others


def parts_of(folder: Path) -> dict[str, list[Path]]:
    """The parts by table, oldest first."""
    paths = sorted(folder.glob("*/*.parquet"), key=lambda path: path.name)
    return {name: [p for p in paths if p.parent.name == name] for name in sorted({p.parent.name for p in paths})}


def read(parts: Iterable[Path], options: str = "") -> str:
    """SQL for the rows of parts, whose schema versions may differ."""
    files = ", ".join(quoted(path) for path in parts)
    return f"read_parquet([{files}], union_by_name = true{options})"


def damaged(parts: Iterable[Path]) -> dict[Path, str]:
    """The parts that cannot be read completely, with the reason."""
    reasons = {}
    with duckdb.connect() as con:
        for path in parts:
            try:
                parquet.read_metadata(path)
                con.execute(f"SELECT sum(hash(t)::HUGEINT) FROM {read([path])} t").fetchall()
            except (duckdb.Error, pa.ArrowException, OSError) as error:
                reasons[path] = str(error).splitlines()[0]
    return reasons


def nowhere(table: str, key: str, parts: Sequence[Path], where: str = "TRUE") -> str:
    """SQL for the rows of the file, among those that fit `where`, that no part has in their present state."""
    mine = f'(SELECT * FROM "{table}" WHERE {where})'
    if not parts:
        return f"FROM {mine}"
    filled = "AND (t.value IS NULL OR p.value IS NOT NULL)" if table == "judgements" else ""
    return f'SELECT t.* FROM {mine} t ANTI JOIN {read(parts)} p ON t."{key}" = p."{key}" {filled}'


def complete_rest(db: Database) -> dict[str, int]:
    """Write the rows that no part has as further parts. Returns their number by table. Damaged parts do not count."""
    folder, added = parts_folder(db.path), {}
    existing = parts_of(folder)
    with db.read() as con:
        for table, key in keys(con).items():
            parts = [part for part in existing.get(table, []) if not damaged([part])]
            added[table] = write(con, nowhere(table, key, parts), folder / table)
    return {table: n for table, n in added.items() if n}


def write(con: duckdb.DuckDBPyConnection, sql: str, place: Path) -> int:
    """Write the rows of a query, if there are any, as a part. Returns their number."""
    if n := count(con, f"({sql})"):
        copy(con, sql, new_part(place))
    return n


def merge(folder: Path) -> tuple[int, int]:
    """Merge the small parts of each table. Returns the number of parts before and after. Damaged parts stay.

    A kill may leave rows in two parts. This does no harm, because a row counts once.
    """
    before = after = 0
    with duckdb.connect() as con:
        for parts in parts_of(folder).values():
            small = [p for p in parts if p.stat().st_size < SMALL]
            small = [p for p in small if not damaged([p])] if len(small) > 1 else []
            before, after = before + len(parts), after + len(parts) - max(0, len(small) - 1)
            if len(small) > 1:
                copy(con, f"FROM {read(small)}", new_part(small[0].parent, int(small[0].name[:20])))
                for path in small:
                    path.unlink()
    return before, after


def check_parts(db: Database) -> list[Finding]:
    """Findings on whether the parts are whole, and the file and its parts have the same rows."""
    folder = parts_folder(db.path)
    existing = parts_of(folder)
    everything = [path for parts in existing.values() for path in parts]
    bad = damaged(everything)
    done = [_damaged(everything, bad, folder)]
    with db.read() as con:
        for table, key in keys(con).items():
            parts = [path for path in existing.get(table, []) if path not in bad]
            done += [*_unknown(con, table, key, parts), *_lost(con, table, key, parts)]
    if not any(finding.name.startswith("rows of ") for finding in done):
        done.append(Finding("file and parts agree", True, f"{len(everything):,} parts have every row, and no other"))
    return [*done, *_left(db.path, folder)]


def _damaged(parts: Sequence[Path], bad: dict[Path, str], folder: Path) -> Finding:
    names = "; ".join(f"{path.relative_to(folder)}: {why}" for path, why in bad.items())
    remedy = "the file still has their rows: move the damaged parts away, and write the rows again with "
    remedy += "spar store compact"
    return Finding("every part can be read", not bad, names or f"{len(parts):,} parts", remedy * bool(bad))


def _unknown(con: duckdb.DuckDBPyConnection, table: str, key: str, parts: Sequence[Path]) -> list[Finding]:
    if not (n := count(con, f"({nowhere(table, key, parts)})")):
        return []
    message = f"{n:,} rows of the file are in no part, so that a rebuild needs the file for them"
    return [Finding(f"rows of {table}", True, message, "spar store compact writes them to parts")]


def _lost(con: duckdb.DuckDBPyConnection, table: str, key: str, parts: Sequence[Path]) -> list[Finding]:
    """Findings on rows that only the parts have. If the file has none of a part, its write may have been cut off."""
    if not parts:
        return []
    sql = f"""SELECT count(*) FILTER (here = 0), coalesce(sum(n) FILTER (here = 0), 0),
        coalesce(sum(n - here) FILTER (here > 0), 0) FROM (
            SELECT count(*) AS n, count(t."{key}") AS here
            FROM {read(parts, ", filename = true")} p LEFT JOIN "{table}" t ON t."{key}" = p."{key}"
            GROUP BY filename)"""
    ((cut_off, in_them, lost),) = con.execute(sql).fetchall()
    done = []
    if lost:
        message = f"{lost:,} rows of the parts are missing from the file"
        done.append(Finding(f"rows of {table}", False, message, "spar store rebuild brings them back"))
    if cut_off:
        message = f"{in_them:,} rows in {cut_off:,} parts are not in the file: their writes were cut off before the "
        message += "commit, and a rerun makes the rows again"
        done.append(Finding(f"rows of {table}", True, message, "spar store rebuild brings them in"))
    return done


def _left(path: Path, folder: Path) -> list[Finding]:
    """A finding on files that kills and rebuilds left beside the store."""
    paths = [*folder.glob("*/*.partial"), *folder.parent.glob(f"{path.stem}.damaged-*")]
    if not paths:
        return []
    size = sum(each.stat().st_size for each in paths)
    names = ", ".join(each.name for each in sorted(paths))
    return [Finding("left over", True, f"{size:,} bytes: {names}", "remove them when the store is in order")]
