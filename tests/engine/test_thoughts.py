"""A policy that thinks plays two rounds on real vLLM: rules read its answers alone, learning takes all its tokens."""

from pathlib import Path

import pytest

import sparring
from sparring.loop.tokens import Rendering, Template
from tests.helpers.chat_templates import THINKING, build_with
from tests.helpers.taught import teach

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

PROMPTS = ["2 + 2?", "1 + 3?", "4 + 0?", "3 + 1?"]
# Right and wrong answers after wrong and right thoughts; thoughts that never end; and an answer without a thought.
SAID = ["<think>5</think>4", "<think>4</think>5", "<think>4</think>4", "<think>4 and 4 and 4 and 4 and 4 and 4", "5"]


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    model = build_with(root / "plain", THINKING, tokens=("<think>", "</think>"))
    return teach(model, root / "taught", PROMPTS, SAID, steps=60)


def test_rules_judge_answers_and_learning_takes_thoughts(thinking: Path, tmp_path: Path) -> None:
    rows = [{"prompt": prompt, "answer": "4"} for prompt in PROMPTS]
    config = sparring.Config(
        name="thinks",
        store=str(tmp_path / "store.duckdb"),
        rounds=2,
        policy={"model": str(thinking)},
        prompts={"train": rows[:3], "eval": rows[3:]},
        sample={"n": 12, "max_tokens": 16, "context": 200, "max_seqs": 36},
        judge={"kind": "rules"},
        learn={"lr": 1e-4, "batch_size": 2},
        evaluate={"gate": None, "n": 8},
    )
    result = sparring.run(config, quiet=True)
    assert result.rounds == 2
    answers = result.sql("""
        SELECT text, thought, token_ids, j.value, finish_reason FROM completions c
        LEFT JOIN judgements j ON j.completion_id = c.completion_id""").rows()
    template = Template.of(str(thinking), Rendering())
    for row in answers:
        whole = template.tokenizer.decode(row["token_ids"], skip_special_tokens=True)
        assert "<think>" not in row["text"] or not whole.startswith("<think>")
        if row["thought"] is None:
            assert row["text"] == whole
        elif row["text"] == "":
            assert row["value"] is None  # not closed: nobody was asked
        if row["value"] is not None and row["text"] in ("4", "5"):
            assert row["value"] == float(row["text"] == "4"), row
    closed = [row for row in answers if row["thought"] is not None and row["text"]]
    assert {(row["thought"], row["text"]) for row in closed} >= {("5", "4"), ("4", "5")}
    assert any(row["thought"] is not None and not row["text"] for row in answers)
    pairs = result.sql("SELECT c.text, c.thought, c.token_ids FROM pairs p JOIN completions c "
                       "ON c.completion_id IN (p.chosen_id, p.rejected_id)").rows()  # fmt: skip
    assert pairs and all(row["thought"] is None or row["text"] for row in pairs)
    think = template.tokenizer.convert_tokens_to_ids("<think>")
    assert any(think in row["token_ids"] for row in pairs)  # what is learned from has the thought's tokens
    (measured,) = result.sql("SELECT value FROM evaluations WHERE metric = 'unanswered' AND round = 2").rows()
    assert 0 < measured["value"] < 1
