"""A judge with a vLLM engine of its own, in one process with the policy's engine."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sparring.judges.llm import llm_judge
from sparring.judges.llm_client import Question, Reply
from sparring.judges.local import CHUNK, EngineClient
from sparring.loop.errors import ConfigError
from sparring.loop.judgements import duels
from sparring.loop.learning.checkpoint import weights_sha256
from sparring.loop.sampling.requests import Request
from sparring.loop.sampling.vllm_engine import Engine
from sparring.loop.tokens import Template
from sparring.loop.types import Checkpoint, Group, JudgeCall, Judgement, Prompt
from tests.helpers.experience import completion
from tests.helpers.tiny import build_tiny_model

pytestmark = pytest.mark.engine

LABELS = ("A", "B", "C")
SHORT = "{{ conversation[0] }} {{ first }} or {{ second }}?"
LIKELY = ("q", "t")  # what the judge of this test often says after SHORT


def checkpoint(folder: Path) -> Checkpoint:
    return Checkpoint(f"checkpoint_{folder.name}", "run", str(folder), None, weights_sha256(folder))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The policy, the policy after an update, and the judge."""
    root = tmp_path_factory.mktemp("models")
    policy, updated, judge = (build_tiny_model(root / f"seed{seed}", seed=seed) for seed in (0, 1, 9))
    return policy, updated, judge


@pytest.fixture(scope="module")
def policy(models: tuple[Path, Path, Path]) -> Iterator[Engine]:
    engine = Engine(context=256, dtype="float32", max_seqs=16)
    engine.load(checkpoint(models[0]))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def client(models: tuple[Path, Path, Path], policy: Engine) -> Iterator[EngineClient]:
    """Made after the policy's engine, which stays open."""
    client = EngineClient(str(models[2]), dtype="float32")
    yield client
    client.close()


def question(text: str, labels: tuple[str, ...] = LABELS, **fields: object) -> Question:
    return Question(f"judgement of {text}", "judge", ({"role": "user", "content": text},), labels, **fields)  # type: ignore[arg-type]


def replies(client: EngineClient, questions: Sequence[Question]) -> list[Reply]:
    return [reply for chunk in client.ask(questions) for reply in chunk]


def next_logprobs(folder: Path, text: str, labels: Sequence[str] = LABELS) -> dict[str, float]:
    """log P of each label as the next token, by transformers."""
    import torch

    from sparring.loop.learning.checkpoint import load_model

    template = Template.of(str(folder))
    ids = template.prompt_ids([{"role": "user", "content": text}])
    with torch.no_grad():
        logits = load_model(folder, torch.device("cpu"))(torch.tensor([ids])).logits[0, -1]
    logprobs = logits.log_softmax(-1)
    return {label: float(logprobs[template.tokenizer.convert_tokens_to_ids(label)]) for label in labels}


def test_two_engines_in_one_process_keep_apart(
    models: tuple[Path, Path, Path], policy: Engine, client: EngineClient
) -> None:
    before, after = checkpoint(models[0]), checkpoint(models[1])
    ids = Template.of(before.path).prompt_ids([{"role": "user", "content": "say"}])
    sampled = [Request(ids, 3, 7, 1.0, 1.0, 12)]
    questions = [question(f"question {i}", labels=LABELS) for i in range(3)]
    written = policy.generate(sampled)
    told = [r.logprobs for r in replies(client, questions)]
    assert policy.generate(sampled) == written, "the judge's engine changed the policy's"
    policy.load(after)
    assert policy.generate(sampled) != written
    assert [r.logprobs for r in replies(client, questions)] == told, "the policy's new weights changed the judge's"
    policy.load(before)
    assert policy.generate(sampled) == written


def test_log_probs_of_labels_are_those_of_transformers(models: tuple[Path, Path, Path], client: EngineClient) -> None:
    texts = [f"question {i} " + "x" * i for i in range(5)]
    for text, reply in zip(texts, replies(client, [question(text) for text in texts]), strict=True):
        assert reply.logprobs == pytest.approx(next_logprobs(models[2], text), abs=1e-3)
        (call,) = reply.calls
        ids = Template.of(str(models[2])).prompt_ids([{"role": "user", "content": text}])
        assert (call.attempt, call.prompt_tokens, call.completion_tokens, call.cost) == (1, len(ids), 1, None)
        assert (call.judgement_id, call.model, call.error) == (f"judgement of {text}", client.model, "")


def test_a_chunk_at_a_time_and_the_same_alone_or_together(client: EngineClient) -> None:
    questions = [question(f"question {i}") for i in range(CHUNK + 3)]
    chunks = list(client.ask(questions))
    assert [len(chunk) for chunk in chunks] == [CHUNK, 3]
    together = [reply for chunk in chunks for reply in chunk]
    assert [reply.question for reply in together] == questions
    assert replies(client, questions[7:8])[0].logprobs == pytest.approx(together[7].logprobs, abs=1e-5)
    assert len({call.id for reply in together for call in reply.calls}) == len(questions)


def test_json_is_held_to_its_schema(client: EngineClient) -> None:
    schema = {
        "type": "object",
        "properties": {"verdict": {"type": "string", "enum": ["A", "B"]}},
        "required": ["verdict"],
        "additionalProperties": False,
    }
    for reply in replies(client, [question(f"which {i}?", (), schema=schema, max_tokens=200) for i in range(4)]):
        if reply.text is None:
            assert reply.error == "cut at 200 tokens"  # a model of random weights may write spaces for ever
        else:
            assert json.loads(reply.text)["verdict"] in ("A", "B")
    (cut,) = replies(client, [question("which?", (), schema=schema, max_tokens=3)])
    assert cut.text is None and cut.error == "cut at 3 tokens" and cut.calls[0].completion_tokens == 3


def test_a_question_that_does_not_fit_gets_no_answer_and_the_others_do(client: EngineClient) -> None:
    long, short = replies(client, [question("long " * 200), question("short")])
    assert long.text is None and long.calls == () and "room for 511" in long.error  # of the model's 512 positions
    assert short.text is not None and short.logprobs.keys() == set(LABELS)


def test_a_label_is_one_token(client: EngineClient) -> None:
    with pytest.raises(ConfigError, match="label 'Yes' is 3 tokens"):
        replies(client, [question("?", ("Yes", "B"))])


def test_no_question_starts_no_engine(models: tuple[Path, Path, Path]) -> None:
    assert replies(EngineClient(str(models[2])), []) == []


def test_a_judge_of_pairs_on_it(models: tuple[Path, Path, Path], client: EngineClient, tmp_path: Path) -> None:
    """From completions to probabilities, against transformers' log-probs of the same text."""
    prompt_file = tmp_path / "short.jinja"
    prompt_file.write_text(SHORT)
    judge = llm_judge(model=str(models[2]), prompt=str(prompt_file), labels=LIKELY, engine="local")
    judge.client = client  # the engine that is open
    prompt = Prompt.make([{"role": "user", "content": "2 + 2?"}], "train", "", {})
    group = Group(prompt, tuple(completion(prompt.id, k, text) for k, text in enumerate(("4", "5", "four", "five"))))
    records = [record for chunk in judge.judge([group]) for record in chunk]
    judgements = [r for r in records if isinstance(r, Judgement)]
    assert len(judgements) == 2 * len(duels(group)) == len([r for r in records if isinstance(r, JudgeCall)])
    text_of = {c.id: c.text for c in group.completions}
    for j in judgements:
        shown = (text_of[j.completion_id], text_of[j.rival_id or ""])[:: 1 if j.order == 0 else -1]
        asked = f'{{"role": "user", "content": "2 + 2?"}} "{shown[0]}" or "{shown[1]}"?'
        first, second = map(math.exp, next_logprobs(models[2], asked, LIKELY).values())
        p = (first if j.order == 0 else second) / (first + second)
        assert j.value == (pytest.approx(p, abs=1e-3) if first + second >= 0.5 else None)
    assert {j.value is None for j in judgements} == {True, False}


def test_an_engine_that_ends_leaves_the_other_and_may_come_back(
    models: tuple[Path, Path, Path], policy: Engine, client: EngineClient
) -> None:
    """vLLM's process groups are shared: ending one engine once took down all of its process."""
    ids = Template.of(str(models[0])).prompt_ids([{"role": "user", "content": "say"}])
    sampled = [Request(ids, 3, 7, 1.0, 1.0, 12)]
    written, told = policy.generate(sampled), replies(client, [question("still there?")])[0].logprobs
    client.close()
    assert policy.generate(sampled) == written
    assert policy.load(checkpoint(models[1])) and policy.load(checkpoint(models[0]))
    assert policy.generate(sampled) == written
    assert replies(client, [question("still there?")])[0].logprobs == told


def test_other_weights_are_another_judge(models: tuple[Path, Path, Path]) -> None:
    one, other = (llm_judge(model=str(folder), engine="local") for folder in models[:2])
    assert one.name != other.name and one.name == llm_judge(model=str(models[0]), engine={"context": 512}).name
    assert checkpoint(models[0]).weights_sha256[:12] in one.client.model
