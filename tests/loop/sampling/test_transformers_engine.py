"""The plain engine as one that is asked, and a policy that is asked in the engine that samples."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from sparring.judges.llm_client import Question
from sparring.judges.local import PolicyClient
from sparring.loop.learning.checkpoint import weights_sha256
from sparring.loop.sampling.requests import GreedyRequest, Request
from sparring.loop.sampling.sampler import EngineSampler, Sampling
from sparring.loop.sampling.transformers_engine import PlainEngine
from sparring.loop.tokens import Template
from sparring.loop.types import Checkpoint
from tests.helpers.tiny import build_tiny_model
from tests.helpers.zoo import make

LENGTHS = (5, 9, 30)


def checkpoint(folder: Path, id: str) -> Checkpoint:
    return Checkpoint(id, "run", str(folder), None, weights_sha256(folder))


@pytest.fixture(scope="module")
def policies(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Checkpoint]:
    other = build_tiny_model(tmp_path_factory.mktemp("models") / "other", seed=1)
    return [checkpoint(tiny, "one"), checkpoint(other, "two")]


def greedy(policy: Checkpoint, ids: list[int], count: int) -> list[int]:
    model = AutoModelForCausalLM.from_pretrained(policy.path)
    made = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=count)
    return [int(token) for token in made[0, len(ids) :]]


def prompt(policy: Checkpoint, text: str = "is it so?") -> list[int]:
    return Template.of(policy.path).prompt_ids([{"role": "user", "content": text}])


def test_the_answer_is_the_greedy_one_of_transformers(policies: list[Checkpoint]) -> None:
    engine = PlainEngine(context=256, dtype="float32")
    engine.load(policies[0])
    ids = prompt(policies[0])
    tokenizer = Template.of(policies[0].path).tokenizer
    for told, n in zip(engine.ask([GreedyRequest(ids, n) for n in LENGTHS]), LENGTHS, strict=True):
        wanted = greedy(policies[0], ids, n)
        assert told.text == tokenizer.decode(wanted, skip_special_tokens=True) and told.n_tokens == len(wanted)
        assert told.finish_reason == ("stop" if tokenizer.eos_token_id in wanted else "length")
        assert told.logprobs == {}


def test_the_log_probs_are_those_of_the_first_token(policies: list[Checkpoint]) -> None:
    engine = PlainEngine(context=256, dtype="float32")
    engine.load(policies[0])
    ids = prompt(policies[0])
    (told,) = engine.ask([GreedyRequest(ids, 1, (65, 66, 67))])
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(policies[0].path)(torch.tensor([ids])).logits[0, -1]
    wanted = logits.double().log_softmax(-1)
    assert told.logprobs == pytest.approx({t: float(wanted[t]) for t in (65, 66, 67)}, abs=1e-5)


def test_each_policy_answers_with_its_own_weights_in_one_engine(policies: list[Checkpoint]) -> None:
    """Asked in turn, as the rounds of a run do; what does not fit has no answer."""
    sampler = EngineSampler(PlainEngine(context=200, dtype="float32"), Sampling({"train": 1, "eval": 1}), seed=0)
    texts = []
    for policy in (*policies, policies[0]):
        client = PolicyClient(policy, sampler)
        questions = [
            Question(f"q{n}", "judge", ({"role": "user", "content": "x" * n},), max_tokens=8) for n in (3, 300)
        ]
        ((short, long),) = client.ask(questions)
        ids = prompt(policy, "xxx")
        ends = Template.of(policy.path).tokenizer
        (call,) = short.calls
        assert call.reply == ends.decode(greedy(policy, ids, 8), skip_special_tokens=True)
        assert (call.model, call.prompt_tokens, client.model) == (policy.id, len(ids), policy.id)
        assert list(client.weights) == [policy.weights_sha256]
        assert long.text is None and "room for 192" in long.error and long.calls == ()
        texts.append(call.reply)
    assert texts[0] == texts[2] != texts[1]


# Bamba counts its cache wrong, RecurrentGemma gives none, the others keep a state in theirs.
@pytest.mark.parametrize("name", ["bamba", "recurrent_gemma", "qwen3_next", "falcon_h1", "jamba", "gemma3"])
def test_models_with_a_state_go_on_from_it(name: str, tmp_path: Path) -> None:
    """The log-prob of each token, sampled after the tokens before it, is that of one forward over all."""
    policy = checkpoint(make(tmp_path, name), name)
    engine = PlainEngine(context=256, dtype="float32")
    engine.load(policy)
    requests = [Request(list(range(10, 10 + n)), 2, 5, 1.0, 1.0, 8) for n in (5, 29)]
    model = AutoModelForCausalLM.from_pretrained(policy.path, dtype=torch.float32).eval()
    for request, answers in zip(requests, engine.generate(requests), strict=True):
        for answer in answers:
            with torch.no_grad():
                logits = model(torch.tensor([[*request.prompt_ids, *answer.token_ids]])).logits[0, :-1]
            rows = logits.double().log_softmax(-1)[-len(answer.token_ids) :]
            wanted = [float(row[token]) for row, token in zip(rows, answer.token_ids, strict=True)]
            assert answer.logprobs == pytest.approx(wanted, abs=1e-4)
