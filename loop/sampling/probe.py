"""Do engine and trainer agree on these weights? Asked after every load, before anything is sampled.

Stale weights, a template or dtype mishap, a half-finished reload: all show as different log-probs for the same tokens.
"""

import json
from pathlib import Path
from typing import Any

import torch

from loop.errors import ProbeError
from loop.hardware import device
from loop.learning.batches import Row, collate
from loop.learning.checkpoint import load_model
from loop.learning.logprobs import token_logprobs
from loop.sampling.engine import Engine
from loop.tokens import Template
from loop.types import Checkpoint

TEXTS = (
    "The lighthouse keeper wrote one short letter every evening, and every morning the sea had taken it away.",
    "1. Wash the rice. 2. Bring two cups of water to a boil. 3. Cover the pot and wait for twelve minutes.",
    '{"city": "Lisbon", "country": "Portugal", "rivers": ["Tagus"]}',
)
# Mean absolute difference of token log-probs, in nats. Rounding alone gives the noise measured in docs/loop.md.
TOLERANCE = {"float32": 2e-3, "bfloat16": 6e-2}
FILE = "probe.json"


def sequences(folder: str) -> list[list[int]]:
    return [Template.of(folder).tokenizer(text)["input_ids"] for text in TEXTS]


def trainer_logprobs(model: Any, folder: str) -> list[list[float]]:
    """log P of each token but the first of each probe text, in float32."""
    rows = [Row(ids[:1], (ids[1:],)) for ids in sequences(folder)]
    with torch.no_grad():
        return [token_logprobs(model, collate([row]).to(device())).tolist() for row in rows]


def write_probe(model: Any, folder: Path) -> None:
    """Keep the trainer's answer beside the weights, so that probing them needs no second copy in memory."""
    (folder / FILE).write_text(json.dumps(trainer_logprobs(model, str(folder))))


def wanted_logprobs(checkpoint: Checkpoint) -> list[list[float]]:
    kept = Path(checkpoint.path) / FILE
    if kept.exists():
        found: list[list[float]] = json.loads(kept.read_text())
        return found
    return trainer_logprobs(load_model(Path(checkpoint.path), device()), checkpoint.path)


def probe(engine: Engine, checkpoint: Checkpoint) -> float:
    """Mean absolute difference between engine and trainer, in nats a token. Raises ProbeError above the tolerance."""
    got = [x for one in engine.prompt_logprobs(sequences(checkpoint.path)) for x in one]
    want = [x for one in wanted_logprobs(checkpoint) for x in one]
    difference = sum(abs(g - w) for g, w in zip(got, want, strict=True)) / len(got)
    if not difference <= TOLERANCE[engine.dtype]:
        raise ProbeError(
            f"engine and trainer disagree on {checkpoint.id} ({checkpoint.path}): their log-probs differ by "
            f"{difference:.4f} nats a token, wanted at most {TOLERANCE[engine.dtype]} in {engine.dtype}. Nothing was "
            "sampled. Run again to start a fresh engine; if it stays, the model needs sample.dtype: float32 or is not "
            "computed alike by vLLM and transformers"
        )
    return difference
