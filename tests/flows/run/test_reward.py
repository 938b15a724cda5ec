"""A reward model's training as a run of its own: what is stored, that it resumes, and that its labels can be mended."""

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sparring.flows.compose.judge_factory import judge_info, make_judge
from sparring.flows.config import JudgeConfig
from sparring.flows.config.reward import RewardConfig, read_reward_config
from sparring.flows.run.reward import KIND, prepare_reward, train_reward
from sparring.loop.errors import ConfigError, DataError, SavedAndLeft
from sparring.loop.judgements import score_id
from sparring.loop.types import Judgement
from sparring.store.db import rows
from sparring.store.lineage import walk
from sparring.store.store import DuckStore
from tests.helpers.records import completion, filled_store, prompt, round_of
from tests.helpers.reward_pairs import write_pairs


def config_of(folder: Path, tiny: Path, **changes: Any) -> RewardConfig:
    values: dict[str, Any] = {
        "name": "rm",
        "store": str(folder / "s.duckdb"),
        "model": str(tiny),
        "pairs": {"train": str(write_pairs(folder / "pairs.jsonl", 40)), "held_out": 0.3},
        "train": {"freeze": "backbone", "pooling": "answer_mean", "epochs": 10, "batch_size": 8, "dtype": "float32"},
    }
    return RewardConfig.model_validate(values | changes)


def ask(store: DuckStore, sql: str) -> list[dict[str, Any]]:
    with store.db.read() as con:
        return rows(con, sql)


def test_a_reward_model_is_a_checkpoint_with_lineage(tmp_path: Path, tiny: Path) -> None:
    ready = prepare_reward(config_of(tmp_path, tiny))
    assert {x.preference.prompt for x in ready.train} & {p.prompt for p in ready.held_out} == set()
    made = train_reward(ready)
    store = ready.store
    found = {e["metric"]: e for e in ask(store, "SELECT * FROM evaluations")}
    assert found["accuracy"]["value"] > 0.9
    assert found["accuracy"]["n"] == len(ready.held_out)
    assert found["accuracy"]["candidate_id"] == made.id
    splits = {r["split"]: r["n"] for r in ask(store, "SELECT split, count(*) AS n FROM prompts GROUP BY split")}
    assert splits == {"train": len(ready.train), "eval": len(ready.held_out)}
    (update,) = ask(store, "SELECT * FROM updates")
    assert (update["algorithm"], update["n_examples"], update["after_id"]) == (KIND, len(ready.train), made.id)
    with store.db.read() as con:
        causes = Counter(edge["kind"] for edge in walk(con, made.id, "causes", None))
    n = len(ready.train)  # each with its prompt and two answers; none of the held-out ones
    assert causes == {"update": 1, "checkpoint": 1, "pair": n, "completion": 2 * n, "prompt": n}
    assert not (ready.folder / "training").exists()
    assert train_reward(ready) == made  # done: nothing is trained or stored again


@pytest.mark.slow
def test_stopped_in_the_middle_it_ends_with_the_same_weights(tmp_path: Path, tiny: Path) -> None:
    class Stop(Exception):
        pass

    def stop(what: str, done: int, total: int, loss: float | None) -> None:
        if what == "train" and done == 17:
            raise Stop

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    made = []
    for folder in (whole, broken):
        folder.mkdir()
        config = config_of(folder, tiny)
        config.train["save_seconds"] = 0.0
        if folder is broken:
            with pytest.raises(Stop):
                train_reward(prepare_reward(config), stop)
            assert ask(DuckStore(config.store), "SELECT * FROM updates") == []
        seen: list[int] = []

        def on_chunk(what: str, done: int, total: int, loss: float | None, seen: list[int] = seen) -> None:
            if what == "train":
                seen.append(done)

        made.append(train_reward(prepare_reward(config), on_chunk))
        assert seen[0] == (17 if folder is broken else 1)  # the 17th step was taken and not yet saved
    assert made[0].weights_sha256 == made[1].weights_sha256


@pytest.mark.slow
def test_asked_to_leave_it_saves_the_step_and_ends_with_the_same_weights(tmp_path: Path, tiny: Path) -> None:
    def leave(what: str, done: int, total: int, loss: float | None) -> None:
        if what == "train" and done == 17:
            os.kill(os.getpid(), signal.SIGUSR1)

    whole, left = (config_of(tmp_path, tiny, name=name, store=str(tmp_path / f"{name}.duckdb")) for name in ("a", "b"))
    made = train_reward(prepare_reward(whole))
    with pytest.raises(SavedAndLeft):
        train_reward(prepare_reward(left), leave)
    seen: list[int] = []
    again = train_reward(prepare_reward(left), lambda what, done, *_: seen.append(done) if what == "train" else None)
    assert seen[0] == 18
    assert again.weights_sha256 == made.weights_sha256


def test_another_config_under_its_name_is_refused(tmp_path: Path, tiny: Path) -> None:
    train_reward(prepare_reward(config_of(tmp_path, tiny)))
    with pytest.raises(ConfigError, match="seed: 1"):
        prepare_reward(config_of(tmp_path, tiny, seed=1))


def test_it_learns_from_the_pairs_of_a_run(tmp_path: Path, tiny: Path) -> None:
    filled = filled_store(tmp_path / "s.duckdb")
    config = config_of(tmp_path, tiny, pairs={"run": "hand", "held_out": 0.0})
    ready = prepare_reward(config)
    wanted = {r["pair_id"] for r in ask(filled.store, "SELECT pair_id FROM pairs")}
    assert {x.pair_id for x in ready.train} == wanted
    made = train_reward(ready)
    linked = {r["pair_id"] for r in ask(ready.store, "SELECT pair_id FROM update_pairs")}
    assert linked == wanted
    assert filled.store.run() == filled.info  # the latest loop is still the loop
    assert made.id in {r["checkpoint_id"] for r in ask(ready.store, "SELECT checkpoint_id FROM checkpoints")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("labels", "builder"),
    [
        ({"kind": "strength", "models": 3, "folds": 2, "wrong": 0.3}, "strength"),
        ({"kind": "self_evolved", "rounds": 2}, "self_evolved"),
        ({"kind": "weak"}, "weak"),
    ],
)
def test_labels_are_mended_or_made_and_what_was_learned_is_in_the_store(
    tmp_path: Path, tiny: Path, labels: dict[str, Any], builder: str
) -> None:
    config = config_of(tmp_path, tiny, labels=labels)
    more = write_pairs(tmp_path / "more.jsonl", 20, start=100)
    if builder == "weak":  # a rule of thumb must tell good from bad for its label to be worth something
        for path in (tmp_path / "pairs.jsonl", more):
            path.write_text(path.read_text().replace("zzzz yes zzzz", "yes. This is a whole longer sentence, so."))
    config.pairs.unlabelled = None if builder == "strength" else str(more)
    ready = prepare_reward(config)
    train_reward(ready)
    learned = ask(
        ready.store,
        """SELECT p.builder, p.p_chosen, p.margin, c.text AS chosen FROM update_pairs u JOIN pairs p USING (pair_id)
        JOIN completions c ON c.completion_id = p.chosen_id""",
    )
    assert {row["builder"] for row in learned} == {builder}
    if builder == "strength":
        assert len(learned) == len(ready.train)
        assert len({row["margin"] for row in learned}) > 1
    else:
        assert len(learned) > len(ready.train)
        assert sum("no" in row["chosen"].split() for row in learned) == 0  # the labels that were made are right


def test_flipped_labels_are_the_share_that_was_asked_for(tmp_path: Path, tiny: Path) -> None:
    plain = prepare_reward(config_of(tmp_path, tiny))
    pairs = {"train": str(tmp_path / "pairs.jsonl"), "held_out": 0.3, "flip": 0.25}
    noisy = prepare_reward(config_of(tmp_path, tiny, pairs=pairs))
    turned = [x.preference.p_a != y.preference.p_a for x, y in zip(plain.train, noisy.train, strict=True)]
    assert 0 < sum(turned) < 0.5 * len(turned)
    assert noisy.held_out == plain.held_out  # who measures is told the truth


@pytest.mark.slow
def test_a_trained_model_judges_and_its_verdicts_lead_back_to_it(tmp_path: Path, tiny: Path) -> None:
    ready = prepare_reward(config_of(tmp_path, tiny))
    made = train_reward(ready)
    section = JudgeConfig.model_validate({"kind": "reward_model", "model": made.path})
    judge = make_judge(section)
    info = judge_info(section, judge)
    assert list(info.weights_sha256) == [made.weights_sha256]
    asked = prompt("question 1")
    of = completion(round_of(1, made, made, [asked]), asked)
    verdict = Judgement(score_id(judge.name, of, "0"), judge.name, of.id, None, "0", "", 0, 0.5)
    ready.store.add([[asked, of, info, verdict]])
    with ready.store.db.read() as con:
        causes = {edge["id"] for edge in walk(con, verdict.id, "causes")}
    assert {judge.name, made.id} <= causes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {"freez": "backbone"}}, "no option 'freez' (did you mean 'freeze'?)"),
        ({"labels": {"kind": "strenght"}}, "'strenght' (did you mean 'strength'?)"),
        ({"labels": {"kind": "strength", "model": 3}}, "no option 'model' (did you mean 'models'?)"),
        ({"train": {"seed": 3}}, "train.seed"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, tiny: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        prepare_reward(config_of(tmp_path, tiny, **changes))
    assert message in str(error.value)


def test_held_out_prompts_are_never_learned_from(tmp_path: Path, tiny: Path) -> None:
    same = str(write_pairs(tmp_path / "same.jsonl", 40))
    with pytest.raises(DataError, match="40 training pairs have a held-out prompt"):
        prepare_reward(config_of(tmp_path, tiny, pairs={"train": same, "eval": same}))


def test_the_yaml_form_names_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "rm.yaml"
    file.write_text("name: rm\nmodel: x\npairs: {trian: a}\n")
    with pytest.raises(ConfigError, match=r"pairs.trian: unknown key \(did you mean 'train'\?\)"):
        read_reward_config(file)
    file.write_text("name: rm\nmodel: x\npairs: {}\n")
    with pytest.raises(ConfigError, match="give one of them"):
        read_reward_config(file)
