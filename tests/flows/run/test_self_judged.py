"""Loops on a tiny model whose policy judges itself, or whose judge chooses what to ask: two rounds, without vLLM."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sparring.flows.compose.build import Loop, build, prepare
from sparring.flows.compose.judge_factory import check_judge, make_judge, policy_clients
from sparring.flows.config import Config, JudgeConfig, parse_config
from sparring.flows.run.backlog import label_backlog
from sparring.flows.run.evaluate import evaluate_checkpoint
from sparring.judges.llm_client import Question
from sparring.judges.reward.model import RewardModel
from sparring.judges.reward_model import RewardModelJudge
from sparring.judges.self_rewarding import START, SelfJudge
from sparring.loop.errors import ConfigError, DataError, StepError
from sparring.loop.judgements import mean_scores
from sparring.loop.pairing.pipeline import pairing
from sparring.loop.round import play
from sparring.loop.sampling.sampler import EngineSampler, Sampling
from sparring.loop.sampling.transformers_engine import PlainEngine
from sparring.loop.types import Judgement, Round
from sparring.store.db import rows
from sparring.store.lineage import walk
from sparring.store.records import to_record
from sparring.store.store import DuckStore
from tests.helpers.fake_client import FakeClient
from tests.helpers.records import checkpoint
from tests.helpers.tiny import build_tiny_model

RULES = {"kind": "rules", "regex": "[a-m]", "max_words": 4}
ITSELF = {"kind": "self", "prompt": "short.jinja", "max_tokens": 4, "canaries": "skip"}
ENSEMBLE = {"kind": "reward_model", "model": "ensemble", "engine": "transformers"}
SINGLE = {"kind": "reward_model", "model": "single", "engine": "transformers", "canaries": "skip"}
ACTIVE = {"kind": "active", "explorer": ENSEMBLE, "oracle": SINGLE}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where configs are read: a policy, a reward model of three members, a single one, prompts, a short template."""
    root = tmp_path_factory.mktemp("self")
    tiny = build_tiny_model(root / "tiny")
    ensemble = RewardModel.create(tiny, "multi", {"members": 3})
    ensemble.set_scale([1.0, -2.0, 0.5], [2.0, 0.5, 1.0])
    ensemble.save(root / "ensemble", tiny)
    RewardModel.create(tiny).save(root / "single", tiny)
    for name, count in (("train", 4), ("eval", 2)):
        lines = [json.dumps({"prompt": f"{name} {i}"}) for i in range(count)]
        (root / f"{name}.jsonl").write_text("\n".join(lines))
    (root / "short.jinja").write_text("{{ conversation }} {{ answer }}")
    return root


def config(name: str, judge: dict[str, Any], **more: Any) -> Config:
    values: dict[str, Any] = {
        "name": name,
        "store": f"{name}/s.duckdb",
        "policy": {"model": "tiny"},
        "prompts": {"train": "train.jsonl", "eval": "eval.jsonl"},
        "sample": {"n": 5, "max_tokens": 8, "context": 512, "dtype": "float32", "engine": "transformers"},
        "judge": judge,
        "learn": {"lr": 1e-3, "batch_size": 2, "dtype": "float32"},
        "evaluate": {"n": 1, "gate": 0.0, "judge": RULES},
    }
    return parse_config(values | more, "test")


@contextmanager
def opened(folder: Path, name: str, judge: dict[str, Any], **more: Any) -> Iterator[Loop]:
    with chdir(folder):
        loop = build(prepare(config(name, judge, **more)))
        try:
            yield loop
        finally:
            loop.close()


def two_rounds(loop: Loop) -> Round:
    rnd = loop.start
    while rnd.index <= 2:
        rnd = play(rnd, loop.parts)
    return rnd


def told(loop: Loop, sql: str) -> list[dict[str, Any]]:
    with loop.store.db.read() as con:
        return rows(con, sql)


def points(question: Question) -> str:
    """Points by a hash of the question: answers of one prompt differ in score."""
    drawn = hashlib.sha256(question.messages[0]["content"].encode()).digest()[0]
    return json.dumps({"rationale": "drawn", "score": drawn % 6})


def test_a_policy_that_cannot_judge_stops_the_round(folder: Path) -> None:
    """The tiny model in the sampler's engine: it writes on, but no score."""
    with opened(folder, "silent", ITSELF) as loop:
        with pytest.raises(StepError, match=r"judge self-\w+ gave no answer to 20 of 20 questions.*cut at 4 tokens"):
            two_rounds(loop)
        found = told(loop, "SELECT member, value FROM judgements WHERE judge LIKE 'self-%'")
        assert found == [{"member": loop.start.policy.id, "value": None}] * 20
        calls = told(loop, "SELECT DISTINCT model, judge = (SELECT judge FROM judges WHERE kind = 'self') AS ours "
                     "FROM judge_calls")  # fmt: skip
        assert calls == [{"model": loop.start.policy.id, "ours": True}]


@pytest.mark.slow
def test_each_round_is_judged_by_its_own_policy(folder: Path) -> None:
    """Over two rounds with a fake of each policy: scores are read, pairs made, and the lineage is right."""
    judge = SelfJudge(lambda policy: FakeClient(points, model=policy), prompt=str(folder / "short.jinja"), max_tokens=4)
    with opened(folder, "itself", ITSELF) as loop:
        assert loop.parts.judge.name == judge.name  # a config's judge, with another way to ask
        parts = replace(loop.parts, judge=judge, pairing=pairing("best_worst", judge.read))
        played = replace(loop, parts=parts)
        first = play(loop.start, parts)
        second = play(first, parts)
        play(second, parts)
        assert second.policy.id != first.policy.id
        found = told(played, f"""SELECT c.round, j.member, c.policy_id, count(value) AS n
            FROM judgements j JOIN completions c USING (completion_id)
            WHERE judge = '{judge.name}' GROUP BY ALL ORDER BY 1""")  # fmt: skip
        assert found == [
            {"round": 1, "member": first.policy.id, "policy_id": first.policy.id, "n": 20},
            {"round": 2, "member": second.policy.id, "policy_id": second.policy.id, "n": 20},
        ]
        for rnd in (first, second):
            seen = loop.store.experience(rnd, judge.name)
            scores = mean_scores(seen.judgements).scores
            pairs = told(loop, f"SELECT chosen_id, rejected_id, margin FROM pairs WHERE round = {rnd.index}")
            assert pairs and all(p["margin"] == scores[p["chosen_id"]] - scores[p["rejected_id"]] > 0 for p in pairs)
            with loop.store.db.read() as con:
                causes = {row["id"] for row in walk(con, seen.judgements[0].id, "causes") if row["depth"] == 1}
            assert rnd.policy.id in causes
        measured = told(loop, "SELECT DISTINCT judge FROM judgements j JOIN completions c USING (completion_id) "
                        "JOIN prompts p USING (prompt_id) WHERE p.split = 'eval'")  # fmt: skip
        assert [row["judge"] for row in measured] == [loop.parts.eval_judge.name]  # type: ignore[union-attr]


def test_the_policy_that_a_run_starts_from_must_pass_the_canaries(folder: Path) -> None:
    tried = config("canaries", ITSELF | {"canaries": "refuse"})
    with chdir(folder), pytest.raises(ConfigError, match=r"fails its canaries.*\n.*no answer to any of"):
        build(prepare(tried))


@pytest.mark.slow
def test_only_the_duel_that_was_chosen_is_put_to_the_oracle(folder: Path) -> None:
    with opened(folder, "active", ACTIVE) as loop:
        rnd = two_rounds(loop)
        assert rnd.index == 3
        by = {
            r["part"]: r["n"]
            for r in told(
                loop,
                """SELECT c.round || split_part(member, '|', 1) AS part, count(*) AS n
            FROM judgements JOIN completions c USING (completion_id) WHERE judge LIKE 'active-%' GROUP BY 1""",
            )
        }
        for n in (1, 2):
            texts = told(loop, f"""SELECT count(*) AS n FROM (SELECT prompt_id FROM completions
                JOIN prompts USING (prompt_id) WHERE round = {n} AND split = 'train'
                GROUP BY prompt_id HAVING count(DISTINCT text) > 1)""")  # fmt: skip
            assert by[f"{n}explorer"] == 4 * 5 * 3  # prompts, answers, members
            assert by[f"{n}oracle"] == 2 * texts[0]["n"]  # two answers of each prompt that has two
        paired = told(loop, "SELECT chosen_id, rejected_id FROM pairs")
        asked = {r["completion_id"] for r in told(loop, "SELECT completion_id FROM judgements WHERE member = 'oracle'")}
        assert paired and all({p["chosen_id"], p["rejected_id"]} <= asked for p in paired)
        outcomes = told(loop, "SELECT round, count(*) AS n FROM outcomes GROUP BY 1 ORDER BY 1")
        assert outcomes == [{"round": 1, "n": 4}, {"round": 2, "n": 4}]
        on_one_scale(loop)


def on_one_scale(loop: Loop) -> None:
    """Members are compared as (v - mean) / std, with the means and stds that the model was saved with."""
    explorer = RewardModelJudge(model="ensemble", engine="transformers")
    raw = told(loop, """SELECT * REPLACE (split_part(member, '|', 2) AS member) FROM judgements
        WHERE judge LIKE 'active-%' AND member LIKE 'explorer|%'""")  # fmt: skip
    scores = explorer.member_scores([to_record(Judgement, row) for row in raw])
    assert explorer.members == 3 and len(scores) == 2 * 4 * 5
    by = {(row["completion_id"], row["member"]): row["value"] for row in raw}
    for completion, found in scores.items():
        a, b, c = (by[completion, str(k)] for k in range(3))
        assert found == pytest.approx([(a - 1.0) / 2.0, (b + 2.0) / 0.5, c - 0.5])


def test_a_judge_that_cannot_measure_is_refused_where_it_would(folder: Path) -> None:
    for judge in (ITSELF, ACTIVE):
        wanted = rf"measured by judge {judge['kind']}.*evaluate\.judge"
        for evaluate in ({}, {"judge": judge}, {"judge": {"kind": "panel", "judges": [RULES, judge]}}):
            with chdir(folder), pytest.raises(ConfigError, match=wanted if judge is ITSELF else f"{wanted}|panel"):
                prepare(config("refused", judge, evaluate=evaluate))
        section = JudgeConfig.model_validate(judge)
        with chdir(folder), pytest.raises(ConfigError, match=wanted):
            evaluate_checkpoint(config("refused", judge, evaluate={}))
        with pytest.raises(ConfigError, match=wanted):
            label_backlog(section, str(folder / "none.duckdb"))


@pytest.mark.parametrize(
    ("judge", "match"),
    [
        ({"kind": "self", "asker_of": "me"}, "no option 'asker_of'"),
        ({"kind": "self", "scale": [1, 10]}, "no option 'scale'"),
        ({"kind": "active", "oracle": RULES}, "needs the option 'explorer'"),
        ({"kind": "active", "explorer": ENSEMBLE, "oracle": "rules"}, "oracle of judge active is 'rules'"),
        ({"kind": "active", "explorer": ENSEMBLE, "oracle": {"kind": "rule"}}, "did you mean 'rules'"),
        ({"kind": "active", "explorer": ENSEMBLE, "oracle": ACTIVE}, "active cannot be made of judge active"),
        ({"kind": "active", "explorer": ENSEMBLE, "oracle": ITSELF}, "active cannot be made of judge self"),
        ({"kind": "panel", "judges": [RULES, ACTIVE]}, "panel cannot be made of judge active"),
    ],
)
def test_what_is_no_judge_is_refused_by_name(judge: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        check_judge(JudgeConfig.model_validate(judge))


def test_a_policy_is_found_by_its_id(tmp_path: Path) -> None:
    store, start, later = DuckStore(tmp_path / "s.duckdb"), checkpoint("start"), checkpoint("later")
    store.add([[start, later]])
    sampler = EngineSampler(PlainEngine(dtype="float32"), Sampling({"train": 1, "eval": 1}), seed=0)
    client_of = policy_clients(sampler, store, start)
    for policy_id, policy in ((START, start), (start.id, start), (later.id, later)):
        assert (client_of(policy_id).model, list(client_of(policy_id).weights)) == (policy.id, [policy.weights_sha256])
    with pytest.raises(DataError, match="no checkpoint nobody"):
        client_of("nobody")


def test_a_policy_is_asked_in_a_loop_only(folder: Path) -> None:
    with chdir(folder), pytest.raises(ConfigError, match=r"sample\.n is 0"):
        sample = {"n": 0, "extra": [{"of": "initial"}], "engine": "transformers"}
        prepare(config("nobody", ITSELF, sample=sample))
    with pytest.raises(ConfigError, match=r"policy of a loop.*kind: llm"):
        make_judge(JudgeConfig.model_validate(ITSELF))


def test_an_explorer_of_one_member_is_refused(folder: Path) -> None:
    with chdir(folder), pytest.raises(ConfigError, match=r"its explorer reward-\w+ has no members"):
        make_judge(JudgeConfig.model_validate(ACTIVE | {"explorer": SINGLE}))


def test_how_an_oracle_is_reached_shapes_no_run() -> None:
    def shape(**endpoint: Any) -> Any:
        oracle = {"kind": "llm", "model": "judge", "endpoint": endpoint}
        return config("shape", {"kind": "active", "explorer": ENSEMBLE, "oracle": oracle}).shape({})

    assert shape(timeout=1) == shape(timeout=2) and "endpoint" not in str(shape(timeout=1)["judge"])
