"""The probe with the real vLLM engine: what it must catch in float32 and bfloat16, and that it lets the rest pass."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sparring.loop.errors import ProbeError
from sparring.loop.learning.checkpoint import load_model, save_model, weights_sha256
from sparring.loop.learning.probing import write_probe
from sparring.loop.sampling.prober import Prober
from sparring.loop.sampling.sampler import EngineSampler, Sampling
from sparring.loop.sampling.vllm_engine import Engine
from sparring.loop.tokens import Template
from sparring.loop.types import Checkpoint
from tests.helpers import zoo

pytestmark = pytest.mark.engine

CPU = torch.device("cpu")
RATES = (1e-6, 1e-5, 1e-4)
UPDATES = 10
# Architectures that vLLM computes by code of its own on a CPU; a start takes a few seconds.
ARCHITECTURES = ("gemma2", "gemma3_text", "gpt2", "granite", "mistral", "phi3", "qwen2", "qwen3")


class Faulty(Engine):
    """An engine whose reload of a folder reads the folder in `instead`, or nothing where that is None."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.instead: dict[str, str | None] = {}

    def _reload(self, path: str) -> None:
        read = self.instead.get(path, path)
        if read is not None:
            super()._reload(read)


def checkpoint(folder: Path, parent: str | None = None) -> Checkpoint:
    return Checkpoint(f"checkpoint_{folder.name}", "run", str(folder), parent, weights_sha256(folder))


def updates(initial: Checkpoint, rate: float, count: int, root: Path) -> list[Checkpoint]:
    """`initial`, and what `count` updates of two AdamW steps each make of it, with their probes."""
    model = load_model(Path(initial.path), CPU)
    ids = torch.tensor([Template.of(initial.path).tokenizer("I like to eat rice with 42 friends.")["input_ids"]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0)
    made = [initial]
    for k in range(count):
        for _ in range(2):
            optimizer.zero_grad()
            logits = model(input_ids=ids).logits[0, :-1]
            torch.nn.functional.cross_entropy(logits, ids[0, 1:]).mul(1 - 2 * (k % 2)).backward()
            optimizer.step()
        folder = root / f"lr{rate:g}-{k}"
        save_model(model, Path(initial.path), folder)
        made.append(checkpoint(folder, made[-1].id))
        write_probe(model, folder, made[-1].weights_sha256)
    return made


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[float, list[Checkpoint]]:
    """By learning rate: the initial policy and ten updates."""
    root = tmp_path_factory.mktemp("runs")
    initial = checkpoint(zoo.make(root / "initial", "llama"))
    return {rate: updates(initial, rate, UPDATES, root) for rate in RATES}


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def engine(request: pytest.FixtureRequest) -> Iterator[Faulty]:
    engine = Faulty(context=512, dtype=request.param, max_seqs=16)
    yield engine
    engine.close()


def after(engine: Faulty, *loads: Checkpoint) -> Prober:
    """A prober that has seen these loads without a fault."""
    engine.instead.clear()
    prober = Prober(engine, None)
    for each in loads:
        prober.prepare([each])
        engine.load(each)
        prober.check(each)
    return prober


def refused(engine: Faulty, prober: Prober, policy: Checkpoint, instead: str | None, match: str) -> None:
    engine.instead = {policy.path: instead}
    assert engine.load(policy)
    with pytest.raises(ProbeError, match=match):
        prober.check(policy)


@pytest.mark.slow
def test_thirty_loads_without_a_fault_pass(engine: Faulty, runs: dict[float, list[Checkpoint]]) -> None:
    for run in runs.values():
        after(engine, *run)


@pytest.mark.parametrize("rate", RATES)
def test_a_skipped_reload_is_caught(engine: Faulty, runs: dict[float, list[Checkpoint]], rate: float) -> None:
    initial, first, second, *_ = runs[rate]
    refused(engine, after(engine, initial, first), second, None, "to the last bit")


@pytest.mark.parametrize("rate", RATES)
def test_another_checkpoint_of_the_run_is_caught(
    engine: Faulty, runs: dict[float, list[Checkpoint]], rate: float
) -> None:
    initial, first, second, *_ = runs[rate]
    refused(engine, after(engine, initial, first), second, initial.path, "to the last bit.*checkpoint_initial")


def test_a_checkpoint_that_was_never_loaded_is_caught_where_rounding_is_not_all(
    engine: Faulty, runs: dict[float, list[Checkpoint]]
) -> None:
    """In bfloat16 an update of 1e-4 moves log-probs by twice its rounding; in float32 any update shows."""
    rate = 1e-4 if engine.dtype == "bfloat16" else 1e-6
    initial, first, second, *_ = runs[rate]
    fifth = runs[rate][5]
    refused(engine, after(engine, initial, first), fifth, second.path, "% of the change")


@pytest.mark.parametrize("number", range(5))
def test_one_norm_of_zeros_is_caught(
    engine: Faulty, runs: dict[float, list[Checkpoint]], number: int, tmp_path: Path
) -> None:
    initial, first, second, *_ = runs[1e-5]
    model = load_model(Path(second.path), CPU)
    name = [name for name, _ in model.named_parameters() if "norm" in name][number]
    with torch.no_grad():
        model.get_parameter(name).zero_()
    save_model(model, Path(second.path), tmp_path / "zeroed")
    refused(engine, after(engine, initial, first), second, str(tmp_path / "zeroed"), "nats per token")


def test_an_update_whose_output_head_did_not_arrive_is_caught(
    engine: Faulty, runs: dict[float, list[Checkpoint]], tmp_path: Path
) -> None:
    """As a reload once left a tied one at its old weights. In bfloat16 a part shows if it is beyond rounding."""
    initial = runs[1e-6][0]
    _, first = updates(initial, 1e-3 if engine.dtype == "bfloat16" else 1e-6, 1, tmp_path)
    model, before = (load_model(Path(path), CPU) for path in (first.path, initial.path))
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(before.get_input_embeddings().weight)
    save_model(model, Path(first.path), tmp_path / "half")
    refused(engine, after(engine, initial), first, str(tmp_path / "half"), "% of the change")


def test_a_skipped_reload_starts_a_new_engine_that_is_right(
    engine: Faulty, runs: dict[float, list[Checkpoint]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    initial, first, *_ = runs[1e-6]
    sampler = EngineSampler(engine, Sampling({"train": 1, "eval": 1}), seed=0, probes=tmp_path)
    engine.instead = {first.path: None}
    with caplog.at_level(logging.WARNING):
        sampler.warm(initial)
        assert not caplog.records
        sampler.warm(first)
    assert "to the last bit" in caplog.text and "A new engine is started" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_bfloat16_raises_no_false_alarm(name: str, tmp_path: Path) -> None:
    initial = checkpoint(zoo.make(tmp_path / "initial", name))
    engine = Faulty(context=512, dtype="bfloat16", max_seqs=16)
    try:
        for rate in RATES:
            after(engine, *updates(initial, rate, 3, tmp_path))
    finally:
        engine.close()
