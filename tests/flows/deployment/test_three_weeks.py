"""Three weeks of nightly runs, by the clock of the schedule that `spar deploy --cron` makes, with tiny parts."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psutil
import pytest

from sparring.flows.run.decisions import Stopped, decide
from sparring.flows.run.rounds import operate, rounds_done
from sparring.flows.supervise.run_lock import is_locked, lock_run
from sparring.loop.errors import StepError
from sparring.loop.fakes import FakeSampler
from sparring.loop.types import Prompt, Round
from sparring.store.db import rows
from sparring.store.store import DuckStore
from tests.helpers.scripted_loop import MEBIBYTE, RUN, Scripted, WritingLearner, make_loop

pytestmark = pytest.mark.slow

NIGHTS, KEPT = 21, 3
BERLIN = ZoneInfo("Europe/Berlin")
SUNDAY = datetime(2026, 10, 11, 12, tzinfo=BERLIN)  # the clocks go back in the second week


def nights() -> list[datetime]:
    """When `--cron "0 2 * * *" --timezone Europe/Berlin` starts a run, as Prefect's scheduler works it out."""
    import asyncio

    from prefect.client.schemas.schedules import CronSchedule

    schedule = CronSchedule(cron="0 2 * * *", timezone="Europe/Berlin")
    from prefect.server.schemas.schedules import CronSchedule as Scheduler

    found = asyncio.run(Scheduler(**schedule.model_dump(exclude_unset=True)).get_dates(NIGHTS, start=SUNDAY))
    return [moment.astimezone(BERLIN) for moment in found]


class Unlucky(Scripted):
    """Raises `error` in the middle of the night's sampling."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def sample(self, rnd: Round, prompts: list[Prompt]) -> Any:
        for chunk in FakeSampler.sample(self, rnd, prompts):
            yield chunk
            raise self.error


def play_night(folder: Path, sampler: FakeSampler | None = None, **settings: Any) -> None:
    """What one scheduled run does: a loop from what the store has, the next round, everything closed."""
    learner = WritingLearner(folder / "runs" / RUN, size=MEBIBYTE)
    loop = make_loop(folder, sampler=sampler, learner=learner, keep={"checkpoints": KEPT}, **settings)
    lock = lock_run(folder / "runs" / RUN)
    try:
        operate(loop, rounds_done(loop.store, RUN) + 1)
    finally:
        loop.close()
        lock.release()


def weigh(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.timeout(240)
def test_three_weeks_of_nights(tmp_path: Path) -> None:
    me, store = psutil.Process(), DuckStore(tmp_path / "preferences.duckdb")
    handles: list[tuple[int, int]] = []
    disk: list[int] = []
    moments = nights()
    assert [(moment.date(), moment.hour) for moment in moments] == [
        (SUNDAY.date() + timedelta(days=1 + i), 2) for i in range(NIGHTS)
    ]
    for night, _ in enumerate(moments, start=1):
        if night == 4:  # a fault, then the power
            with pytest.raises(StepError):
                play_night(tmp_path, Unlucky(StepError("the engine fell over")))
        elif night == 5:
            with pytest.raises(KeyboardInterrupt):
                play_night(tmp_path, Unlucky(KeyboardInterrupt()))
        elif night == 9:  # a rule stops a round that did badly, and the next night changes nothing
            with pytest.raises(Stopped):
                play_night(tmp_path, Scripted(lambda rnd, i: 60), stop={"length_growth": 5})
        elif night == 10:
            with pytest.raises(Stopped):
                play_night(tmp_path, stop={"length_growth": 5})
            decide(store, RUN, "rollback", to=rounds_done(store, RUN) - 1, reason="morning of the tenth")
        else:
            play_night(tmp_path)
        assert not is_locked(tmp_path / "runs" / RUN)
        handles.append((me.num_fds(), len(me.children(recursive=True))))
        disk.append(weigh(tmp_path / "runs"))
    # 21 nights: two were lost to faults (their round was finished by the next one), one changed nothing.
    assert rounds_done(store, RUN) == NIGHTS - 3
    with store.db.read() as con:
        played = rows(con, "SELECT count(*) AS n, count(DISTINCT round) AS rounds FROM rounds")[0]
        pairs = rows(con, "SELECT count(*) AS n FROM pairs WHERE run_id = ? AND round = 4", [RUN])[0]["n"]
    assert played == {"n": NIGHTS - 3, "rounds": NIGHTS - 3}
    assert pairs > 0  # of the round that two nights began
    kept = list((tmp_path / "runs" / RUN).glob("round-*"))
    assert KEPT <= len(kept) <= KEPT + 3  # the newest; the best; before and after the last round
    assert max(disk) < (KEPT + 3) * 1.1 * MEBIBYTE
    assert handles[-1] == handles[1]
    left = {path.name for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".parquet"}
    assert left - {"model.safetensors"} == {
        "preferences.duckdb", "preferences.duckdb.lock", "preferences.read.duckdb", "run.lock",
    }  # fmt: skip
    assert all(path.parts[-3] == "preferences.parts" for path in tmp_path.rglob("*.parquet"))
    # What is stored grows with what is made: a night's rows, not a night's reopening of the file.
    assert (tmp_path / "preferences.duckdb").stat().st_size < 32 * MEBIBYTE
