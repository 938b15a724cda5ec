"""Pairs and learners to try, without a store: tables in the columns of store.training_rows."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from sparring.loop.learning.batches import Row, collate
from sparring.loop.learning.checkpoint import load_model, weights_sha256
from sparring.loop.learning.learner import TorchLearner
from sparring.loop.learning.logprobs import completion_logprobs
from sparring.loop.learning.losses import bind
from sparring.loop.learning.options import Optimization, Reference
from sparring.loop.learning.preference_method import Preference
from sparring.loop.learning.preference_terms import Terms
from sparring.loop.tokens import Template
from sparring.loop.types import Checkpoint, Round

SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),
        ("messages", pa.string()),
        ("completion_ids", pa.list_(pa.string())),
        ("token_ids", pa.list_(pa.list_(pa.int32()))),
        ("logprobs", pa.list_(pa.list_(pa.float32()))),
        ("stopped", pa.list_(pa.bool_())),
        ("reference", pa.list_(pa.list_(pa.list_(pa.float32())))),
        ("p_chosen", pa.float64()),
        ("margin", pa.float64()),
        ("weight", pa.float64()),
        ("has_sample", pa.bool_()),
        ("sample_place", pa.int32()),
        ("rationale", pa.string()),
    ]
)
EXCHANGES = [  # asked, chosen, rejected
    ("What is 2 + 2?", "Four.", "Five, I should think, or perhaps six."),
    ("Name a colour", "Blue is one, as the sky shows.", "No"),
    ("Bonjour!", "Bonjour à toi.", "漢字"),
    ("Say nothing", "", "something"),
    ("A longer question, which goes on for a while and then ends. Does it?", "It does.", "It does not."),
    ("Count to three", "1, 2, 3", "3, 2, 1"),
    ("Why?", "Because.", "Why not? There is much to be said for it, and little against."),
]
N = len(EXCHANGES)


def initial(folder: Path) -> Checkpoint:
    return Checkpoint("checkpoint_initial", "run", str(folder), None, weights_sha256(folder))


def round_of(policy: Checkpoint) -> Round:
    return Round("run", 1, policy, policy, policy, policy, ())


def unscored(folder: Path, **columns: Sequence[Any]) -> pa.Table:
    """EXCHANGES as pairs without reference log-probs; `columns` replaces columns."""
    tokenizer = Template.of(str(folder)).tokenizer
    tokens = [
        [[*tokenizer.encode(answer, add_special_tokens=False), tokenizer.eos_token_id] for answer in answers]
        for _, *answers in EXCHANGES
    ]
    made: dict[str, Sequence[Any]] = {
        "row_id": [f"pair_{i}" for i in range(N)],
        "messages": [json.dumps([{"role": "user", "content": asked}]) for asked, _, _ in EXCHANGES],
        "completion_ids": [[f"chosen_{i}", f"rejected_{i}"] for i in range(N)],
        "token_ids": tokens,
        "logprobs": [[[-1.0] * len(answer) for answer in row] for row in tokens],
        "stopped": [[True, True]] * N,
        "reference": [[[None, None]]] * N,
        "p_chosen": [1.0] * N,
        "margin": [1.0] * N,
        "weight": [1.0] * N,
        "has_sample": [False] * N,
        "sample_place": [2] * N,
        "rationale": [None] * N,
    }
    return pa.table(made | columns, SCHEMA)


def under(sums: Sequence[Sequence[float]], pairs: pa.Table) -> list[Any]:
    """A column `reference` in which the completions have these log-probs, all of it at their first token."""
    return [
        [[[value, *[0.0] * (len(tokens) - 1)] for value, tokens in zip(row, answers, strict=True)]]
        for row, answers in zip(sums, pairs["token_ids"].to_pylist(), strict=True)
    ]


def with_column(table: pa.Table, name: str, values: Sequence[Any]) -> pa.Table:
    return table.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), pa.array(values, SCHEMA.field(name).type))


def scored(learner: TorchLearner, checkpoint: Checkpoint, pairs: pa.Table) -> pa.Table:
    """The pairs with what `learner.score` says of them, as the store would give them back."""
    told = {found.completion_id: found.token_logprobs for chunk in learner.score(checkpoint, pairs) for found in chunk}
    return with_column(pairs, "reference", [[[told[i] for i in ids]] for ids in pairs["completion_ids"].to_pylist()])


def make_learner(
    folder: Path,
    *,
    loss: str = "sigmoid",
    beta: float = 0.1,
    seed: int = 0,
    dtype: str = "float32",
    progress: Callable[[int, int, float], None] = lambda done, total, loss: None,
    reference: Reference | None = None,
    **optimization: Any,
) -> TorchLearner:
    made = Optimization(**{"lr": 1e-3, "batch_size": N, "warmup": 0.0} | optimization)
    method = Preference(Terms(bind(loss, beta=beta), beta=beta))
    return TorchLearner(folder, method, made, seed=seed, reference=reference, dtype=dtype, progress=progress)


def gaps(folder: Path | str, pairs: pa.Table) -> list[float]:
    """log P(chosen) - log P(rejected) of each pair under the model in `folder`, one row at a time."""
    template, model = Template.of(str(folder)), load_model(Path(folder), torch.device("cpu"))
    found = []
    for messages, tokens in zip(pairs["messages"].to_pylist(), pairs["token_ids"].to_pylist(), strict=True):
        with torch.no_grad():
            values = completion_logprobs(model, collate([Row(template.prompt_ids(messages), tuple(tokens))]))
        found.append((values[0] - values[1]).item())
    return found
