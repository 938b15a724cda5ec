"""Where answers end and which tokens they hold, in both engines: end ids, padded vocabularies, few positions.

The model's vocabulary is padded to 320 of the tokenizer's 258 ids, and it has several end ids.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from sparring.loop.learning.checkpoint import weights_sha256
from sparring.loop.sampling.requests import GreedyRequest, Request
from sparring.loop.sampling.sampler import EngineSampler, Sampling
from sparring.loop.sampling.transformers_engine import PlainEngine
from sparring.loop.sampling.vllm_engine import Engine
from sparring.loop.tokens import Template
from sparring.loop.types import Checkpoint, Completion, Prompt, PromptOutcome, Round
from tests.helpers.tiny import write_tokenizer
from tests.helpers.zoo import config_of

pytestmark = pytest.mark.engine

KNOWN, PADDED, END = 258, 320, 257
PROMPTS = [f"say {i}" for i in range(8)]
LENGTH = 24


def checkpoint(folder: Path) -> Checkpoint:
    return Checkpoint(f"checkpoint_{folder.name}", "run", str(folder), None, weights_sha256(folder))


def ids(policy: Checkpoint, text: str) -> list[int]:
    return Template.of(policy.path).prompt_ids([{"role": "user", "content": text}])


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Its end ids are, besides the tokenizer's, what it likes to write as the sixth token of an answer."""
    from transformers import AutoModelForCausalLM

    root = tmp_path_factory.mktemp("models")
    write_tokenizer(root / "free")
    config = config_of("llama")
    config.vocab_size = PADDED
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.4)
    model.save_pretrained(root / "free")
    engine = PlainEngine(dtype="float32")
    engine.load(checkpoint(root / "free"))
    requests = [Request(ids(checkpoint(root / "free"), p), 1, 0, 0.0, 1.0, LENGTH) for p in PROMPTS]
    sixth = {a.token_ids[5] for (a,) in engine.generate(requests) if len(a.token_ids) > 5}
    shutil.copytree(root / "free", root / "ends")
    (root / "ends" / "generation_config.json").write_text(json.dumps({"eos_token_id": [END, *sorted(sixth)[:3]]}))
    return checkpoint(root / "ends")


@pytest.fixture(scope="module")
def ends(policy: Checkpoint) -> set[int]:
    return {*json.loads((Path(policy.path) / "generation_config.json").read_text())["eos_token_id"]}


@pytest.fixture(scope="module", params=["transformers", "vllm"])
def engine(request: pytest.FixtureRequest, policy: Checkpoint) -> Iterator[Any]:
    kind = PlainEngine if request.param == "transformers" else Engine
    engine: Any = kind(context=2048, dtype="float32")
    engine.load(policy)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def model(policy: Checkpoint) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(policy.path, dtype=torch.float32, attn_implementation="eager").eval()


@torch.no_grad()
def next_logprobs(model: Any, before: Sequence[int]) -> torch.Tensor:
    """The model's log-probs of all 320 ids after these."""
    logprobs: torch.Tensor = model(input_ids=torch.tensor([[*before]])).logits[0, -1].double().log_softmax(-1)
    return logprobs


def greedy(model: Any, prompt: list[int], ends: set[int], among: int = KNOWN) -> list[int]:
    """The likeliest token after another, until an end id."""
    tokens: list[int] = []
    while len(tokens) < LENGTH and not ends & {*tokens}:
        tokens.append(int(next_logprobs(model, [*prompt, *tokens])[:among].argmax()))
    return tokens


def test_greedy_answers_end_at_any_end_id_and_hold_readable_tokens(
    engine: Any, model: Any, policy: Checkpoint, ends: set[int]
) -> None:
    prompts = [ids(policy, text) for text in PROMPTS]
    replies = engine.ask([GreedyRequest(p, LENGTH) for p in prompts])
    tokenizer = Template.of(policy.path).tokenizer
    expected = [greedy(model, p, ends) for p in prompts]
    assert any(max(greedy(model, p, ends, among=PADDED)) >= KNOWN for p in prompts), "the model likes others too"
    assert len(ends & {t[-1] for t in expected}) > 1, "some answers end at other ids than the tokenizer's"
    for reply, tokens in zip(replies, expected, strict=True):
        ended = tokens[-1] in ends
        assert (reply.n_tokens, reply.finish_reason) == (len(tokens), "stop" if ended else "length")
        text = tokenizer.decode(tokens[: -1 if ended else None], skip_special_tokens=True)
        assert reply.text.rstrip("\ufffd") == text.rstrip("\ufffd")  # vLLM leaves out half a character at the end


def test_sampled_answers_end_once_and_keep_the_log_probs_of_the_whole_vocabulary(
    engine: Any, model: Any, policy: Checkpoint, ends: set[int]
) -> None:
    requests = [Request(ids(policy, text), 4, 7 * i, 1.0, 1.0, LENGTH) for i, text in enumerate(PROMPTS)]
    answers = [(r, a) for r, each in zip(requests, engine.generate(requests), strict=True) for a in each]
    assert all(token < KNOWN for _, a in answers for token in a.token_ids)
    assert len({a.token_ids[-1] for _, a in answers if a.finish_reason == "stop"}) > 1
    for request, answer in answers:
        assert not ends & {*answer.token_ids[:-1]}
        assert (answer.finish_reason == "stop") == (answer.token_ids[-1] in ends)
        first = next_logprobs(model, list(request.prompt_ids))
        assert answer.logprobs[0] == pytest.approx(float(first[answer.token_ids[0]]), abs=1e-4)
        assert float(first[KNOWN:].exp().sum()) > 1e-3, "renormalised, it would differ"


def test_a_prompt_beyond_the_models_positions_fails_alone(engine: Any, policy: Checkpoint) -> None:
    """The context may be larger than the model's 512 positions."""
    assert engine.context == 512
    prompts = [Prompt.make([{"role": "user", "content": t}], "train", "", {}) for t in ("short", "long " * 110)]
    rnd = Round("run", 1, policy, policy, policy, policy, tuple(p.id for p in prompts))
    sampler = EngineSampler(engine, Sampling({"train": 1, "eval": 1}, max_tokens=16), seed=7)
    chunk = sampler._chunk(rnd, None, prompts)
    failed = [row for row in chunk if isinstance(row, PromptOutcome)]
    assert [(f.prompt_id, f.outcome) for f in failed] == [(prompts[1].id, "failed")]
    assert [c.prompt_id for c in chunk if isinstance(c, Completion)] == [prompts[0].id]
