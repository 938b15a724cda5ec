"""Killed before any step on the file system, care leaves the old state or the new one; the same call finishes it."""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sparring.store.db import Database
from sparring.store.maintenance.copies import backup, compact
from sparring.store.maintenance.forget import forget
from sparring.store.maintenance.parts import complete_rest, merge
from sparring.store.maintenance.rebuild import rebuild
from sparring.store.parts import parts_folder
from sparring.store.store import DuckStore
from tests.helpers.forks import FORKS
from tests.helpers.records import checkpoint, completion, judgement, prompt, round_of
from tests.helpers.store_files import Rows, files_with, rows_of

pytestmark = pytest.mark.slow

STEPS = ("os.rename", "os.remove", "os.link", "shutil.rmtree", "subprocess.Popen")
SECRET = "Vantongerloo-Quist"
GONE, STAYS = prompt(SECRET), prompt("Name a bird.")
EACH = 8  # one step in so many; 1 for all of them takes a minute or two


def compact_all(path: Path) -> None:
    complete_rest(Database(path))
    merge(parts_folder(path))
    compact(Database(path))


def back_up(path: Path) -> None:
    backup(Database(path), path.with_name("kept.duckdb"))


def make_anew(path: Path) -> None:
    rebuild(Database(path))


def forget_it(path: Path) -> None:
    forget(Database(path), [GONE.id], "", "me")


def run_until(work: Callable[[Path], None], path: Path, left: int) -> None:
    """Kill this process before its step number `left` on the file system."""
    remaining = iter(range(left))

    def on_chunk(event: str, arguments: Any) -> None:
        if event in STEPS and next(remaining, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(on_chunk)
    work(path)


def killed(work: Callable[[Path], None], whole: Path, folder: Path) -> Iterator[Path]:
    """A copy of the store for a step, as a kill before that step left it."""
    for step in range(0, 100, EACH):
        place = folder / str(step)
        shutil.copytree(whole, place)
        process = FORKS.Process(target=run_until, args=(work, place / "a.duckdb", step))
        process.start()
        process.join(60)
        if process.exitcode == 0:
            assert step > 1
            return
        assert process.exitcode == -signal.SIGKILL
        yield place / "a.duckdb"
        shutil.rmtree(place)
    raise AssertionError("it never ends")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rows]:
    """A folder with a small store of several parts, and its rows."""
    folder = tmp_path_factory.mktemp("whole")
    store, initial = DuckStore(folder / "a.duckdb"), checkpoint("initial")
    rnd = round_of(1, initial, initial, [GONE, STAYS])
    answers = [completion(rnd, GONE, 0, text=SECRET), completion(rnd, STAYS)]
    store.add([[GONE, answers[0], judgement(answers[0], 1.0)], [STAYS, answers[1]], [initial]])
    return folder, rows_of(store.db.path)


def same(path: Path, rows: Rows) -> bool:
    found = rows_of(path)
    return {k: v for k, v in found.items() if k != "schema_version"} == {
        k: v for k, v in rows.items() if k != "schema_version"
    }


def test_compact(whole: tuple[Path, Rows], tmp_path: Path) -> None:
    for path in killed(compact_all, whole[0], tmp_path):
        assert same(path, whole[1])
        compact_all(path)
        assert same(path, whole[1])


def test_backup(whole: tuple[Path, Rows], tmp_path: Path) -> None:
    for path in killed(back_up, whole[0], tmp_path):
        assert same(path, whole[1])
        kept = path.with_name("kept.duckdb")
        assert not kept.exists() or same(kept, whole[1])
        kept.unlink(missing_ok=True)
        back_up(path)
        assert same(kept, whole[1])


@pytest.mark.parametrize("how", ["overwritten", "lost"])
def test_rebuild(whole: tuple[Path, Rows], tmp_path: Path, how: str) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(whole[0], damaged)
    file = damaged / "a.duckdb"
    noise = file.read_bytes()[:4096] + b"\xa5" * 100_000
    if how == "overwritten":
        file.write_bytes(noise)
        file.with_name("a.duckdb.wal").write_bytes(b"of the damaged file")
    else:
        file.unlink()
    for path in killed(make_anew, damaged, tmp_path / "killed"):
        old = path.read_bytes() == noise if how == "overwritten" else not path.exists()
        logged = path.with_name("a.duckdb.wal").exists()
        assert old or (not logged and same(path, whole[1]))
        make_anew(path)
        assert same(path, whole[1])
        kept = list(path.parent.glob("a.damaged-*.duckdb"))
        assert how == "lost" or noise in [each.read_bytes() for each in kept]


def test_forget(whole: tuple[Path, Rows], tmp_path: Path) -> None:
    states = set()
    for path in killed(forget_it, whole[0], tmp_path):
        found = rows_of(path)
        counts = tuple(len(found[name]) for name in ("prompts", "completions", "judgements", "forgotten"))
        assert counts in ((2, 2, 1, 0), (1, 1, 0, 1))
        states.add(counts)
        forget_it(path)
        assert files_with(path.parent, (SECRET,)) == set()
    assert len(states) == 2
