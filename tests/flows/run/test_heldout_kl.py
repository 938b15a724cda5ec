"""The KL of a real policy's held-out answers, sampled cold: what is stored, what stops on it, what a kill leaves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from sparring.flows.compose.build import build, prepare
from sparring.flows.config import parse_config
from sparring.flows.run.decisions import Stopped
from sparring.flows.run.rounds import operate
from sparring.loop.evaluator import mean_interval
from sparring.loop.types import Divergence
from sparring.store.store import DuckStore

pytestmark = pytest.mark.slow

ROWS = {
    "divergences": "SELECT * FROM divergences ORDER BY divergence_id",
    "evaluations": "SELECT * FROM evaluations ORDER BY evaluation_id",
}


def vowels(prompt: Any, completion: Any) -> float:
    return float(sum(letter in "aeiou" for letter in completion.text))


class Killed(BaseException):
    pass


def dies(kept: int) -> Any:
    """Chunks of KLs on their way into the store, until the process dies."""

    def on_chunk(step: str, total: int, chunks: Iterator[Any]) -> Iterator[Any]:
        for number, chunk in enumerate(chunks):
            if number == kept and any(isinstance(row, Divergence) for row in chunk):
                raise Killed
            yield chunk

    return on_chunk


def play(folder: Path, model: Path, kept: int | None = None, **given: Any) -> DuckStore:
    prompts = [{"prompt": f"say {word}"} for word in ("one", "two", "three", "four", "five", "six", "seven")]
    values = {
        "name": "cold",
        "store": str(folder / "store.duckdb"),
        "rounds": 1,
        "policy": {"model": str(model)},
        "prompts": {"train": prompts[:2], "eval": prompts[2:]},
        "sample": {"engine": "transformers", "n": 4, "max_tokens": 12, "temperature": 0.7, "top_p": 0.95},
        "judge": {"kind": vowels},
        "learn": {"lr": 1e-2, "batch_size": 2, "dtype": "float32", "token_budget": 100},
        "evaluate": {"gate": None, "n": 2},
    }
    prepared = prepare(parse_config(values | given, "test"))
    loop = build(prepared) if kept is None else build(prepared, on_chunk=dies(kept))
    try:
        operate(loop, 1)
    finally:
        loop.close()
    return prepared.store


def contents(store: DuckStore) -> dict[str, list[dict[str, Any]]]:
    return {name: store.db.rows(sql) for name, sql in ROWS.items()}


def logs(folder: str, ids: list[int], prompt: int) -> Any:
    """(tokens, V) float64 log-probs at the positions that predict the tokens after the prompt."""
    with torch.no_grad():
        z = AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([ids])).logits[0, prompt - 1 : -1].double()
    return z.log_softmax(-1).numpy()


@pytest.fixture(scope="module")
def played(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> DuckStore:
    return play(tmp_path_factory.mktemp("played"), tiny)


def test_it_is_that_of_the_models_along_the_first_held_out_answers(played: DuckStore) -> None:
    answers = played.db.rows(
        """SELECT c.completion_id, c.temperature, c.top_p, c.token_ids, t.token_ids AS prompt, k.path, d.value
        FROM divergences d JOIN completions c USING (completion_id) JOIN prompt_tokens t USING (prompt_tokens_id)
        JOIN checkpoints k ON k.checkpoint_id = c.policy_id JOIN prompts p ON p.prompt_id = c.prompt_id
        WHERE c.round = 1 AND c.sample = 0 AND p.split = 'eval'"""
    )
    (initial,) = played.db.rows("SELECT path FROM checkpoints WHERE parent_id IS NULL")
    assert len(answers) == 5 and {(a["temperature"], round(a["top_p"], 2)) for a in answers} == {(0.7, 0.95)}
    for answer in answers:
        ids, start = [*answer["prompt"], *answer["token_ids"]], len(answer["prompt"])
        p, q = logs(answer["path"], ids, start), logs(initial["path"], ids, start)
        assert answer["value"] == pytest.approx(float((np.exp(p) * (p - q)).sum()), rel=1e-4)
    values = [answer["value"] for answer in answers]
    assert min(values) > 0
    (kl,) = played.db.rows("SELECT round, value, low, high, n FROM evaluations WHERE metric = 'kl'")
    mean, low, high = mean_interval(values)
    assert low is not None and kl["low"] == pytest.approx(max(0.0, low)) and kl["high"] == pytest.approx(high)
    assert (kl["round"], kl["n"], kl["value"]) == (1, 5, pytest.approx(mean))


def test_a_run_stops_on_it(played: DuckStore, tiny: Path, tmp_path: Path) -> None:
    (kl,) = played.db.rows("SELECT value FROM evaluations WHERE metric = 'kl'")
    with pytest.raises(Stopped, match="temperature 1"):
        play(tmp_path, tiny, stop={"kl": 0.99 * kl["value"]})


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_killed_on_the_way_and_resumed_it_has_the_same_rows(
    played: DuckStore, tiny: Path, tmp_path: Path, kept: int
) -> None:
    with pytest.raises(Killed):
        play(tmp_path, tiny, kept)
    store = DuckStore(tmp_path / "store.duckdb")
    assert bool(store.db.rows("FROM divergences")) == bool(kept)
    assert store.db.rows("FROM evaluations WHERE round = 1") == []
    assert contents(play(tmp_path, tiny)) == contents(played)
