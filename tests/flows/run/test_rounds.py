"""A loop in operation: stopped by rules, waiting for people, rolled back, tidy. Fakes for the models, a real store."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sparring.flows.compose.build import Loop
from sparring.flows.run.decisions import Stopped, decide
from sparring.flows.run.rounds import error_file, operate, rounds_done
from sparring.loop.errors import ConfigError, StepError, StoreBusy
from sparring.loop.fakes import FakeSampler
from sparring.loop.types import Prompt, Round
from sparring.store import history
from sparring.store.db import rows
from sparring.store.lineage import walk
from tests.helpers import scripted_loop as operating
from tests.helpers.kept_store import KeptStore
from tests.helpers.scripted_loop import INITIAL, MEBIBYTE, RUN, Dying, Scripted, WritingLearner

STORES: dict[Path, KeptStore] = {}


@pytest.fixture(autouse=True)
def closing_stores() -> Iterator[None]:
    yield
    while STORES:
        STORES.popitem()[1].close()


def make_loop(folder: Path, **given: Any) -> Loop:
    """A loop as a process begins it, but in a file that stays open: opening it took most of a test."""
    if folder not in STORES:
        STORES[folder] = KeptStore(folder / "preferences.duckdb")
    return operating.make_loop(folder, store=STORES[folder], **given)


def ask(loop: Loop, sql: str) -> list[dict[str, Any]]:
    with loop.store.db.read() as con:
        return rows(con, sql)


@pytest.mark.slow
def test_a_falling_win_rate_stops_the_run_and_names_number_and_bound(tmp_path: Path) -> None:
    sampler = Scripted(
        lambda rnd, i: (6, 7, 5, 1)[rnd.index]
    )  # scores are length / 6, at most 1: round 1 ties, 2 loses
    loop = make_loop(tmp_path, sampler=sampler, stop={"win_rate": 0.45})
    # Eight losses of eight: Wilson's upper bound is z^2 / (8 + z^2) = 0.324.
    with pytest.raises(
        Stopped, match=r"round 2 stopped the run by stop.win_rate: the win rate is 0.000 \[0.000, 0.324\], a"
    ):
        operate(loop, 3)
    assert rounds_done(loop.store, RUN) == 2
    stop = history.stop(loop.store.db, RUN, 2)
    assert stop is not None and (stop.rule, stop.found, stop.bound) == ("win_rate", 0.0, 0.45)
    assert "stop.win_rate" in error_file(loop.store, RUN).read_text()
    with pytest.raises(Stopped):  # the next night says the same, and plays nothing
        operate(make_loop(tmp_path, sampler=sampler, stop={"win_rate": 0.45}), 3)
    assert rounds_done(loop.store, RUN) == 2
    operate(make_loop(tmp_path, sampler=Scripted(), stop={"win_rate": None}), 3)  # the bound is lifted
    assert rounds_done(loop.store, RUN) == 3
    assert not error_file(loop.store, RUN).exists()


def test_exploding_length_stops_the_run(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, sampler=Scripted(lambda rnd, i: 4 * 3**rnd.index), stop={"length_growth": 4})
    with pytest.raises(
        Stopped, match=r"stop.length_growth: held-out answers have grown 7.4 times as long \(5 to 37 tok"
    ):
        operate(loop, 3)
    assert rounds_done(loop.store, RUN) == 2


def test_a_dying_judge_stops_the_run(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, judge=Dying(since=2, share=0.5), stop={"abstained": 0.4})
    with pytest.raises(
        Stopped, match=r"round 2 .*stop.abstained: the judge left 50.0% of the train prompts .*above 40.0%"
    ):
        operate(loop, 3)


def test_collapse_of_the_chosen_stops_the_run(tmp_path: Path) -> None:
    learner = WritingLearner(tmp_path / "runs" / RUN, fall=12.0)
    with pytest.raises(
        Stopped, match=r"round 1 .*stop.chosen_fall: .* fallen 12 nats below the reference, more than 5"
    ):
        operate(make_loop(tmp_path, learner=learner, stop={"chosen_fall": 5}), 3)


def test_a_round_waits_for_a_person_and_resumes_as_decided(tmp_path: Path) -> None:
    first = operate(make_loop(tmp_path, approve=True), 3)
    assert first.waiting == f"round 1 of {RUN} awaits a decision: spar approve {RUN}, or spar reject {RUN}"
    again = operate(make_loop(tmp_path, approve=True), 3)  # nobody has decided: nothing is played
    store = make_loop(tmp_path).store
    assert again.waiting == first.waiting and rounds_done(store, RUN) == 1
    candidate = history.gated(store.db, RUN, 1)
    made = decide(store, RUN, "approve", by="ann")
    assert candidate is not None and (made.policy_id, made.decided_by) == (candidate.id, "ann")
    second = operate(make_loop(tmp_path, approve=True), 3)
    assert second.waiting is not None and second.waiting.startswith("round 2")
    decide(store, RUN, "reject", reason="it rambles")
    operate(make_loop(tmp_path, approve=True), 3)
    played = ask(make_loop(tmp_path), "SELECT round, policy_id FROM rounds ORDER BY round")
    assert [row["policy_id"] for row in played] == [INITIAL.id, candidate.id, candidate.id]  # 3 goes on from 2's policy


def test_a_decision_may_be_revised_until_the_next_round_starts(tmp_path: Path) -> None:
    loop = make_loop(tmp_path)
    operate(loop, 1)
    decide(loop.store, None, "reject")
    revised = decide(loop.store, None, "approve")
    assert revised.number == 1
    operate(make_loop(tmp_path), 2)
    assert ask(loop, "SELECT policy_id FROM rounds WHERE round = 2") == [{"policy_id": revised.policy_id}]


@pytest.mark.slow
def test_a_rollback_keeps_both_branches_and_the_lineage_right(tmp_path: Path) -> None:
    loop = make_loop(tmp_path)
    operate(loop, 3)
    before = {name: ask(loop, f"SELECT * FROM {name} ORDER BY ALL") for name in ("rounds", "completions", "updates")}
    made = decide(loop.store, RUN, "rollback", to=1, reason="round 2 went wrong")
    older = history.policy_after(loop.store.db, RUN, 1)
    assert older is not None and made.policy_id == older.id
    ended = operate(make_loop(tmp_path), 5)
    assert ended.next.index == 6
    for name, kept in before.items():  # nothing of the first branch is gone or changed
        assert [row for row in ask(loop, f"SELECT * FROM {name} ORDER BY ALL") if row["round"] <= 3] == kept
    played = {row["round"]: row for row in ask(loop, "FROM rounds")}
    assert played[4]["policy_id"] == older.id and played[4]["initial_id"] == INITIAL.id
    made_by = {row["round"]: row["after_id"] for row in ask(loop, "FROM updates")}
    assert len(set(made_by.values())) == 5
    with loop.store.db.read() as con:
        causes = {edge["id"] for edge in walk(con, made_by[5], "causes", None)}
        effects = {edge["id"] for edge in walk(con, older.id, "effects", None)}
    assert {made_by[4], made_by[1], INITIAL.id} <= causes
    assert not {made_by[2], made_by[3]} & causes  # the branch that was left did not shape this one
    assert {made_by[2], made_by[3], made_by[4], made_by[5], made.id} <= effects
    parents = {row["checkpoint_id"]: row["parent_id"] for row in ask(loop, "FROM checkpoints")}
    assert (parents[made_by[2]], parents[made_by[4]]) == (older.id, older.id)


class Failing(FakeSampler):
    """Stops after its first chunk in one round."""

    def __init__(self, index: int) -> None:
        super().__init__({"train": 4, "eval": 1})
        self.index = index

    def sample(self, rnd: Round, prompts: list[Prompt]) -> Any:
        for chunk in super().sample(rnd, prompts):
            yield chunk
            if rnd.index == self.index:
                raise StepError("the lights went out")


@pytest.mark.slow
def test_a_round_that_was_given_up_half_way_is_left_as_it_is(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, sampler=Failing(3))
    with pytest.raises(StepError):
        operate(loop, 3)
    with pytest.raises(ConfigError, match=r"round 3 of .* is not finished, so there is nothing to approve; finish it"):
        decide(loop.store, RUN, "approve")
    decide(loop.store, RUN, "rollback", to=0)
    assert rounds_done(loop.store, RUN) == 3 and loop.store.complete(RUN, 3)
    operate(make_loop(tmp_path), 4)
    assert ask(loop, "SELECT policy_id FROM rounds WHERE round = 4") == [{"policy_id": INITIAL.id}]
    assert ask(loop, "SELECT count(*) AS n FROM completions WHERE round = 3") == [{"n": 4}]
    assert ask(loop, "SELECT count(*) AS n FROM updates WHERE round = 3") == [{"n": 0}]


@pytest.mark.slow
def test_what_cannot_be_decided_is_refused(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, keep={"checkpoints": 1})
    with pytest.raises(ConfigError, match="has played no round yet"):
        decide(loop.store, RUN, "reject")
    operate(loop, 5)
    sql = "SELECT min(u.round) AS n FROM removals r JOIN updates u ON u.after_id = r.checkpoint_id"
    lost = ask(loop, sql)[0]["n"]
    for to, message in ((7, "no finished round 7; .* to 5"), (5, "round 5 is the last"), (lost, "any more")):
        with pytest.raises(ConfigError, match=message):
            decide(loop.store, RUN, "rollback", to=to)
    from sparring.flows.supervise.run_lock import lock_run

    lock = lock_run(tmp_path / "runs" / RUN)
    with pytest.raises(StoreBusy, match="another process is playing"):
        decide(loop.store, RUN, "approve")
    lock.release()


@pytest.mark.slow
def test_retention_keeps_what_is_needed_the_best_and_the_newest(tmp_path: Path) -> None:
    # Longer answers win: round 2 is the best. Its win rate over the initial policy is 1, of the later ones a half.
    sampler = Scripted(lambda rnd, i: (3, 3, 5, 3, 3, 3, 3)[rnd.index])
    learner = WritingLearner(tmp_path / "runs" / RUN, size=MEBIBYTE)
    loop = make_loop(tmp_path, sampler=sampler, learner=learner, keep={"checkpoints": 2})
    operate(loop, 6)
    kept = sorted(path.name for path in (tmp_path / "runs" / RUN).glob("round-*"))
    assert kept == ["round-0002", "round-0005", "round-0006"]
    gone = ask(loop, "SELECT k.path FROM removals r JOIN checkpoints k USING (checkpoint_id) ORDER BY k.path")
    assert [Path(row["path"]).name for row in gone] == ["round-0001", "round-0003", "round-0004"]
    assert len(ask(loop, "FROM checkpoints")) == 7  # the rows and hashes stay
    assert Path(INITIAL.path).is_dir()
    (tmp_path / "runs" / RUN / "round-0003").mkdir()  # as a kill between the store and the disk leaves it
    operate(make_loop(tmp_path, sampler=Scripted(), learner=learner, keep={"checkpoints": 2}), 7)
    assert not (tmp_path / "runs" / RUN / "round-0003").exists()
