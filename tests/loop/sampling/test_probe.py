"""The probe on tiny models, with an engine that has the trainer's arithmetic; tests/engine has the real one."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from math import inf, sqrt
from pathlib import Path

import pytest
import torch

from sparring.loop.errors import ProbeError
from sparring.loop.learning.batches import Row
from sparring.loop.learning.checkpoint import load_model, save_model, weights_sha256
from sparring.loop.learning.probe_texts import TEXTS, probe_rows
from sparring.loop.learning.probing import (
    FILE,
    Probe,
    equal_weights,
    load_probe,
    probe_logprobs,
    take_probe,
    write_probe,
)
from sparring.loop.sampling.probe import Load, ask, check, slope, steady
from sparring.loop.sampling.prober import Prober
from sparring.loop.sampling.sampler import EngineSampler, Sampling
from sparring.loop.sampling.transformers_engine import PlainEngine
from sparring.loop.tokens import Template
from sparring.loop.types import Checkpoint
from tests.helpers import zoo
from tests.helpers.tiny import build_tiny_model

CPU = torch.device("cpu")


class Other(PlainEngine):
    """Holds what it is told to in `holds`, and else what it should; a new engine is right if `mends`.

    In bfloat16 it rounds log-probs to a tenth.
    """

    probed = True

    def __init__(self, *, mends: bool = True) -> None:
        super().__init__(context=512, dtype="float32")
        self.mends, self.starts, self.holds = mends, 0, dict[str, Checkpoint]()
        self._now: str | None = None

    def load(self, checkpoint: Checkpoint) -> bool:
        if self._now == checkpoint.weights_sha256:
            return False
        self.starts += self._now is None
        super().load(self.holds.get(checkpoint.weights_sha256, checkpoint))
        self._now = checkpoint.weights_sha256
        return True

    def restart(self, checkpoint: Checkpoint) -> None:
        self.close()
        if self.mends:
            self.holds.clear()
        self.load(checkpoint)

    def prompt_logprobs(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        exact = super().prompt_logprobs(sequences)
        return exact if self.dtype == "float32" else [[round(x, 1) for x in values] for values in exact]

    def close(self) -> None:
        super().close()
        self._now = None


def checkpoint(folder: Path, parent: str | None = None) -> Checkpoint:
    return Checkpoint(f"checkpoint_{folder.name}", "run", str(folder), parent, weights_sha256(folder))


def scaled(policy: Checkpoint, folder: Path, by: float) -> Checkpoint:
    """A learned checkpoint: the embeddings of `policy` times `by`, with its probe."""
    model = load_model(Path(policy.path), CPU)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(by)
    save_model(model, Path(policy.path), folder)
    learned = checkpoint(folder, policy.id)
    write_probe(model, folder, learned.weights_sha256)
    return learned


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Checkpoint]:
    """An initial policy, and what two updates made of it."""
    root = tmp_path_factory.mktemp("models")
    initial = checkpoint(build_tiny_model(root / "initial"))
    first = scaled(initial, root / "first", 1.001)
    return [initial, first, scaled(first, root / "second", 1.001)]


def sampler(engine: PlainEngine, probes: Path | None = None) -> EngineSampler:
    return EngineSampler(engine, Sampling({"train": 1, "eval": 1}), seed=0, probes=probes)


# --- the texts ---


def test_rows_have_two_completions_that_end_and_a_prompt_as_long_as_the_window(models: list[Checkpoint]) -> None:
    tokenizer = Template.of(models[0].path).tokenizer
    rows = probe_rows(tokenizer, [257, 256], 512, 200)
    assert [len(row.completions) for row in rows] == [2] * 5
    assert [tokens[-1] for row in rows for tokens in row.completions] == [257, 256] * 5
    assert len(rows[-1].prompt) == 200
    assert tokenizer.decode(rows[0].prompt) == TEXTS[0][0][:48]  # a byte is a token, and 48 are kept
    assert sum(len(tokens) for row in rows for tokens in row.completions) == 8 * 48 + 2 * 24


def test_rows_fit_into_the_positions_that_a_model_has(models: list[Checkpoint]) -> None:
    rows = probe_rows(Template.of(models[0].path).tokenizer, [257], 40, 30)
    assert len(rows) == 4  # the window and what lies beyond it need 54
    assert max(len(row.prompt) + len(tokens) for row in rows for tokens in row.completions) == 40


def test_log_probs_are_those_of_the_models_own_forward(models: list[Checkpoint]) -> None:
    model = load_model(Path(models[0].path), CPU)
    row = take_probe(model, Path(models[0].path), "hash").rows[1]
    ids = torch.tensor([[*row.prompt, *row.completions[1]]])
    with torch.no_grad():
        own = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    expected = own[len(row.prompt) - 1 :].tolist()
    assert probe_logprobs(model, Path(models[0].path))[3 * 48 : 4 * 48] == pytest.approx(expected, abs=1e-4)


# --- the trainer's side ---


def test_a_probe_is_kept_for_its_weights_alone_and_older_formats_are_taken_again(
    models: list[Checkpoint], tmp_path: Path
) -> None:
    weights = models[1].weights_sha256
    saved = Probe.read(Path(models[1].path) / FILE, weights)
    assert saved is not None and saved.rounding is None
    assert saved.logprobs == load_probe(Path(models[1].path), weights).logprobs
    assert Probe.read(Path(models[1].path) / FILE, models[0].weights_sha256) is None
    (tmp_path / FILE).write_text(json.dumps([-1.0, -2.0]))  # as it was written before
    assert Probe.read(tmp_path / FILE, weights) is None


def test_rounding_is_the_mean_change_in_bfloat16(models: list[Checkpoint]) -> None:
    from transformers import AutoModelForCausalLM

    probe = load_probe(Path(models[0].path), "hash")
    rounded = AutoModelForCausalLM.from_pretrained(models[0].path, dtype=torch.bfloat16).eval()
    changes = []
    with torch.no_grad():
        for row in probe.rows:
            for tokens in row.completions:
                ids = torch.tensor([[*row.prompt, *tokens]])
                logits = rounded(input_ids=ids).logits[0, len(row.prompt) - 1 : -1].float()
                changes += logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0].tolist()
    expected = sum(abs(c - e) for c, e in zip(changes, probe.logprobs, strict=True)) / len(changes)
    assert probe.rounding == pytest.approx(expected, rel=0.1)


def test_weights_are_compared_after_rounding(models: list[Checkpoint], tmp_path: Path) -> None:
    moved = scaled(models[0], tmp_path / "moved", 1 + 1e-6)
    assert not equal_weights(Path(models[0].path), Path(moved.path), "float32")
    assert not equal_weights(Path(models[0].path), Path(models[1].path), "bfloat16")
    assert equal_weights(Path(models[0].path), Path(models[0].path), "float32")


# --- the questions, by hand ---


def a_load(engine: Sequence[float], trainer: Sequence[float], weights: str = "w", limit: float = 1.0) -> Load:
    return Load(f"checkpoint_{weights}", weights, "/nowhere", "texts", tuple(engine), tuple(trainer), limit)


def test_slope_by_hand() -> None:
    assert slope([1.0, -1.0, 3.0], [2.0, -2.0, 6.0]) == (2.0, 0.0)
    # x.x = 2, x.y = 3: slope 1.5; what is left is (0.5, -0.5), whose squares sum to 0.5; sqrt(0.5 / 1 / 2) = 0.5
    assert slope([1.0, 1.0], [2.0, 1.0]) == (1.5, 0.5)
    assert slope([0.0, 0.0], [1.0, 1.0]) == (0.0, inf)


def test_level_is_the_mean_absolute_difference() -> None:
    load = a_load([-1.0, -2.0], [-1.5, -1.0], limit=0.75)
    assert load.level == 0.75
    check(load, [], "float32")
    with pytest.raises(ProbeError, match=r"differ by 0.75 nats.*at most 0.7 in float32"):
        check(replace(load, limit=0.7), [], "float32")


def test_the_same_bits_with_other_weights_are_stale_whatever_the_level() -> None:
    before = a_load([-1.0, -2.0], [-1.1, -2.1], "before")
    with pytest.raises(ProbeError, match=r"to the last bit.*checkpoint_before"):
        check(a_load([-1.0, -2.0], [-1.2, -2.0]), [before], "bfloat16")
    check(a_load([-1.0, -2.0], [-1.1, -2.1]), [before], "bfloat16")  # a copy


def test_share_of_a_change_that_rounding_hides_in_each_token() -> None:
    """Rounding of 0.1 of either sign on a change of 0.1: the level says nothing, 400 tokens do."""
    tokens, rounding = 400, [0.1, -0.1, -0.1, 0.1]
    trainer = [-1.0 + 0.1 * (-1) ** i for i in range(tokens)]
    before = a_load([-1.0 + rounding[i % 4] for i in range(tokens)], [-1.0] * tokens, "before")
    arrived = a_load([t + rounding[(i + 1) % 4] for i, t in enumerate(trainer)], trainer)
    stale = a_load([b + rounding[i % 4] / 100 for i, b in enumerate(before.engine)], trainer)
    check(arrived, [before], "bfloat16")
    with pytest.raises(ProbeError, match="0% of the change since checkpoint_before"):
        check(stale, [before], "bfloat16")
    small = a_load([-1.0 + rounding[(i + 1) % 4] for i in range(tokens)], [t / 100 - 0.99 for t in trainer])
    check(small, [before], "bfloat16")  # a change of 0.001 that never came: too small
    assert slope([1.0] * tokens, [1.0 + r for r in rounding * 100])[1] == pytest.approx(0.1 / sqrt(tokens - 1))


def test_tokens_that_jump_in_the_trainer_alone_do_not_count() -> None:
    """Of 100 tokens that move by 0.1, two change experts and move by 5, in the engine a load later."""
    assert steady([1.0, -2.0, 6.0, -6.5, 0.5], [1.0, 2.0, 3.0, 4.0, 5.0]) == (
        [1.0, -2.0, 6.0, 0.5],
        [1.0, 2.0, 3.0, 5.0],
    )
    before = a_load([-1.0] * 100, [-1.0] * 100, "before")
    trainer = [*[-6.0] * 2, *[-1.1] * 98]
    check(a_load([*[-1.1] * 2, *[-1.1] * 98], trainer), [before], "bfloat16")
    assert slope([-5.0] * 2 + [-0.1] * 98, [-0.1] * 100)[0] == pytest.approx(
        (2 * 0.5 + 98 * 0.01) / (2 * 25 + 98 * 0.01)
    )


def test_texts_are_cut_to_the_engines_context(models: list[Checkpoint]) -> None:
    probe = load_probe(Path(models[0].path), models[0].weights_sha256)
    engine = PlainEngine(context=60, dtype="float32")
    engine.load(models[0])
    load = ask(engine, models[0], probe, 1.0)
    assert len(load.engine) == 8 * 11  # 48 tokens of the prompt and 11 of each completion: 59, and 1 to answer
    assert load.level < 1e-5
    engine.context = 20
    with pytest.raises(ProbeError, match=r"20 tokens.*more than 49"):
        ask(engine, models[0], probe, 1.0)
    lone = Probe("hash", (Row([1], ([2, 3],)),), (-1.0, -2.0))
    assert ask(engine, models[0], lone, 1.0).trainer == (-1.0, -2.0)


# --- the sampler ---


def test_a_run_without_a_fault_passes_and_keeps_what_it_saw(models: list[Checkpoint], tmp_path: Path) -> None:
    first = sampler(Other(), tmp_path)
    for policy in (models[0], models[1], models[0], models[1]):
        first.warm(policy)
    lines = [json.loads(line) for line in (tmp_path / "loads.jsonl").read_text().splitlines() if line]
    assert [line["weights"] for line in lines] == [m.weights_sha256 for m in models[:2]]
    # A later process of the run loads no model for the probe: the first one's is in the folder.
    assert Probe.read(tmp_path / f"{models[0].weights_sha256[:16]}.json", models[0].weights_sha256)
    later = sampler(Other(), tmp_path)
    later.warm(models[2])
    assert not (tmp_path / f"{models[2].weights_sha256[:16]}.json").exists()


class Watching(Other):
    """Keeps what is in a folder when it starts."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.found = folder, list[list[str]]()

    def load(self, checkpoint: Checkpoint) -> bool:
        self.found.append(sorted(path.name for path in self.folder.iterdir()))
        return super().load(checkpoint)


def test_the_trainers_side_of_all_models_is_there_before_the_engine_starts(
    models: list[Checkpoint], tmp_path: Path
) -> None:
    """So that no second model is loaded beside an engine that fills the accelerator."""
    guest = checkpoint(build_tiny_model(tmp_path / "guest", seed=3))
    probes = tmp_path / "probes"
    engine = Watching(probes)
    sampling = Sampling({"train": 1, "eval": 1}, models={"guest": guest})
    EngineSampler(engine, sampling, seed=0, probes=probes).warm(models[0])
    assert engine.found == [sorted(f"{each.weights_sha256[:16]}.json" for each in (models[0], guest))]


def test_a_reload_that_fails_starts_one_new_engine_and_says_so(
    models: list[Checkpoint], caplog: pytest.LogCaptureFixture
) -> None:
    engine = Other()
    engine.holds = {models[1].weights_sha256: models[0]}
    policy = sampler(engine)
    policy.warm(models[0])
    with caplog.at_level(logging.WARNING):
        policy.warm(models[1])
    assert engine.starts == 2
    assert "to the last bit" in caplog.text and "checkpoint_initial" in caplog.text and "new engine" in caplog.text
    assert "0% of the change" in caplog.text


def test_a_new_engine_that_fails_too_is_an_error_and_is_not_used_by_a_second_try(models: list[Checkpoint]) -> None:
    engine = Other(mends=False)
    engine.holds = {models[1].weights_sha256: models[0]}
    policy = sampler(engine)
    policy.warm(models[0])
    for starts in (2, 3):
        with pytest.raises(ProbeError, match="Nothing was sampled"):
            policy.warm(models[1])
        assert engine.starts == starts


def test_weights_of_an_earlier_round_are_found_after_a_resume(models: list[Checkpoint], tmp_path: Path) -> None:
    first = sampler(Other(), tmp_path)
    first.warm(models[0])
    first.warm(models[1])
    engine = Other(mends=False)
    engine.holds = {models[2].weights_sha256: models[0]}
    with pytest.raises(ProbeError, match="those it gave with the weights of checkpoint_initial"):
        sampler(engine, tmp_path).warm(models[2])


def test_a_line_that_was_cut_off_is_not_read(models: list[Checkpoint], tmp_path: Path) -> None:
    sampler(Other(), tmp_path).warm(models[0])
    file = tmp_path / "loads.jsonl"
    file.write_text(file.read_text() + '\n{"by": "float32 on cpu", "weigh')
    later = sampler(Other(), tmp_path)
    later.warm(models[1])
    assert [json.loads(line)["weights"] for line in file.read_text().splitlines() if line.endswith("}")] == [
        m.weights_sha256 for m in models[:2]
    ]


def test_an_update_too_small_for_bfloat16_is_a_warning(
    models: list[Checkpoint], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of weights that are bfloat16 numbers, times 1 + 1e-6: the engine rounds that away."""
    model = load_model(Path(models[0].path), CPU).to(torch.bfloat16).float()
    save_model(model, Path(models[0].path), tmp_path / "rounded")
    base = checkpoint(tmp_path / "rounded")
    moved = scaled(base, tmp_path / "moved", 1 + 1e-6)
    assert base.weights_sha256 != moved.weights_sha256
    assert equal_weights(Path(base.path), Path(moved.path), "bfloat16")
    engine = Other()
    engine.dtype, engine.holds = "bfloat16", {moved.weights_sha256: base}  # what rounding makes of it
    policy = sampler(engine)
    policy.warm(base)
    with caplog.at_level(logging.WARNING):
        policy.warm(moved)
    assert engine.starts == 1
    assert "in bfloat16, the weights of checkpoint_moved equal those of checkpoint_rounded" in caplog.text


def test_a_model_from_outside_is_held_to_its_own_rounding(models: list[Checkpoint], tmp_path: Path) -> None:
    """Its level is not that of the run's own weights, and theirs does not follow from it."""
    guest = checkpoint(build_tiny_model(tmp_path / "guest", seed=3))
    prober = Prober(engine := Other(), None)
    engine.load(guest)
    outside = prober.check(guest, own=False)
    engine.load(models[1])
    own = prober.check(models[1])
    assert prober._limit(Probe("unknown", (), (), 1.0)) == 2 * 2**-11
    assert prober._limit(Probe("unknown", (), ())) == max(2 * own, 1e-6)
    assert prober._limit(Probe(guest.weights_sha256, (), ())) == max(2 * outside, 1e-6)


def test_a_model_with_experts_may_jump_at_every_load(tmp_path: Path) -> None:
    policy = checkpoint(zoo.make(tmp_path / "experts", "mixtral"))
    prober = Prober(engine := Other(), None)
    prober.prepare([policy])
    probe = prober._probe(policy)
    assert probe.routed and probe.rounding is not None
    expected = 2 * probe.rounding / 8  # in float32 a router's choice may change as it does in TF32
    assert prober._limit(probe) == expected
    engine.load(policy)
    assert prober.check(policy) < expected / 100
    assert prober._limit(probe) == expected
