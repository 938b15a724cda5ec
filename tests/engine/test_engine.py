"""The real vLLM engine on a tiny model: seeds, log-probs, new weights, failed reloads, long prompts.

One engine for the module: starting it is most of the time.
"""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from sparring.loop.errors import StepError
from sparring.loop.learning.checkpoint import weights_sha256
from sparring.loop.learning.probing import load_probe
from sparring.loop.sampling.probe import ask
from sparring.loop.sampling.requests import Request
from sparring.loop.sampling.sampler import EngineSampler, Sampling
from sparring.loop.sampling.vllm_engine import Engine
from sparring.loop.tokens import Template
from sparring.loop.types import Checkpoint, Completion, Prompt, PromptOutcome, Round
from tests.helpers.tiny import build_tiny_model

pytestmark = pytest.mark.engine


def checkpoint(folder: Path) -> Checkpoint:
    return Checkpoint(f"checkpoint_{folder.name}", "run", str(folder), None, weights_sha256(folder))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Checkpoint]:
    root = tmp_path_factory.mktemp("models")
    return tuple(checkpoint(build_tiny_model(root / f"seed{seed}", seed=seed)) for seed in (0, 1))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine(context=256, dtype="float32", max_seqs=16)
    yield engine
    engine.close()


def requests(policy: Checkpoint, count: int, n: int = 3) -> list[Request]:
    ids = [Template.of(policy.path).prompt_ids([{"role": "user", "content": f"say {i}"}]) for i in range(count)]
    return [Request(p, n, 100 + 10 * i, 1.0, 1.0, 12) for i, p in enumerate(ids)]


def level(engine: Engine, policy: Checkpoint) -> float:
    return ask(engine, policy, load_probe(Path(policy.path), policy.weights_sha256), 0.0).level


def test_same_seeds_same_tokens_alone_or_together(engine: Engine, models: tuple[Checkpoint, Checkpoint]) -> None:
    engine.load(models[0])
    wanted = requests(models[0], 12)  # 36 sequences through 16 places: more than one step holds
    together = engine.generate(wanted)
    assert engine.generate(wanted) == together
    assert [a.token_ids for a in engine.generate(wanted[5:6])[0]] == [a.token_ids for a in together[5]]
    assert len({tuple(a.token_ids) for a in together[0]}) == 3, "samples of one prompt must differ"


def test_log_probs_are_the_trainers(engine: Engine, models: tuple[Checkpoint, Checkpoint]) -> None:
    """Of the plain model, whatever the sampling temperature (pitfall 31)."""
    import torch

    from sparring.loop.learning.batches import Row, collate
    from sparring.loop.learning.checkpoint import load_model
    from sparring.loop.learning.logprobs import token_logprobs

    engine.load(models[0])
    request = replace(requests(models[0], 1)[0], temperature=0.7)
    answers = engine.generate([request])[0]
    model = load_model(Path(models[0].path), torch.device("cpu"))
    for answer in answers:
        with torch.no_grad():
            wanted = token_logprobs(model, collate([Row(request.prompt_ids, (answer.token_ids,))]))
        assert answer.logprobs == pytest.approx(wanted.tolist(), abs=1e-3)


def test_new_weights_are_used_and_the_old_cache_is_not(engine: Engine, models: tuple[Checkpoint, Checkpoint]) -> None:
    """Pitfalls 29, 30: after a change of weights and back, answers are those of a first load."""
    engine.load(models[0])
    first = engine.generate(requests(models[0], 4))
    assert engine.load(models[1]) and not engine.load(models[1])
    assert level(engine, models[1]) < 1e-5
    assert engine.generate(requests(models[1], 4)) != first
    engine.load(models[0])
    assert engine.generate(requests(models[0], 4)) == first


def test_a_failed_reload_starts_a_new_engine(
    engine: Engine, models: tuple[Checkpoint, Checkpoint], tmp_path: Path
) -> None:
    engine.load(models[1])
    wanted = engine.generate(requests(models[1], 2))
    broken = tmp_path / "broken"
    shutil.copytree(models[0].path, broken)
    (broken / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(StepError, match="broken"):  # no engine can start from this either
        engine.load(replace(models[0], path=str(broken), weights_sha256="broken"))
    assert engine.load(models[1])
    assert engine.generate(requests(models[1], 2)) == wanted


def test_sampler_keeps_tokens_and_reports_what_does_not_fit(
    engine: Engine, models: tuple[Checkpoint, Checkpoint]
) -> None:
    policy = models[0]
    texts = ["short", "long " * 80, "also short"]
    prompts = [Prompt.make([{"role": "user", "content": t}], "train", "", {}) for t in texts]
    rnd = Round("run", 1, policy, policy, policy, policy, tuple(p.id for p in prompts))
    sampler = EngineSampler(engine, Sampling({"train": 2, "eval": 1}, max_tokens=16, chunk=2), seed=7)
    chunks = list(sampler.sample(rnd, prompts))
    samples = [len([r for r in chunk if isinstance(r, Completion)]) for chunk in chunks]
    assert samples == [2, 2]  # beside the prompt that does not fit, and by itself
    failed = [r for c in chunks for r in c if isinstance(r, PromptOutcome)]
    assert [(f.prompt_id, f.outcome) for f in failed] == [(prompts[1].id, "failed")]
    assert "room for 240" in failed[0].reason
    end = Template.of(policy.path).tokenizer.eos_token_id
    for c in (r for chunk in chunks for r in chunk if isinstance(r, Completion)):
        assert len(c.token_ids) == len(c.logprobs) <= 16
        # The end token is kept exactly when the model wrote it (pitfalls 2, 4).
        assert (c.finish_reason == "stop") == (c.token_ids[-1] == end)
        assert end not in list(c.token_ids)[:-1]
    # The second chunk alone, as after a crash, gives the same rows.
    assert list(sampler.sample(rnd, prompts[2:])) == chunks[1:]


def test_a_restart_has_the_weights_and_ends_reloading(models: tuple[Checkpoint, Checkpoint]) -> None:
    """The new engines are in processes of their own, which end with them."""
    engine = Engine(context=256, dtype="float32", max_seqs=16)
    engine.load(models[0])
    engine.restart(models[1])
    assert level(engine, models[1]) < 2e-3
    assert cores_running()
    assert not engine.load(models[1]), "they are in the engine"
    assert engine.load(models[0])
    assert level(engine, models[0]) < 2e-3
    engine.close()
    assert not cores_running()


def cores_running() -> list[str]:
    """The command lines of vLLM's engines in processes that this one has started."""
    running = [" ".join(p.cmdline()) for p in psutil.Process().children(recursive=True)]
    return [line for line in running if "EngineCore" in line]
