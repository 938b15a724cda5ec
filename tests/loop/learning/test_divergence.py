"""The KL of held-out answers: exact at each token, never negative however they were sampled, computed once."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from sparring.loop.learning.batches import Row
from sparring.loop.learning.checkpoint import load_model
from sparring.loop.learning.forward_choice import batch_for
from sparring.loop.learning.logprobs import completion_kl, completion_logprobs
from sparring.loop.sampling.requests import Answer, Request
from sparring.loop.sampling.transformers_engine import PlainEngine
from sparring.loop.tokens import Template
from sparring.loop.types import Divergence
from tests.helpers import zoo
from tests.helpers.learner_pairs import initial, make_learner
from tests.helpers.tiny import build_tiny_model

CPU = torch.device("cpu")
ROWS = [Row([5, 6, 7, 8], ([20, 21, 22],)), Row([9, 10], ([30] * 9,)), Row([11] * 20, ([40],))]


def by_hand(policy: Path, reference: Path, row: Row) -> float:
    """sum over the answer's tokens of sum_v p(v) (log p(v) - log q(v)), in float64, from the models' own forwards."""
    (tokens,) = row.completions
    logs = []
    for folder in (policy, reference):
        with torch.no_grad():
            logits = load_model(folder, CPU)(torch.tensor([[*row.prompt, *tokens]])).logits[0, len(row.prompt) - 1 : -1]
        z = logits.numpy().astype(np.float64)
        logs.append(z - np.log(np.exp(z - z.max(-1, keepdims=True)).sum(-1, keepdims=True)) - z.max(-1, keepdims=True))
    p, q = logs
    return float((np.exp(p) * (p - q)).sum())


@pytest.mark.parametrize("architecture", ["llama", "granite", "lfm2", "mistral"])
def test_it_is_the_kl_of_the_models_own_distributions(architecture: str, tmp_path: Path) -> None:
    one, two = (zoo.make(tmp_path / str(seed), architecture, seed=seed) for seed in (0, 1))
    models = load_model(one, CPU), load_model(two, CPU)
    with torch.no_grad():
        found = completion_kl(*models, ROWS).tolist()
    assert found == pytest.approx([by_hand(one, two, row) for row in ROWS], rel=1e-4)
    assert min(found) > 0.01


def copied(folder: Path, to: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> Path:
    """A model folder with each weight as `change(name, weight)` gives it."""
    shutil.copytree(folder, to)
    weights = {name: change(name, weight) for name, weight in load_file(to / "model.safetensors").items()}
    save_file(weights, to / "model.safetensors", metadata={"format": "pt"})
    return to


def test_it_is_0_for_equal_models_and_exact_for_near_ones(tiny: Path, tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    near = copied(tiny, tmp_path / "near", lambda _, w: w * (1 + 1e-5 * torch.randn(w.shape, generator=random)))
    model, other = load_model(tiny, CPU), load_model(near, CPU)
    with torch.no_grad():
        assert completion_kl(model, load_model(tiny, CPU), ROWS).tolist() == [0.0, 0.0, 0.0]
        found = completion_kl(model, other, ROWS).tolist()
    assert max(found) < 1e-6  # here the rounding of log-probs in float32 would be larger than the KL
    assert found == pytest.approx([by_hand(tiny, near, row) for row in ROWS], rel=1e-2)


def answers_of(model: Path, temperature: float, top_p: float, count: int = 12) -> list[tuple[list[int], Answer]]:
    engine = PlainEngine(dtype="float32")
    engine.load(initial(model))
    prompts = [Template.of(str(model)).prompt_ids(asking(i)) for i in range(count)]
    found = engine.generate([Request(ids, 1, 7, temperature, top_p, 12) for ids in prompts])
    return [(list(ids), answer) for ids, (answer,) in zip(prompts, found, strict=True)]


def asking(i: int) -> str:
    return f'[{{"role": "user", "content": "say {i}"}}]'


def test_it_is_not_negative_where_the_mean_log_ratio_of_cold_samples_is(tiny: Path, tmp_path: Path) -> None:
    # The policy's logits are 0.8 of the initial policy's: it is flatter, and sampled cold.
    policy = copied(tiny, tmp_path / "flat", lambda name, w: 0.8 * w if name == "model.norm.weight" else w)
    sampled = answers_of(policy, 0.7, 0.95)
    rows = [Row(prompt, (answer.token_ids,)) for prompt, answer in sampled]
    ours, theirs = load_model(policy, CPU), load_model(tiny, CPU)
    with torch.no_grad():
        ratios = [sum(a.logprobs) - completion_logprobs(theirs, batch_for(theirs, [row])).item()
                  for (_, a), row in zip(sampled, rows, strict=True)]  # fmt: skip
        found = completion_kl(ours, theirs, rows).tolist()
    assert fmean(ratios) < -0.5  # what was called KL before
    assert min(found) > 0.01
    assert found == pytest.approx([by_hand(policy, tiny, row) for row in rows], rel=1e-4)


def answers_table(model: Path, lengths: Sequence[int]) -> pa.Table:
    """Answers as Store.answers gives them, none with a KL."""
    template = Template.of(str(model))
    return pa.table(
        {
            "messages": [asking(i) for i in range(len(lengths))],
            "completion_ids": [[f"c{i}"] for i in range(len(lengths))],
            "token_ids": [[template.answer_ids("word" * length)] for length in lengths],
            "prompt_token_ids": pa.array([None] * len(lengths), pa.list_(pa.int32())),
            "divergence": pa.array([None] * len(lengths), pa.float64()),
        }
    )


def known(table: pa.Table, values: dict[str, float]) -> pa.Table:
    """The table with these KLs by completion."""
    column = [values.get(completion_id) for (completion_id,) in table["completion_ids"].to_pylist()]
    return table.set_column(table.schema.get_field_index("divergence"), "divergence", pa.array(column, pa.float64()))


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return build_tiny_model(tmp_path / "other", seed=1)


def diverge(folder: Path, tiny: Path, other: Path, table: pa.Table) -> list[list[Divergence]]:
    learner = make_learner(folder, token_budget=100)
    return [list(chunk) for chunk in learner.diverge(initial(tiny), initial(other), table)]


def test_killed_after_any_chunk_it_ends_with_the_same_bits(tiny: Path, other: Path, tmp_path: Path) -> None:
    table = answers_table(tiny, [3, 1, 9, 2, 7, 1, 5, 3, 2])
    chunks = diverge(tmp_path, tiny, other, table)
    whole = {d.id: d for chunk in chunks for d in chunk}
    assert len(chunks) > 3 and len(whole) == 9 and max(map(len, chunks)) > 1
    for kept in range(len(chunks) + 1):
        before = {d.id: d for chunk in chunks[:kept] for d in chunk}
        stored = known(table, {d.completion_id: d.value for d in before.values()})
        rest = {d.id: d for chunk in diverge(tmp_path, tiny, other, stored) for d in chunk}
        assert not before.keys() & rest.keys()
        assert before | rest == whole


def test_one_that_is_missing_among_known_ones_gets_the_same_bits(tiny: Path, other: Path, tmp_path: Path) -> None:
    table = answers_table(tiny, [3, 1, 9, 2, 7, 1, 5, 3, 2])
    whole = {d.completion_id: d.value for chunk in diverge(tmp_path, tiny, other, table) for d in chunk}
    for missing in whole:
        stored = known(table, {key: value for key, value in whole.items() if key != missing})
        found = {d.completion_id: d.value for chunk in diverge(tmp_path, tiny, other, stored) for d in chunk}
        assert found[missing] == whole[missing]


def test_it_is_of_the_weights_and_not_of_their_rounding_in_bfloat16(tiny: Path, tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    near = copied(tiny, tmp_path / "near", lambda _, w: w * (1 + 1e-5 * torch.randn(w.shape, generator=random)))
    table = answers_table(tiny, [3, 1, 9])
    exact = diverge(tmp_path, tiny, near, table)
    learner = make_learner(tmp_path, token_budget=100, dtype="bfloat16")
    assert [list(chunk) for chunk in learner.diverge(initial(tiny), initial(near), table)] == exact
    assert max(d.value for chunk in exact for d in chunk) < 1e-5


def test_the_prompt_is_that_which_was_sampled(tiny: Path, other: Path, tmp_path: Path) -> None:
    table = answers_table(tiny, [2])
    kept = table.set_column(3, "prompt_token_ids", pa.array([[1, 2, 3]], pa.list_(pa.int32())))
    ((found,),) = diverge(tmp_path, tiny, other, kept)
    row = Row([1, 2, 3], (Template.of(str(tiny)).answer_ids("wordword"),))
    assert found.value == pytest.approx(by_hand(tiny, other, row), rel=1e-4)
    assert (found.completion_id, found.n_tokens) == ("c0", 9)
    assert (found.weights_sha256, found.reference_sha256) == tuple(initial(k).weights_sha256 for k in (tiny, other))
