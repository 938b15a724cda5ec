"""A run learns under the prompts that it sampled, also when it goes on on another day."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sparring.flows.compose.build import Prepared, build, prepare
from sparring.flows.compose.checkpoints import model_checkpoint
from sparring.flows.compose.run_model import date_of, decided
from sparring.flows.config import parse_config
from sparring.flows.run.rounds import operate
from sparring.loop.errors import ConfigError
from sparring.loop.learning.training_rows import TrainingRows
from sparring.loop.tokens import Rendering, Template
from sparring.store.db import rows
from sparring.store.store import DuckStore
from tests.helpers.chat_templates import DATED, STRICT, build_with
from tests.helpers.tiny import build_tiny_model

DAY = "2026-11-30"  # the day on which the runs began; they are played today
CONTENTS = {
    "completions": "completion_id, token_ids, logprobs, prompt_tokens_id",
    "prompt_tokens": "*",
    "pairs": "pair_id, chosen_id, rejected_id",
    "logprobs": "logprob_id, token_logprobs",
    "checkpoints": "checkpoint_id, weights_sha256",
}


def vowels(prompt: Any, completion: Any) -> float:
    return float(sum(letter in "aeiou" for letter in completion.text))


def ready(folder: Path, model: Path, **given: Any) -> Prepared:
    prompts = [{"prompt": f"say {i}"} for i in ("one", "two", "three", "four", "five")]
    values = {
        "name": "dated",
        "store": str(folder / "store.duckdb"),
        "rounds": 2,
        "policy": {"model": str(model)},
        "prompts": {"train": prompts[:3], "eval": prompts[3:]},
        "sample": {"engine": "transformers", "n": 4, "max_tokens": 12, "context": 200, "chunk": 1},
        "judge": {"kind": vowels},
        "learn": {"lr": 1e-3, "batch_size": 2, "dtype": "float32"},
        "evaluate": {"gate": None, "n": 2},
    }
    return prepare(parse_config(values | given, "test"))


@pytest.fixture(scope="module")
def dated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_with(tmp_path_factory.mktemp("models") / "dated", DATED)


def began(prepared: Prepared, model: Path, day: str = DAY) -> Prepared:
    """The run as if it had begun on that day."""
    prepared.store.add(
        [[prepared.info, decided(prepared.info.id, model_checkpoint("", str(model)), prepared.config, day)]]
    )
    return prepared


def play(prepared: Prepared, until: int = 2) -> DuckStore:
    loop = build(prepared)
    try:
        operate(loop, until)
    finally:
        loop.close()
    return prepared.store


def contents(store: DuckStore) -> dict[str, list[dict[str, Any]]]:
    with store.db.read() as con:
        return {name: rows(con, f"SELECT {columns} FROM {name} ORDER BY ALL") for name, columns in CONTENTS.items()}


class Killed(BaseException):
    pass


def dies(after: int) -> Any:
    """Chunks on their way into the store, until the process dies."""
    seen = iter(range(after))

    def on_chunk(step: str, total: int, chunks: Any) -> Any:
        for chunk in chunks:
            if next(seen, None) is None:
                raise Killed
            yield chunk

    return on_chunk


def test_a_run_that_crosses_midnight_learns_under_the_prompts_that_it_sampled(dated: Path, tmp_path: Path) -> None:
    alone = play(began(ready(tmp_path / "alone", dated), dated))
    asked = alone.db.rows("SELECT DISTINCT p.token_ids FROM completions JOIN prompt_tokens p USING (prompt_tokens_id)")
    texts = [Template.of(str(dated)).tokenizer.decode(row["token_ids"]) for row in asked]
    assert len(texts) == 5 and all(text.startswith("Today is 30 Nov 2026.\n") for text in texts)

    for after in (2, 9):
        where = tmp_path / f"killed-{after}"
        first = began(ready(where, dated), dated)
        loop = build(first, on_chunk=dies(after))
        with pytest.raises(Killed):
            operate(loop, 2)
        loop.close()
        resumed = play(ready(where, dated))  # today
        assert contents(resumed) == contents(alone)


def test_another_day_is_another_run_of_tokens(dated: Path, tmp_path: Path) -> None:
    stores = [play(began(ready(tmp_path / day, dated), dated, day), 1) for day in (DAY, "2026-12-01")]
    weights = [store.db.rows("SELECT weights_sha256 FROM checkpoints ORDER BY path") for store in stores]
    assert weights[0] != weights[1]


def test_a_run_from_before_the_table_takes_the_day_on_which_it_was_registered(dated: Path, tmp_path: Path) -> None:
    prepared = ready(tmp_path, dated)
    prepared.store.add([[prepared.info]])
    with prepared.store.db.write() as con:
        con.execute("UPDATE runs SET created_at = '2026-11-30 23:59:59+00'")
    assert date_of(prepared.store, prepared.info.id) == DAY


def test_the_learner_takes_the_tokens_that_were_given(dated: Path, tmp_path: Path) -> None:
    prepared = began(ready(tmp_path, dated), dated)
    store = play(prepared, 1)
    loop = build(prepared)
    rnd = replace(loop.start, index=1)
    loop.close()
    table = store.training_rows(rnd, [])
    assert table.num_rows > 0
    kept = [list(ids) for ids in table["prompt_token_ids"].to_pylist()]
    read = TrainingRows.read(table, str(dated), rendering=Rendering(date="2031-01-01"))
    assert [list(row.prompt) for row in read.rows] == kept
    without = table.drop_columns(["prompt_token_ids"])
    assert [
        list(row.prompt) for row in TrainingRows.read(without, str(dated), rendering=Rendering(date=DAY)).rows
    ] == kept
    assert [list(row.prompt) for row in TrainingRows.read(without, str(dated)).rows] != kept


SYSTEM = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "say six"}]}


def test_a_prompt_that_the_template_refuses_fails_alone(tmp_path: Path) -> None:
    model = build_with(tmp_path / "strict", STRICT)
    prompts = {"train": [{"prompt": "say one"}, {"prompt": "say two"}, SYSTEM], "eval": [{"prompt": "say three"}]}
    store = play(ready(tmp_path, model, prompts=prompts), 1)
    failed = store.db.rows("SELECT outcome, reason FROM outcomes WHERE outcome = 'failed'")
    assert len(failed) == 1 and "System role not supported" in failed[0]["reason"]
    merged = play(ready(tmp_path / "merged", model, prompts=prompts | {"system": "merge"}), 1)
    assert not merged.db.rows("SELECT outcome FROM outcomes WHERE outcome = 'failed'")


def test_a_run_of_which_all_prompts_are_refused_does_not_start(tmp_path: Path) -> None:
    model = build_with(tmp_path / "strict", STRICT)
    prepared = ready(tmp_path, model, prompts={"train": [SYSTEM], "eval": [{"prompt": "say three"}]})
    with pytest.raises(ConfigError, match=r"all 1 prompts.*System role"):
        build(prepared)
    assert not prepared.store.db.path.exists()


def test_a_template_argument_that_is_not_read_is_refused(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "tiny")
    with pytest.raises(ConfigError, match=r"policy\.template has enable_thinking"):
        build(ready(tmp_path, model, policy={"model": str(model), "template": {"enable_thinking": False}}))
