"""The trainer's side of the probe: the log-probs of a few fixed texts under the given weights."""

import json
from pathlib import Path
from typing import Any

import torch

from sparring.loop.hardware import device
from sparring.loop.learning.batches import Row, collate
from sparring.loop.learning.checkpoint import load_model
from sparring.loop.learning.logprobs import token_logprobs
from sparring.loop.tokens import Template

TEXTS = (
    "The lighthouse keeper wrote one short letter every evening, and every morning the sea had taken it away.",
    "1. Wash the rice. 2. Bring two cups of water to a boil. 3. Cover the pot and wait for twelve minutes.",
    '{"city": "Lisbon", "country": "Portugal", "rivers": ["Tagus"]}',
)
FILE = "probe.json"


def sequences(folder: str) -> list[list[int]]:
    return [Template.of(folder).tokenizer(text)["input_ids"] for text in TEXTS]


def trainer_logprobs(model: Any, folder: str) -> list[float]:
    """log P of each token except the first of each text, in float32."""
    rows = [Row(ids[:1], (ids[1:],)) for ids in sequences(folder)]
    where = next(model.parameters()).device
    with torch.no_grad():
        return [x for row in rows for x in token_logprobs(model, collate([row]).to(where)).tolist()]


def write_probe(model: Any, folder: Path) -> None:
    """Save the log-probs beside the new weights, so that probing them needs no second copy in memory."""
    (folder / FILE).write_text(json.dumps(trainer_logprobs(model, str(folder))), encoding="utf-8")


def expected_logprobs(folder: Path) -> list[float]:
    """The trainer's log-probs for the weights in `folder`: those that `write_probe` saved, or newly computed."""
    saved = folder / FILE
    if saved.exists():
        logprobs: list[float] = json.loads(saved.read_text(encoding="utf-8"))
        return logprobs
    return trainer_logprobs(load_model(folder, device()), str(folder))
