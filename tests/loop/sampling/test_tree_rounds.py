"""Two rounds that learn from the steps of a tree: the tiny model, taught to answer in a few words."""

import gc
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from sparring.flows.compose.build import build, prepare
from sparring.flows.config import parse_config
from sparring.loop.errors import ConfigError
from sparring.loop.round import play
from sparring.store.db import rows
from tests.helpers.kept_store import KeptStore
from tests.helpers.taught import teach

TREE = {"step_tokens": 1, "iterations": 5, "actions": 3}
COUNT = 4


@pytest.fixture(scope="module")
def world(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("world")
    for split, count in (("train", COUNT), ("eval", 2)):
        lines = [json.dumps({"prompt": f"{split} {i}", "regex": "o", "max_words": 2}) for i in range(count)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    teach(tiny, folder / "model", [f"train {i}" for i in range(COUNT)])
    gc.collect()
    gc.freeze()  # an update ends with a collection, which would go through all that torch has made
    yield folder
    gc.unfreeze()


def config(world: Path, folder: Path, **changes: Any) -> Mapping[str, Any]:
    values: dict[str, Any] = {
        "name": "trees",
        "store": str(folder / "store.duckdb"),
        "policy": {"model": str(world / "model")},
        "prompts": {split: str(world / f"{split}.jsonl") for split in ("train", "eval")},
        "sample": {"tree": TREE, "max_tokens": 4, "context": 128, "dtype": "float32", "engine": "transformers"},
        "judge": {"kind": "rules", "truncated": "fail"},
        "pair": {"kind": "siblings"},
        "learn": {"lr": 1e-3, "batch_size": 2, "epochs": 2, "dtype": "float32", "from_divergence": True},
        "evaluate": {"n": 1, "gate": None},
    }
    for key, change in changes.items():
        values[key] = {**values[key], **change}
    return values


Ask = Callable[[str], list[dict[str, Any]]]


@contextmanager
def played(values: Mapping[str, Any], rounds: int) -> Iterator[Ask]:
    """The rounds, and a way to ask the store of them."""
    prepared = prepare(parse_config(values, "test"))
    store = KeptStore(Path(values["store"]))
    loop = build(replace(prepared, store=store))
    rnd = loop.start
    try:
        while rnd.index <= rounds:
            rnd = play(rnd, loop.parts)
        with store.db.read() as con:
            yield lambda sql: rows(con, sql)
    finally:
        loop.close()
        store.close()


@pytest.mark.slow
def test_two_rounds_learn_from_steps(world: Path, tmp_path: Path) -> None:
    with played(config(world, tmp_path), 2) as ask:
        refuse_wrong(ask)


def refuse_wrong(ask: Ask) -> None:
    sampled = ask("SELECT c.* FROM completions c JOIN prompts p USING (prompt_id) WHERE p.split = 'train'")
    parents = {c["parent_id"] for c in sampled}
    for row in ask("SELECT * FROM round_summary WHERE round > 0"):
        outcomes = ("paired", "ties", "identical", "abstained", "filtered", "failed")
        assert sum(row[name] for name in outcomes) == row["prompts"] == COUNT
        answers = [c for c in sampled if c["round"] == row["round"] and c["completion_id"] not in parents]
        assert row["completions"] == row["judged"] == len(answers) >= COUNT * 3  # full answers alone
        assert row["truncated"] == fmean(c["finish_reason"] == "length" for c in answers) < 1
        assert row["pairs"] > 0
    partial = ask("SELECT * FROM completions c SEMI JOIN completions k ON k.parent_id = c.completion_id")
    assert {c["finish_reason"] for c in partial} == {"length"}
    assert not ask("SELECT 1 FROM judgements j JOIN completions k ON k.parent_id = j.completion_id")
    sides = ask(
        """SELECT c.parent_id AS one, r.parent_id AS other, c.token_ids AS chosen, r.token_ids AS rejected, p.token_ids
        FROM pairs x JOIN completions c ON c.completion_id = x.chosen_id
        JOIN completions r ON r.completion_id = x.rejected_id LEFT JOIN completions p ON p.completion_id = c.parent_id
        WHERE x.builder = 'siblings'""",
    )
    for side in sides:
        before = side["token_ids"] or []
        assert side["one"] == side["other"]
        assert before == side["chosen"][: len(before)] == side["rejected"][: len(before)]
    assert any(side["one"] for side in sides)  # below the first step, too
    held_out = ask("SELECT parent_id FROM completions JOIN prompts USING (prompt_id) WHERE split = 'eval'")
    assert len(held_out) == 3 * 2 and not any(row["parent_id"] for row in held_out)
    (tokens,) = ask("SELECT avg((metrics ->> 'chosen_tokens')::DOUBLE) AS mean FROM updates")
    (whole,) = ask("SELECT avg(len(token_ids)) AS mean FROM completions JOIN pairs ON completion_id = chosen_id")
    assert tokens["mean"] < whole["mean"] - 0.3  # what the siblings share is not learned from


@pytest.mark.slow
def test_the_loss_of_a_step_is_that_of_the_whole_answers(world: Path, tmp_path: Path) -> None:
    """The tokens that siblings share add the same to both log-ratios. After the first step the loss is not log 2."""
    losses, learn = [], {"lr": 1e-4, "epochs": 4, "batch_size": 64}  # one batch: they are made of rows of like length
    for name, start in (("step", True), ("whole", False)):
        (tmp_path / name).mkdir()
        with played(config(world, tmp_path / name, learn={"from_divergence": start, **learn}), 1) as ask:
            steps = ask("SELECT (metrics ->> 'loss')::DOUBLE AS loss FROM update_steps ORDER BY step")
        losses.append([step["loss"] for step in steps])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert len(losses[0]) == 4 and losses[0][-1] < 0.69


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sample": {"tree": {"value": {"kind": "reward_model"}}}},
            "sample.tree.value is judge 'reward_model'; a search",
        ),
        ({"sample": {"tree": {"value": {"kind": "rules", "regx": "a"}}}}, "judge 'rules' has no option 'regx'"),
        ({"sample": {"tree": {"step": ".", "step_tokens": 3}}}, "sample.tree has step and step_tokens"),
        ({"sample": {"tree": {"actions": 1}}}, "sample.tree.actions: found 1"),
        ({"sample": {"tree": {"branches": 3}}}, "sample.tree.branches: unknown key"),
        (
            {"sample": {"n": 0, "extra": [{"of": "initial"}]}},
            "sample.n is 0, and sample.tree searches among the policy's answers",
        ),
        ({"sample": {"temperature": 0, "tree": TREE}}, "sample.temperature is 0, and sample.tree"),
        (
            {"pair": {"kind": "group"}, "learn": {"algorithm": "rloo", "from_divergence": False}},
            "algorithm 'rloo' learns from independent answers, and those of sample.tree share their beginnings",
        ),
    ],
)
def test_what_a_search_cannot_be(world: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        prepare(parse_config(config(world, tmp_path, **changes), "test"))
    assert message in str(error.value)


def test_a_search_without_any_rule_has_no_value_to_go_by(world: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.jsonl").write_text(json.dumps({"prompt": "is it"}))
    values = config(world, tmp_path, prompts={"train": str(tmp_path / "plain.jsonl")})
    with pytest.raises(ConfigError, match="no train prompt has a rule: the search has no value to go by"):
        prepare(parse_config(values, "test"))
    given = {"tree": TREE | {"value": {"kind": "rules", "regex": "o"}}}
    prepare(parse_config({**values, "sample": {**values["sample"], **given}}, "test"))
