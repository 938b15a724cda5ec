"""A damaged or lost file comes back from its parts, and says what does not."""

import shutil
from pathlib import Path

import duckdb
import pytest

from sparring.loop.errors import StoreError
from sparring.store.db import Database
from sparring.store.maintenance.check import check
from sparring.store.maintenance.parts import check_parts, parts_of
from sparring.store.maintenance.rebuild import rebuild
from sparring.store.parts import parts_folder
from sparring.store.publish import publish, read_copy
from sparring.store.store import DuckStore
from tests.helpers.records import completion, filled_store, judgement, prompt
from tests.helpers.store_files import Rows, rows_of


def without_times(rows: Rows) -> Rows:
    """What migrations note about themselves is of another day."""
    return {name: found for name, found in rows.items() if name != "schema_version"}


def overwrite(path: Path, share: float, n: int = 4096) -> None:
    """Noise in the middle of a file."""
    with path.open("r+b") as file:
        file.seek(int(path.stat().st_size * share))
        file.write(b"\xa5" * n)


def test_a_lost_file_comes_back_row_for_row(tmp_path: Path) -> None:
    filled = filled_store(tmp_path / "a.duckdb")
    store, answer = filled.store, completion(filled.second, filled.train[0])
    store.add([[judgement(answer, None, "slow")], [judgement(answer, 0.5, "slow")], [judgement(answer, None, "never")]])
    before = rows_of(store.db.path)
    store.db.path.unlink()
    done = rebuild(store.db)
    assert without_times(rows_of(store.db.path)) == without_times(before)
    assert (done.rows["judgements"], done.salvaged, done.kept) == (18, {}, None)
    assert done.unread == [f"{store.db.path} is gone, and with it the rows that no part had"]
    assert store.add([[judgement(answer, 1.0, "never")]]) == 1  # keys and rules are there again
    assert [f for f in [*check(store.db)[1], *check_parts(store.db)] if not f.ok] == []


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
def test_a_damaged_file_comes_back_row_for_row(tmp_path: Path, share: float) -> None:
    store = filled_store(tmp_path / "a.duckdb").store
    before = rows_of(store.db.path)
    overwrite(store.db.path, share, 300_000)
    damaged = store.db.path.read_bytes()
    done = rebuild(DuckStore(store.db.path).db)
    assert without_times(rows_of(store.db.path)) == without_times(before)
    assert done.kept is not None and Path(done.kept).read_bytes() == damaged
    assert Path(done.kept).name.startswith("a.damaged-")
    assert [f.name for f in check_parts(store.db) if f.remedy] == ["left over"]


def test_check_finds_a_file_that_was_cut_or_overwritten(tmp_path: Path) -> None:
    path = filled_store(tmp_path / "a.duckdb").store.db.path
    whole, told = path.read_bytes(), []
    for name, bytes_ in (("cut", whole[: len(whole) // 2]), ("noise", whole[:12288] + b"\xa5" * (len(whole) - 12288))):
        other = tmp_path / f"{name}.duckdb"
        other.write_bytes(bytes_)
        told += [finding for finding in check(Database(other))[1] if not finding.ok]
    assert len(told) == 2
    assert all("spar store rebuild" in finding.remedy for finding in told)


def test_rows_that_no_part_has_are_saved_from_the_old_file(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "a.duckdb").store
    before = rows_of(store.db.path)
    with store.db.write() as con:
        con.execute("CREATE TABLE notes AS SELECT 'mine' AS note")  # somebody's own
    shutil.rmtree(parts_folder(store.db.path))  # as of a store from before there were parts
    done = rebuild(store.db)
    after = rows_of(store.db.path)
    assert after.pop("notes") == [("mine",)]
    assert without_times(after) == without_times(before)
    assert done.salvaged == {name: len(rows) for name, rows in without_times(before).items() if rows} | {"notes": 1}
    assert done.unread == []
    store.db.path.unlink()  # and now the parts have them
    rebuild(store.db)
    assert rows_of(store.db.path)["completions"] == before["completions"]


@pytest.mark.slow
def test_of_a_table_that_is_damaged_the_readable_stretches_are_saved(tmp_path: Path) -> None:
    store = DuckStore(tmp_path / "a.duckdb")
    store.add([[prompt("Hello?")]])
    with store.db.write() as con:  # three stretches of rows in no part
        con.execute(
            """INSERT INTO judgements SELECT 'judgement_' || i, 'j', 'c' || i, NULL, '', '', 0, random(), '', 'answered'
            FROM range(300_000) t(i)"""
        )
    with duckdb.connect(str(store.db.path), read_only=True) as con:
        size = con.execute("SELECT block_size FROM pragma_database_size()").fetchall()[0][0]
        (block,) = con.execute(
            """SELECT block_id FROM pragma_storage_info('judgements')
            WHERE column_name = 'value' AND segment_type = 'DOUBLE' AND row_group_id = 1 AND persistent
            ORDER BY segment_id LIMIT 1"""
        ).fetchall()[0]
    with store.db.path.open("r+b") as file:
        file.seek(3 * 4096 + block * size + size // 2)
        file.write(b"\xa5" * 64)
    assert [f.name for f in check(store.db)[1] if not f.ok] == ["every row can be read"]
    done = rebuild(store.db)
    (why,) = done.unread
    assert why.startswith("judgements, rows 122,880 to 245,760: ")
    assert done.salvaged == {"judgements": 300_000 - 122_880}
    assert done.rows["judgements"] == 300_000 - 122_880
    assert done.rows["prompts"] == 1


def test_a_damaged_part_is_named_and_left_out_only_when_asked(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "a.duckdb").store
    store.add([[prompt("Hello?")]])
    first, second = parts_of(parts_folder(store.db.path))["prompts"]
    before = rows_of(store.db.path)
    cut = second.read_bytes()[:-9]
    second.write_bytes(cut)
    overwrite(first, 0.3, 40)
    with pytest.raises(StoreError, match=r"2 parts are damaged:(?s:.*)--skip-damaged") as error:
        rebuild(store.db)
    assert first.name in str(error.value) and second.name in str(error.value)
    assert not list(tmp_path.glob("a.damaged*"))
    done = rebuild(store.db, skip_damaged=True)  # the file is whole, and gives what they had
    assert without_times(rows_of(store.db.path)) == without_times(before)
    assert (sorted(done.without), done.salvaged) == (sorted([str(first), str(second)]), {"prompts": 6})
    assert second.read_bytes() == cut  # and they are left where they are


def test_nothing_at_all_is_an_error_and_a_read_copy_follows(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"neither a store at .* nor its parts"):
        rebuild(Database(tmp_path / "none.duckdb"))
    assert list(tmp_path.iterdir()) == []
    store = filled_store(tmp_path / "a.duckdb").store
    publish(store.db)
    overwrite(store.db.path, 0.5, 300_000)
    rebuild(DuckStore(store.db.path).db)
    with duckdb.connect(str(read_copy(store.db.path)), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM completions").fetchall() == [(16,)]


def test_parts_of_a_newer_version_are_refused_and_the_file_stays(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "a.duckdb").store
    place = parts_folder(store.db.path) / "judges"
    place.mkdir()
    duckdb.execute(f"COPY (SELECT 'j' AS judge, 1 AS later) TO '{place / 'x.parquet'}'")
    before = store.db.path.read_bytes()
    with pytest.raises(StoreError, match=r"has columns that this sparring does not know: later; install"):
        rebuild(store.db)
    assert store.db.path.read_bytes() == before


def test_what_was_forgotten_does_not_come_back_from_old_parts(tmp_path: Path) -> None:
    filled = filled_store(tmp_path / "a.duckdb")
    gone = filled.train[0].id
    with filled.store.db.write() as con:  # as a kill in the middle of forgetting leaves it: the tombstone is there
        con.execute("INSERT INTO forgotten VALUES (?, '', 'me', now(), '{}', [], [], [])", [gone])
    done = rebuild(filled.store.db)
    assert (done.rows["prompts"], done.rows["forgotten"]) == (4, 1)
    assert done.rows["completions"] == 16 - 4
    assert [f for f in check(filled.store.db)[1] if not f.ok] == []
