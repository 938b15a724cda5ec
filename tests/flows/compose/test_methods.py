"""Every example of the page on methods is played for two rounds, with a tiny model in place of what it names."""

import gc
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

import pytest

from sparring.flows.compose.build import Loop, build, prepare
from sparring.flows.config import Config, Learn, parse_config
from sparring.loop.round import play
from sparring.store.db import rows
from tests.helpers.kept_store import KeptStore
from tests.helpers.methods_page import CONFIGS, Values
from tests.helpers.taught import teach
from tests.helpers.verdict_server import verdict_server

PROMPTS = ["which one", "what is it"]
SMALL: dict[str, Values] = {
    "sample": {"max_tokens": 6, "context": 128, "dtype": "float32", "engine": "transformers"},
    "learn": {"lr": 1e-3, "batch_size": 2, "dtype": "float32"},
    "evaluate": {"n": 1, "gate": None},
}


@dataclass(frozen=True)
class World:
    """What the examples are played with, in place of what the page names."""

    model: Path
    prompts: Values
    endpoint: Values

    def config(self, name: str, folder: Path) -> Values:
        values = CONFIGS[name] | {"store": str(folder / "store.duckdb"), "policy": {"model": str(self.model)}}
        for section, small in SMALL.items():
            values[section] = values[section] | small
        values["sample"]["n"] = min(values["sample"].get("n", 8), 4)
        if "tree" in values["sample"]:  # the model's answers have no blank line
            values["sample"]["tree"] = {"step_tokens": 2, "iterations": 4}
        values["prompts"] = self.prompts
        if values["judge"]["kind"] == "llm":
            values["judge"] = values["judge"] | {"canaries": "skip", "endpoint": self.endpoint}
        return values


def learned_by(learn: Learn) -> str:
    """What the store calls an update: the policy gradient's name, or that of the loss or losses."""
    if learn.algorithm != "preference":
        return learn.algorithm
    return learn.loss if isinstance(learn.loss, str) else "+".join(each.kind for each in learn.loss)


@pytest.fixture(scope="module")
def world(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("methods")
    rules = {"regex": "[ans]", "max_words": 1, "response": "yes"}
    for split, count in (("train", 3), ("eval", 2)):
        lines = [json.dumps({"prompt": f"{PROMPTS[i % 2]}, {split} {i}", **rules}) for i in range(count)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    model = teach(tiny, folder / "taught", PROMPTS)
    gc.collect()
    gc.freeze()  # an update ends with a collection, which would go through all that torch has made
    with verdict_server() as url:
        yield World(
            model,
            {split: str(folder / f"{split}.jsonl") for split in ("train", "eval")},
            {"base_url": url, "api_key_env": "NO_KEY_IS_NEEDED"},
        )
    gc.unfreeze()


@contextmanager
def started(config: Config, folder: Path) -> Iterator[tuple[Loop, KeptStore]]:
    prepared = prepare(config)
    store = KeptStore(folder / "store.duckdb")
    loop = build(replace(prepared, store=store))
    try:
        yield loop, store
    finally:
        loop.close()
        store.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_an_example_plays_two_rounds(world: World, tmp_path: Path, name: str) -> None:
    config = parse_config(world.config(name, tmp_path), name)
    with started(config, tmp_path) as (loop, store):
        play(play(play(loop.start, loop.parts), loop.parts), loop.parts)
        played = told(store)
    for index, update in enumerate(played, start=1):
        assert update["round"] == index
        assert update["algorithm"] == learned_by(config.learn)
        assert update["weights_before"] != update["weights_after"]
        assert update["reference_ids"] == compared_with(config.learn.reference.kind, update)
        assert update["losses"] and all(isfinite(loss) for loss in update["losses"])
        assert update["outcomes"] == update["prompts"] == 3
        assert set(update["builders"]) == {config.pair.kind}
    assert played[1]["before_id"] == played[0]["after_id"]


def told(store: KeptStore) -> list[Values]:
    """What the store has of each round's update."""
    with store.db.read() as con:
        return rows(
            con,
            """SELECT r.round, u.algorithm, u.before_id, u.after_id, u.reference_ids, r.policy_id, r.initial_id,
                r.reference_id, len(r.prompt_ids) AS prompts,
                b.weights_sha256 AS weights_before, a.weights_sha256 AS weights_after,
                (SELECT list((metrics ->> 'loss')::DOUBLE) FROM update_steps s WHERE s.update_id = u.update_id)
                    AS losses,
                (SELECT count(*) FROM outcomes o WHERE (o.run_id, o.round) = (r.run_id, r.round)) AS outcomes,
                (SELECT list(DISTINCT builder) FROM (SELECT run_id, round, builder FROM pairs
                    UNION ALL SELECT run_id, round, builder FROM examples) p
                    WHERE (p.run_id, p.round) = (r.run_id, r.round)) AS builders
            FROM rounds r LEFT JOIN updates u USING (run_id, round)
            LEFT JOIN checkpoints b ON b.checkpoint_id = u.before_id
            LEFT JOIN checkpoints a ON a.checkpoint_id = u.after_id
            ORDER BY r.round LIMIT 2""",
        )


def compared_with(kind: str, update: Values) -> list[str]:
    policy, initial, reference = update["policy_id"], update["initial_id"], update["reference_id"]
    if kind == "ema" and update["round"] == 2:
        assert reference not in (policy, initial)
        return [reference]
    of = {"none": [], "initial": [initial], "mixture": [policy, initial]}
    return of.get(kind, [policy])


def test_the_models_answers_are_worth_comparing(world: World, tmp_path: Path) -> None:
    """They have several lengths, some are cut off and some stop by themselves: else much of a method would not run."""
    with started(parse_config(world.config("DPO", tmp_path), "DPO"), tmp_path) as (loop, store):
        play(play(loop.start, loop.parts), loop.parts)
        with store.db.read() as con:
            found = rows(con, "SELECT finish_reason, len(token_ids) AS n FROM completions WHERE round = 1")
    assert len({row["n"] for row in found}) >= 4
    assert Counter(row["finish_reason"] for row in found).keys() == {"stop", "length"}
