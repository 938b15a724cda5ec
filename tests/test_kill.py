"""Killed at any moment and played again, a loop ends with the rows of an undisturbed one (pitfall 48).

Every part is a shipped fake, the store is real. Whenever a part has made a chunk, and whenever the store has committed
one, the file is copied as a kill at that moment would leave it; from every copy the round is played to its end. It
then holds what the undisturbed loop held at the end of that round, and the store is all that the next round starts
from. What DuckDB itself does in a real SIGKILL is tested in tests/store and tests/engine.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from sparring.loop.evaluator import RivalEvaluator
from sparring.loop.fakes import FakeJudge, FakeLearner, FakeSampler
from sparring.loop.pairing.pipeline import pairing
from sparring.loop.parts import Parts
from sparring.loop.round import play, round_zero
from sparring.loop.types import Record, Round
from sparring.store.db import rows
from sparring.store.store import DuckStore
from tests.helpers.fake_loop import INITIAL, RUN, contents, prompts
from tests.helpers.kept_store import KeptStore

ROUNDS = 2


class Camera:
    """Copies the store's file at every moment that matters. No connection is open then: see store.db.Database."""

    def __init__(self, store: Path, folder: Path | None = None) -> None:
        self.store, self.folder, self.shots = store, folder, 0

    def __call__(self) -> None:
        if self.folder is not None:
            shutil.copy(self.store, self.folder / f"{self.shots}.duckdb")
            self.shots += 1

    def on_chunk(self, step: str, total: int, chunks: Iterator[Sequence[Record]]) -> Iterator[Sequence[Record]]:
        for chunk in chunks:
            self()  # made, not stored: this chunk is lost
            yield chunk


class WatchedStore(DuckStore):
    def __init__(self, path: Path, camera: Camera) -> None:
        super().__init__(path)
        self.camera = camera

    def add(self, chunks: Iterable[Sequence[Record]]) -> int:
        added = super().add(chunks)
        self.camera()  # stored, but the caller never hears of it
        return added


def play_all(path: Path, camera: Camera | None = None, until: int = ROUNDS) -> None:
    """Start or go on with the loop, as `spar run` does."""
    camera = camera or Camera(path)
    _play(WatchedStore(path, camera), camera, until)


def _play(store: DuckStore, camera: Camera, until: int) -> None:
    train, held_out = prompts("train", 3), prompts("eval", 1)
    parts = Parts(
        store,
        FakeSampler({"train": 3, "eval": 1}),
        FakeJudge(silent_at=5),
        pairing("best_worst"),
        FakeLearner(),
        RivalEvaluator("initial", gate=0.5),
        tuple(p.id for p in train),
        tuple(p.id for p in held_out),
        per_round=2,
        on_chunk=camera.on_chunk,
    )
    store.add([[INITIAL, *train, *held_out]])
    rnd: Round = store.last_round(RUN) or round_zero(RUN, INITIAL)
    while rnd.index <= until:
        rnd = play(rnd, parts)


def test_killed_at_every_moment_and_resumed(tmp_path: Path) -> None:
    whole, shots = tmp_path / "whole.duckdb", tmp_path / "shots"
    shots.mkdir()
    camera, taken, wanted = Camera(whole, shots), [0], list[dict[str, Any]]()
    for until in range(ROUNDS + 1):
        play_all(whole, camera, until)
        taken.append(camera.shots)
        wanted.append(contents(whole))
    assert len(wanted[-1]["rounds"]) == ROUNDS and len(wanted[-1]["updates"]) == ROUNDS
    assert {row["value"] is None for row in wanted[-1]["judgements"]} == {True, False}  # abstentions are in the play
    assert taken[-1] > 30
    for until, (first, after) in enumerate(pairwise(taken)):
        for at in range(first, after):
            killed = shots / f"{at}.duckdb"
            with closing(KeptStore(killed)) as store:  # to open the file anew for each question takes most of the time
                _play(store, Camera(killed), until)
            assert contents(killed) == wanted[until], f"killed at moment {at} of {taken[-1]}, in round {until}"


def test_playing_a_finished_loop_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    play_all(path)
    before = contents(path)
    play_all(path)
    assert contents(path) == before


def test_every_train_prompt_has_one_outcome_a_round(tmp_path: Path) -> None:
    """Conservation: prompts = paired + ties + identical + abstained + failed (pitfall 44)."""
    path = tmp_path / "store.duckdb"
    play_all(path)
    with DuckStore(path).db.read() as con:
        found = rows(con, "SELECT * FROM round_summary WHERE round > 0")
    assert [r["prompts"] for r in found] == [2, 2]
    for r in found:
        assert r["prompts"] == r["paired"] + r["ties"] + r["identical"] + r["abstained"] + r["failed"]


def test_rounds_take_the_prompts_in_turn(tmp_path: Path) -> None:
    play_all(tmp_path / "store.duckdb")
    train = [p.id for p in prompts("train", 3)]
    rounds = sorted(contents(tmp_path / "store.duckdb")["rounds"], key=lambda r: r["round"])
    assert [r["prompt_ids"] for r in rounds] == [train[:2], [train[2], train[0]]]


def test_a_rejected_candidate_is_kept_but_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    store = DuckStore(path)
    train, held_out = prompts("train", 2), prompts("eval", 1)
    parts = Parts(
        store,
        FakeSampler({"train": 4, "eval": 1}),
        FakeJudge(),
        pairing("best_worst"),
        FakeLearner(),
        RivalEvaluator(gate=1.0),
        tuple(p.id for p in train),
        tuple(p.id for p in held_out),
        per_round=2,
    )
    store.add([[INITIAL, *train, *held_out]])
    first = play(round_zero(RUN, INITIAL), parts)
    strict = replace(parts, evaluator=RivalEvaluator(gate=1.0))
    lenient = replace(parts, evaluator=RivalEvaluator(gate=None))
    win_rate = {}
    second = play(first, strict)
    with store.db.read() as con:
        summary = rows(con, "SELECT * FROM round_summary WHERE round = 1")[0]
        win_rate = summary["win_rate"]
    assert summary["accepted"] is (win_rate >= 1.0)
    assert second.policy == (first.policy if win_rate < 1.0 else second.policy)
    third = play(second, lenient)
    assert third.policy.parent_id == second.policy.id and third.opponent == second.policy
