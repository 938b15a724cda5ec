"""The real vLLM engine on tiny models of many architectures: after a load and after a reload, it has their weights.

One test per architecture, which starts an engine: five seconds in this process, half a minute in one of its own.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from sparring.loop.learning.checkpoint import save_model, weights_sha256
from sparring.loop.sampling.requests import Request
from sparring.loop.sampling.vllm_engine import Engine
from sparring.loop.types import Checkpoint
from tests.helpers.zoo import make

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

HERE = (
    "llama", "mistral", "qwen2", "qwen3", "qwen3_moe", "mixtral", "gemma2", "gemma3_text", "gemma3", "phi3", "granite",
    "gpt2", "falcon_h1", "nemotron_h", "granitemoehybrid",
)  # fmt: skip
APART = ("olmo2", "gpt_neox", "smollm3")  # vLLM has no implementation of its own
SEQUENCES = [torch.randint(1, 250, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (5, 29, 40)]
SAME = 1e-4  # nats: rounding in float32 makes at most 1e-5


def own_forward(folder: Path) -> Any:
    """The model as transformers computes it, by the attention that every architecture defines."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


@torch.no_grad()
def logprobs(model: Any, ids: Sequence[int]) -> list[float]:
    """log P of each token but the first."""
    logits = model(input_ids=torch.tensor([list(ids)])).logits[0, :-1].double()
    return [float(row[token]) for row, token in zip(logits.log_softmax(-1), ids[1:], strict=True)]


def updated(folder: Path, model: Any) -> Path:
    """The checkpoint after an update that moves every weight by a fifth."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 0.2 * torch.randn(parameter.shape, generator=generator))
    save_model(model, folder, folder.with_name("updated"))
    return folder.with_name("updated")


def apart(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> float:
    return max(abs(a - b) for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True))


def checkpoint(folder: Path) -> Checkpoint:
    return Checkpoint(f"checkpoint_{folder.name}", "run", str(folder), None, weights_sha256(folder))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(context=512, dtype="float32", max_seqs=8, log=tmp_path / "engine.log")
    yield engine
    engine.close()


@pytest.mark.parametrize("name", (*HERE, *APART))
def test_an_engine_has_the_weights_after_a_load_and_after_a_reload(name: str, engine: Engine, tmp_path: Path) -> None:
    first = make(tmp_path / "first", name)
    second = updated(first, own_forward(first))
    expected = [[logprobs(own_forward(folder), ids) for ids in SEQUENCES] for folder in (first, second)]
    assert apart(*expected) > 0.5, "the update is far larger than rounding"

    engine.load(checkpoint(first))
    started = engine._llm
    assert apart(engine.prompt_logprobs(SEQUENCES), expected[0]) < SAME
    requests = [Request(ids, 2, 5, 1.0, 1.0, 8) for ids in SEQUENCES]
    answers = [(r, a) for r, each in zip(requests, engine.generate(requests), strict=True) for a in each]
    model = own_forward(first)
    for request, answer in answers:
        computed = logprobs(model, [*request.prompt_ids, *answer.token_ids])[-len(answer.token_ids) :]
        assert apart([answer.logprobs], [computed]) < SAME, "token by token from the cache, as in one forward"

    engine.load(checkpoint(second))
    assert apart(engine.prompt_logprobs(SEQUENCES), expected[1]) < SAME
    assert engine._llm is started, "a reload, not a new engine"
    own_forward(first)  # the learner loads its model beside the engine, whatever vLLM has done to transformers
    assert engine._own == (name in APART)
