"""A checkpoint measured against a rival, beside the loop: the same step and parts, rows of its own."""

import json
import shutil
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sparring.flows.compose.families import FamilySampler, same_tokens
from sparring.flows.config import JudgeConfig, read_config
from sparring.flows.run.evaluate import evaluate_checkpoint, measure, play_measurement, prepared
from sparring.loop.errors import ConfigError, DataError, StoreError
from sparring.loop.evaluator import RivalEvaluator
from sparring.loop.fakes import FakeJudge, FakeLearner, FakeSampler
from sparring.loop.pairing.pipeline import pairing
from sparring.loop.parts import Parts
from sparring.loop.round import play, round_zero
from sparring.loop.types import (
    Checkpoint,
    Decision,
    Removal,
    RunInfo,
)
from sparring.store.db import rows
from sparring.store.store import DuckStore
from tests.helpers.measured import BETTER, RIVAL, Answers, Scripted, config, measured, parts
from tests.helpers.records import Filled, checkpoint, filled_store, prompt
from tests.helpers.scripted_judges import DuelJudge
from tests.helpers.spar import project, spar_many


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Filled]:
    """In the folder of a project: a store with a loop of two rounds, the first accepted and the second rejected."""
    found = project(tmp_path)
    with chdir(tmp_path):
        yield found


def script(filled: Filled) -> Answers:
    return {filled.initial.id: RIVAL, filled.learned[0].id: BETTER, filled.learned[1].id: BETTER}


def ask(store: DuckStore, sql: str) -> list[dict[str, Any]]:
    with store.db.read() as con:
        return rows(con, sql)


def test_the_numbers_of_candidate_and_rival_are_those_worked_by_hand(filled: Filled) -> None:
    found = {(e.round, e.metric): e for e in measured(Scripted(script(filled)))}
    assert {e.candidate_id for (k, _), e in found.items() if k} == {filled.learned[0].id}  # the current policy
    assert {e.candidate_id for (k, _), e in found.items() if not k} == {filled.initial.id}
    assert {e.rival_id for e in found.values()} == {filled.initial.id}
    assert (found[0, "pass_rate"].value, found[1, "pass_rate"].value) == (1 / 4, 3 / 4)
    # FISH: 1 and 1 against 1 and 0, NO: 1 and 0 against 0 and 0: each (1 + 1 + 1/2 + 1/2) / 4.
    win = found[1, "win_rate"]
    assert (win.value, win.n) == (3 / 4, 2)
    # Wilson, z^2 = 3.84146, n = 2: (0.75 + 3.84146 / 4 -+ 1.95996 sqrt(0.09375 + 3.84146 / 16)) / (1 + 3.84146 / 2).
    assert (win.low, win.high) == (pytest.approx(0.19787, abs=1e-5), pytest.approx(0.97332, abs=1e-5))
    # KL from the rival on first answers, "eel" and "no": 0.5 a token, 4 and 3 tokens.
    assert found[1, "kl"].value == (2.0 + 1.5) / 2
    assert found[1, "mean_tokens"].value == (4 + 4 + 3 + 4) / 4
    assert (0, "kl") not in found
    assert found[1, "accepted"].value == 1.0


def test_nothing_of_it_is_the_loops_and_its_lineage_leads_to_the_loop(filled: Filled) -> None:
    before = ask(filled.store, "SELECT * FROM round_summary ORDER BY ALL")
    counted = ask(filled.store, f"SELECT count(*) AS n FROM completions WHERE run_id = '{filled.info.id}'")
    (found, *_) = measured(Scripted(script(filled)))
    assert found.run.startswith("tiny-evaluate-")
    after = ask(filled.store, f"SELECT * FROM round_summary WHERE run_id <> '{found.run}' ORDER BY ALL")
    assert after == before
    assert ask(filled.store, f"SELECT count(*) AS n FROM completions WHERE run_id = '{filled.info.id}'") == counted
    latest, by_name = filled.store.run(), filled.store.run("tiny")
    assert latest is not None and latest.id == filled.info.id
    assert by_name is not None and by_name.id == filled.info.id
    learned = ask(
        filled.store,
        f"""SELECT u.cause_id FROM evaluations e JOIN lineage k ON k.id = e.evaluation_id
        JOIN lineage u ON u.id = k.cause_id WHERE e.run_id = '{found.run}' AND e.metric = 'win_rate' AND e.round = 1""",
    )
    assert [row["cause_id"] for row in learned] == ["update_1"]
    last = filled.store.last_round(found.run)
    assert last is not None and (last.policy, last.initial) == (filled.initial, filled.initial)


@pytest.mark.slow
def test_it_finds_what_the_loop_found_of_the_same_checkpoint(tmp_path: Path) -> None:
    """The loop's own round is the independent measurement: the same seeds, the same step, the same numbers."""
    store, initial = DuckStore(tmp_path / "preferences.duckdb"), checkpoint("initial", run="tiny-1")
    info = RunInfo("tiny-1", "tiny", 0, {"rounds": 1, "shape": {}}, "sha", {})
    train = [prompt(f"train {i}") for i in range(2)]
    held_out = [prompt(f"eval {i}", "eval") for i in range(4)]
    sampler, judge = FakeSampler({"train": 4, "eval": 3}), FakeJudge(silent_at=5)
    loop = Parts(
        store, sampler, judge, pairing("best_worst"), FakeLearner(), RivalEvaluator(),
        tuple(p.id for p in train), tuple(p.id for p in held_out), per_round=2,
    )  # fmt: skip
    store.add([[info, initial, *train, *held_out]])
    first = play(round_zero(info.id, initial), loop)
    play(first, loop)
    learned = store.updated(first)
    assert learned is not None
    for name, questions in (("train", train), ("eval", held_out)):
        lines = [json.dumps({"prompt": p.messages[0]["content"], "max_words": 3}) for p in questions]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    (tmp_path / "loop.yaml").write_text(
        "name: tiny\npolicy: {model: none}\nprompts: {train: train.jsonl, eval: eval.jsonl}\n"
    )
    with chdir(tmp_path), prepared(read_config("loop.yaml"), learned.id) as ready:
        ready = replace(ready, judge=judge, held_out=held_out)  # the very prompts, which have no rules
        play_measurement(ready, parts(ready, sampler))
        found = {(e.round, e.metric): (e.value, e.low, e.high, e.n) for e in ready.results()}
    looped = ask(store, f"SELECT * FROM evaluations WHERE run_id = '{info.id}'")
    assert {"kl", "win_rate", "abstained"} < {metric for _, metric in found}
    assert found == {(e["round"], e["metric"]): (e["value"], e["low"], e["high"], e["n"]) for e in looped}


def test_a_second_call_makes_nothing_and_needs_no_weights(filled: Filled) -> None:
    first = measured(Scripted(script(filled)))
    assert not Path(filled.initial.path).exists()  # any look at a model would raise
    assert evaluate_checkpoint(config()) == first
    assert evaluate_checkpoint(config(), filled.learned[0].id, filled.initial.id) == first


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 2])
def test_killed_and_called_again_it_samples_only_what_is_missing(filled: Filled, after: int) -> None:
    dying = Scripted(script(filled), die_after=after)
    with pytest.raises(KeyboardInterrupt):
        measured(dying)
    again = Scripted(script(filled))
    found = measured(again)
    assert len(dying.asked) == after
    assert sorted(dying.asked + again.asked) == sorted((p, q) for p, a in list(script(filled).items())[:2] for q in a)
    undisturbed = filled_store(Path("whole.duckdb"), filled.info, filled.train, filled.held_out)
    assert measured(Scripted(script(undisturbed)), "store=whole.duckdb") == found


def test_a_checkpoint_against_itself_ties_and_is_sampled_once(filled: Filled) -> None:
    sampler = Scripted(script(filled))
    found = {(e.round, e.metric): e.value for e in measured(sampler, candidate=filled.initial.id)}
    assert found[1, "win_rate"] == 0.5
    assert found[0, "pass_rate"] == found[1, "pass_rate"] == 1 / 4
    assert (1, "kl") not in found
    assert len(sampler.asked) == 2


def test_a_judge_that_compares_sets_answers_beside_the_rivals(filled: Filled) -> None:
    judge = DuelJudge(lambda first, second: 0.9 if len(first) > len(second) else 0.1)
    with prepared(config()) as ready:
        ready = replace(ready, judge=judge)
        play_measurement(ready, parts(ready, Scripted(script(filled))))
        found = {(e.round, e.metric): e.value for e in ready.results()}
    # By number: "eel" and "cod" are as long (0.1 whichever is shown first: a tie), "cod" loses; "no" and "yes" lose.
    assert found[1, "win_rate"] == pytest.approx(((0.5 + 0.1) / 2 + (0.1 + 0.1) / 2) / 2)
    assert judge.asked == 2 * 2 * 2
    assert (1, "pass_rate") not in found
    assert (found[0, "win_rate"], found[1, "accepted"]) == (0.5, 0.0)


def test_models_without_common_tokens_have_no_kl(filled: Filled) -> None:
    scored = ask(filled.store, "SELECT count(*) AS n FROM logprobs")
    found = {(e.round, e.metric): e.value for e in measured(Scripted(script(filled)), kl=False)}
    assert found[1, "win_rate"] == 3 / 4
    assert (1, "kl") not in found
    assert ask(filled.store, "SELECT count(*) AS n FROM logprobs") == scored


def test_its_id_stands_for_all_that_shapes_it_and_for_nothing_else(filled: Filled) -> None:
    one, two, initial = filled.learned[0].id, filled.learned[1].id, filled.initial.id

    def name_of(*changes: str, candidate: str = one, rival: str = initial) -> str:
        with prepared(config(*changes), candidate, rival) as ready:
            return ready.info.id

    same = name_of()
    assert name_of("rounds=9", "sample.n=3", "learn.lr=0.5", "prompts.per_round=1", "judge.max_abstain=0.9") == same
    Path("more.jsonl").write_text(Path("eval.jsonl").read_text() + '{"prompt": "Count.", "max_words": 2}\n')
    changes = [
        "evaluate.n=3", "evaluate.pass_at=0.5", "evaluate.gate=0.6", "sample.temperature=0.5", "sample.max_tokens=9",
        "seed=1", "judge.max_words=4", "evaluate.judge={kind: rules, max_words: 5}", "prompts.eval=more.jsonl",
        "name=other",
    ]  # fmt: skip
    others = [*map(name_of, changes), name_of(candidate=two), name_of(rival=two), name_of(candidate=initial)]
    assert len({same, *others}) == len(others) + 1


def test_by_default_it_is_the_policy_that_a_person_decided_on(filled: Filled) -> None:
    second, (one, two) = filled.second, filled.learned
    with prepared(config()) as ready:
        assert (ready.candidate, ready.rival) == (one, filled.initial)  # the second round was rejected
    filled.store.add([[Decision("d", second.run, 2, 0, "approve", two.id, "I like it", "me")]])
    with prepared(config()) as ready:
        assert (ready.candidate, ready.rival) == (two, filled.initial)


def test_a_checkpoint_that_cannot_be_measured_is_refused(filled: Filled, tiny: Path) -> None:
    with pytest.raises(StoreError, match=r"no checkpoint checkpoint_nine; list those"):
        evaluate_checkpoint(config(), "checkpoint_nine")
    with pytest.raises(DataError, match=r"nowhere/at-all holds no model: found no such folder"):
        evaluate_checkpoint(config(), "/nowhere/at-all")
    with pytest.raises(DataError, match=r"/nowhere/initial holds no model: found no such folder"):
        evaluate_checkpoint(config())
    with pytest.raises(StoreError, match=r"no finished round of a run 'new'.*--checkpoint"):
        evaluate_checkpoint(config("name=new", f"policy.model={tiny}"))
    filled.store.add([[Removal(filled.learned[0].id, filled.info.id, "keep.checkpoints = 1")]])
    with pytest.raises(DataError, match=r"checkpoint_one were removed \(keep.checkpoints = 1\); measure one"):
        evaluate_checkpoint(config(), rival=str(tiny))
    other = Checkpoint("checkpoint_other", filled.info.id, str(tiny), None, "sha-of-what-was-there")
    filled.store.add([[other]])
    with pytest.raises(DataError, match=rf"{tiny} holds other weights than checkpoint_other"):
        evaluate_checkpoint(config(), other.id, str(tiny))
    assert ask(filled.store, "SELECT count(*) AS n FROM runs") == [{"n": 1}]


@pytest.mark.slow
def test_a_judge_that_fails_its_canaries_measures_nothing(filled: Filled, tiny: Path) -> None:
    judge = DuelJudge(lambda first, second: 0.9)  # whatever is shown first
    with prepared(config(), str(tiny), str(tiny)) as ready:
        ready = replace(ready, judge=judge, section=JudgeConfig(kind="llm"))
        with pytest.raises(ConfigError, match="fails its canaries"):
            measure(ready)
    assert ask(filled.store, "SELECT count(*) AS n FROM runs") == [{"n": 1}]


def test_a_model_from_outside_is_a_checkpoint_of_the_measurement(filled: Filled, tiny: Path) -> None:
    with prepared(config(), str(tiny)) as ready:
        assert (ready.candidate.run, ready.candidate.path) == (ready.info.id, str(tiny))
        answers = {filled.initial.id: RIVAL, ready.candidate.id: BETTER}
        play_measurement(ready, parts(ready, Scripted(answers)))
    again = evaluate_checkpoint(config(), str(tiny))
    assert {e.candidate_id for e in again if e.round} == {ready.candidate.id}
    with prepared(config(), ready.candidate.id) as by_id:  # from now on it has an id
        assert by_id.candidate == ready.candidate


class Engine:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Engined(FakeSampler):
    def __init__(self) -> None:
        super().__init__({"train": 1, "eval": 1})
        self.engine = Engine()


def test_a_family_of_checkpoints_shares_an_engine_and_another_family_gets_its_own() -> None:
    made: list[Engined] = []

    def make() -> Any:
        made.append(Engined())
        return made[-1]

    a, b = checkpoint("a", run="one"), checkpoint("b", run="one")
    stranger = checkpoint("c", run="two")
    sampler = FamilySampler(make, lambda k: k.run)
    question = [prompt("Why?", "eval")]
    for policy, engines in ((a, 1), (b, 1), (stranger, 2)):
        rnd = replace(round_zero("run", policy), split="eval")
        assert list(sampler.sample(rnd, [])) == []  # nothing to sample starts nothing
        assert len(list(sampler.sample(rnd, question))) == 1
        assert len(made) == engines
    assert [each.engine.closed for each in made] == [True, False]
    sampler.close()
    assert made[1].engine.closed


def test_tokens_are_the_same_where_the_vocabulary_is(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "copy")
    shutil.copytree(tiny, tmp_path / "swapped")
    file = tmp_path / "swapped" / "tokenizer.json"
    known = json.loads(file.read_text())
    vocabulary = known["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    file.write_text(json.dumps(known))
    here, copy, swapped = (
        Checkpoint("k", "", str(f), None, "") for f in (tiny, tmp_path / "copy", tmp_path / "swapped")
    )
    assert same_tokens(here, copy)
    assert not same_tokens(here, swapped)


@pytest.mark.slow
def test_the_command_prints_what_is_stored(filled: Filled) -> None:
    found = {(e.round, e.metric): e for e in measured(Scripted(script(filled)))}
    command = ("evaluate", "loop.yaml", "--set", "evaluate.n=2")
    table, as_json, status, resume, missing, unknown = spar_many(
        command,
        (*command, "--json"),
        ("status", found[1, "win_rate"].run),
        ("resume", found[1, "win_rate"].run),
        (*command, "--set", "name=new", "--checkpoint", "checkpoint_nine"),
        (*command, "--set", "evaluate.m=2"),
        cwd=Path.cwd(),
    )
    assert table.code == 0, table.err
    assert "measured before" in table.err and "the gate of 0.5 would accept the candidate" in table.err
    (line,) = [line for line in table.out.splitlines() if "win_rate" in line]
    assert [cell.strip() for cell in line.split("│")[1:-1]] == ["win_rate", "0.750 [0.198, 0.973]", "-", "2"]
    told = json.loads(as_json.out)
    assert {(m["of"], m["metric"]): m["value"] for m in told["metrics"]} == {
        ("candidate" if k else "rival", metric): e.value for (k, metric), e in found.items()
    }
    assert (told["candidate"]["id"], told["judge"]) == (filled.learned[0].id, "rules")
    assert "1 of 1 rounds done; complete" in status.out
    assert (resume.code, "spar evaluate CONFIG" in resume.err) == (2, True)
    assert (missing.code, "no checkpoint checkpoint_nine" in missing.err) == (1, True)
    assert (unknown.code, "evaluate.m: unknown key" in unknown.err) == (2, True)
