"""A judge set to what is in the store already: all of it once, round by round, and as any judge's rows."""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sparring.flows.config import JudgeConfig
from sparring.flows.run.backlog import Labelled, label_backlog
from sparring.judges.endpoint import Endpoint
from sparring.judges.llm import LLMJudge
from sparring.loop.errors import ConfigError, SavedAndLeft, StepError, StoreBusy, StoreError
from sparring.loop.round import play, round_zero
from sparring.loop.types import RunInfo, RunKind
from sparring.store.db import rows
from sparring.store.store import DuckStore
from tests.helpers.flaky_server import FlakyServer, never
from tests.helpers.merit_loop import parts_of
from tests.helpers.records import HELD_OUT, INFO, RUN, TRAIN, checkpoint, completion, filled_store, round_of
from tests.helpers.spar import spar_many

ARTICLE = JudgeConfig(kind="rules", regex="^a ")


def ask(store: DuckStore, sql: str) -> list[dict[str, Any]]:
    with store.db.read() as con:
        return rows(con, sql)


def counts(found: list[Labelled]) -> list[tuple[int, str, int, int, int]]:
    return [(each.round, each.split, each.missing, each.made, each.silent) for each in found]


def test_all_answers_of_a_run_are_judged_once(tmp_path: Path) -> None:
    store, path = filled_store(tmp_path / "s.duckdb").store, str(tmp_path / "s.duckdb")
    heard: list[Labelled] = []
    shown: list[tuple[str, int, int]] = []
    found = label_backlog(ARTICLE, path, show=lambda *args: shown.append(args), each=heard.append)
    assert found == heard
    # The third train prompt has no answer in round 2: it could not be sampled.
    assert counts(found) == [
        (0, "eval", 2, 2, 0),
        (1, "train", 6, 6, 0),
        (1, "eval", 2, 2, 0),
        (2, "train", 4, 4, 0),
        (2, "eval", 2, 2, 0),
    ]
    assert shown[0] == (f"{RUN} round 0 eval", 2, 2)
    assert all((each.run, each.rival_id) == (RUN, None) for each in found)
    (judge,) = ask(store, "SELECT judge, kind FROM judges")
    assert judge["kind"] == "rules"
    judged = ask(
        store,
        f"""SELECT c.text, j.value FROM judgements j JOIN completions c USING (completion_id)
        WHERE j.judge = '{judge["judge"]}' AND c.round = 1 AND c.text <> 'yes' ORDER BY c.text""",
    )
    # Half of each score is the prompt's own rule, the other half to begin with "a ".
    assert [(row["text"], row["value"]) for row in judged] == [
        ("a robin", 1.0), ("no", 0.5), ("one two", 0.5), ("one two three", 0.0), ("yes indeed", 0.0),
    ]  # fmt: skip
    assert sum(each.made for each in label_backlog(ARTICLE, path)) == 0
    assert ask(store, "SELECT count(*) AS n FROM judgements WHERE judge = 'rules'") == [{"n": 16}]  # as it was


def with_answer(store: DuckStore, name: str, kind: RunKind) -> None:
    """A run of that kind with one held-out answer."""
    policy = checkpoint(name, run=f"{name}-1")
    answer = completion(round_of(0, policy, policy, HELD_OUT), HELD_OUT[0])
    store.add([[RunInfo(policy.run, name, 0, {}, "x", {}, kind), policy, answer]])


def test_a_run_a_split_and_a_round_can_be_chosen(tmp_path: Path) -> None:
    store, path = filled_store(tmp_path / "s.duckdb").store, str(tmp_path / "s.duckdb")
    with_answer(store, "trained", "reward")
    with_answer(store, "measured", "evaluate")
    assert counts(label_backlog(ARTICLE, path, "hand", split="eval", round=2)) == [(2, "eval", 2, 2, 0)]
    assert counts(label_backlog(ARTICLE, path, RUN, split="train")) == [(1, "train", 6, 6, 0), (2, "train", 4, 4, 0)]
    left = label_backlog(ARTICLE, path)  # the loop's held-out answers of rounds 0 and 1, and the measurement's
    assert [(each.run, each.made) for each in left if each.made] == [(RUN, 2), (RUN, 2), ("measured-1", 1)]
    assert counts(label_backlog(ARTICLE, path, "trained")) == [(0, "eval", 1, 1, 0)]  # only when it is named
    with pytest.raises(StoreError, match="has no run 'nobody'"):
        label_backlog(ARTICLE, path, "nobody")
    with pytest.raises(StoreError, match="there is no store at"):
        label_backlog(ARTICLE, str(tmp_path / "none.duckdb"))
    assert not (tmp_path / "none.duckdb").exists()


def test_asked_to_leave_it_goes_on_from_there(tmp_path: Path) -> None:
    store, path = filled_store(tmp_path / "s.duckdb").store, str(tmp_path / "s.duckdb")
    with pytest.raises(SavedAndLeft):
        label_backlog(ARTICLE, path, show=lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
    labelled = "SELECT count(*) AS n FROM judgements WHERE judge <> 'rules'"
    (before,) = ask(store, labelled)
    made = sum(each.made for each in label_backlog(ARTICLE, path))
    assert before["n"] > 0 and ask(store, labelled) == [{"n": before["n"] + made}]


def test_no_answer_is_counted(tmp_path: Path) -> None:
    """A judge of rules has no answer for a prompt without any: as many as 4 of 6 here."""
    plain = [replace(p, meta={}) for p in (TRAIN[0], TRAIN[1])]
    path = str(tmp_path / "s.duckdb")
    filled_store(Path(path), train=[*plain, TRAIN[2]])
    section = JudgeConfig(kind="rules", truncated="fail")  # without a rule of its own
    assert counts(label_backlog(section, path, round=1, split="train")) == [(1, "train", 6, 6, 4)]


@pytest.fixture
def duelled(tmp_path: Path) -> Iterator[tuple[DuckStore, FlakyServer]]:
    """A loop of one round, with three answers a train prompt and two a held-out one, judged by the model `first`."""
    store, initial = DuckStore(tmp_path / "s.duckdb"), checkpoint("initial")
    store.add([[INFO, initial, *TRAIN, *HELD_OUT]])
    with FlakyServer() as server:
        parts = parts_of(store, LLMJudge(Endpoint("first", base_url=server.url)))
        play(play(round_zero(INFO.id, initial), parts), parts)
        server.calls.clear()
        yield store, server


def second(server: FlakyServer, **options: Any) -> JudgeConfig:
    endpoint = {"base_url": server.url, "api_key_env": "NO_KEY", "attempts": 1, "backoff": 0.001, "concurrency": 2}
    return JudgeConfig(kind="llm", model="second", endpoint=endpoint, **{"canaries": "skip", **options})


@pytest.mark.slow
def test_a_judge_that_compares_gets_groups_and_held_out_answers_beside_the_rivals(
    duelled: tuple[DuckStore, FlakyServer],
) -> None:
    store, server = duelled
    found = label_backlog(second(server), str(store.db.path))
    # Three duels among three answers, for three prompts, in both orders; two answers to two prompts beside the rival's.
    assert counts(found) == [(1, "train", 18, 18, 0), (1, "eval", 8, 8, 0)]
    assert found[1].rival_id == "checkpoint_initial"
    assert len(server.calls) == 26
    (agreed,) = ask(store, "SELECT duels, agreement FROM judge_agreement")
    assert (agreed["duels"], agreed["agreement"]) == (13, 1.0)
    assert counts(label_backlog(second(server), str(store.db.path))) == [(1, "train", 0, 0, 0), (1, "eval", 0, 0, 0)]
    assert len(server.calls) == 26
    calls = ask(store, "SELECT count(*) AS n FROM judge_calls WHERE model = 'second'")
    assert calls == [{"n": 26}]


@pytest.mark.slow
def test_a_judge_that_goes_away_is_asked_again_only_for_what_is_open(duelled: tuple[DuckStore, FlakyServer]) -> None:
    store, server = duelled
    path = str(store.db.path)
    server.spoil = lambda text, before: "500" if len(server.calls) >= 20 else ""
    with pytest.raises(StepError, match=r"gave no answer.*run the same command"):
        label_backlog(second(server), path)
    (kept,) = ask(store, "SELECT count(*) AS n FROM judgements j JOIN judges USING (judge) WHERE value IS NOT NULL")
    assert 18 <= kept["n"] < 26
    server.spoil = never
    server.calls.clear()
    found = label_backlog(second(server), path)
    assert len(server.calls) == sum(each.made for each in found) == 26 - kept["n"]
    assert ask(store, "SELECT count(*) AS n FROM judgements j JOIN judges USING (judge)") == [{"n": 26}]


@pytest.mark.slow
def test_a_judge_that_fails_its_canaries_labels_nothing(duelled: tuple[DuckStore, FlakyServer]) -> None:
    store, server = duelled
    before = ask(
        store, "SELECT count(*) AS n FROM judgements j JOIN completions c USING (completion_id) WHERE c.round = 1"
    )
    server.always = "A"
    with pytest.raises(ConfigError, match="fails its canaries"):
        label_backlog(second(server, canaries="refuse"), str(store.db.path))
    after = ask(
        store, "SELECT count(*) AS n FROM judgements j JOIN completions c USING (completion_id) WHERE c.round = 1"
    )
    assert after == before


def test_nothing_to_do_asks_no_canaries(duelled: tuple[DuckStore, FlakyServer]) -> None:
    store, server = duelled
    label_backlog(second(server), str(store.db.path))
    server.calls.clear()
    label_backlog(second(server, canaries="refuse"), str(store.db.path))
    assert server.calls == []


def test_two_at_once_do_not_pay_twice(tmp_path: Path) -> None:
    from sparring.flows.compose.judge_factory import make_judge
    from sparring.flows.supervise.run_lock import lock_run

    filled_store(tmp_path / "s.duckdb")
    lock = lock_run(tmp_path / "labelling" / make_judge(ARTICLE).name)
    with pytest.raises(StoreBusy):
        label_backlog(ARTICLE, str(tmp_path / "s.duckdb"))
    lock.release()
    assert sum(each.made for each in label_backlog(ARTICLE, str(tmp_path / "s.duckdb"))) == 16


@pytest.mark.slow
def test_the_command_prints_counts(tmp_path: Path) -> None:
    filled_store(tmp_path / "preferences.duckdb")
    (tmp_path / "judge.yaml").write_text('kind: rules\nregex: "^a "\n')
    some, rest, as_json, nobody = spar_many(
        ("judge", "label", "judge.yaml", "--round", "1", "--split", "train"),
        ("judge", "label", "judge.yaml", "hand", "--json"),
        ("judge", "label", "judge.yaml", "--json"),
        ("judge", "label", "judge.yaml", "nobody"),
        cwd=tmp_path,
    )
    assert some.code == 0, some.err
    assert "6 judgements were missing, 6 were made, 0 of those without an answer" in some.err
    (line,) = [line for line in some.out.splitlines() if RUN in line]
    cells = [cell.strip() for cell in line.split("│")[1:-1]]
    assert cells == [RUN, "1", "train", "checkpoint_initial", "", "6", "6", "0"]
    assert [(r["round"], r["split"], r["made"]) for r in json.loads(rest.out)] == [
        (0, "eval", 2), (1, "train", 0), (1, "eval", 2), (2, "train", 4), (2, "eval", 2),
    ]  # fmt: skip
    assert sum(r["missing"] for r in json.loads(as_json.out)) == 0
    assert (nobody.code, "has no run 'nobody'" in nobody.err) == (1, True)
