"""The KL of held-out answers: exact at each token, never negative, computed once."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from sparring.loop.learning.batches import Row
from sparring.loop.learning.checkpoint import load_model
from sparring.loop.learning.logprobs import completion_kl
from sparring.loop.tokens import Template
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


def test_it_is_0_for_equal_models_and_small_for_near_ones(tiny: Path) -> None:
    model, near = load_model(tiny, CPU), load_model(tiny, CPU)
    with torch.no_grad():
        assert completion_kl(model, near, ROWS).tolist() == [0.0, 0.0, 0.0]
        for parameter in near.parameters():
            parameter.mul_(1 + 1e-7)
        assert all(0 <= value < 1e-4 for value in completion_kl(model, near, ROWS).tolist())


def test_what_is_known_is_not_computed_again(tiny: Path, tmp_path: Path) -> None:
    other = build_tiny_model(tmp_path / "other", seed=1)
    template = Template.of(str(tiny))
    messages = [f'[{{"role": "user", "content": "say {i}"}}]' for i in range(3)]
    table = pa.table(
        {
            "messages": messages,
            "completion_ids": [[f"c{i}"] for i in range(3)],
            "token_ids": [[template.answer_ids("word" * (i + 1))] for i in range(3)],
            "prompt_token_ids": [None, [1, 2, 3], None],
            "divergence": pa.array([None, None, 0.5], pa.float64()),
        }
    )
    learner = make_learner(tmp_path / "learner")
    policy, reference = initial(tiny), initial(other)
    found = {d.completion_id: d for chunk in learner.diverge(policy, reference, table) for d in chunk}
    assert found.keys() == {"c0", "c1"}
    row = Row([1, 2, 3], (template.answer_ids("wordword"),))
    assert found["c1"].value == pytest.approx(by_hand(tiny, other, row), rel=1e-4)
    assert (found["c1"].n_tokens, found["c1"].weights_sha256) == (9, policy.weights_sha256)
    assert found["c1"].reference_sha256 == reference.weights_sha256
