"""Heads on one frozen backbone, for benchmarks: features once, then any number of small trainings; results as lines."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sparring.judges.reward.encoding import Encoded, Encoding
from sparring.judges.reward.facts import Facts
from sparring.judges.reward.features import tensors_key
from sparring.judges.reward.heads import make_head
from sparring.judges.reward.model import RewardModel
from sparring.judges.reward.options import RewardTraining
from sparring.judges.reward.report import scores
from sparring.judges.reward.rows import PairRow, Pairs, encode_pairs
from sparring.judges.reward.tensors import collate
from sparring.judges.reward.train import forget, train
from sparring.loop.hardware import autocast, default_token_budget, fast_dtype
from sparring.loop.labelled_pairs import read_preferences
from sparring.loop.learning.batches import micro_batches
from sparring.loop.models import resolve_model
from sparring.loop.types import digest

Array = np.ndarray[Any, np.dtype[np.float64]]
ON_POOLED: dict[str, Any] = {"layer": 18, "pooling": "answer_mean", "weight_decay": 0.1}
CHUNK = 64  # rows of token features a file


class Lines:
    """Results as JSON lines, one appended as it is found: what is there already is not made again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if text and not text.endswith("\n"):  # a kill in the middle of a line
            text = text[: text.rfind("\n") + 1]
            path.write_text(text, encoding="utf-8")
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
        self._known = {row["key"] for row in self.rows}

    def has(self, **cause: Any) -> bool:
        return digest(cause) in self._known

    def add(self, cause: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        row = {"key": digest(dict(cause)), **cause, **found}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)
        self._known.add(row["key"])


class Frozen:
    """A backbone that stays as it is, and trainings of heads on it. `options` are RewardTraining's, for all heads."""

    def __init__(self, name: str, cache: Path, options: Mapping[str, Any]) -> None:
        self.name, self.cache, self.options = name, cache, dict(options)
        self.folder = resolve_model(name)
        given = RewardTraining(freeze="backbone", **self.options)
        self.encoding = Encoding(self.folder, given.max_length)
        made = RewardModel.create(self.folder, layer=given.layer, max_length=given.max_length)
        self.backbone, self.facts = made.backbone, made.facts
        self._remembered: Remembered | None = None

    def read(self, path: str) -> Pairs:
        return encode_pairs(self.encoding, read_preferences(path))

    def model(self, head: str, head_options: Mapping[str, Any], seed: int) -> RewardModel:
        """A fresh head. "linear@last" is a head with a pooling of its own; token rewards are read at the last token."""
        kind, _, pooling = head.partition("@")
        made = make_head(kind, int(self.backbone.config.hidden_size), seed, head_options)
        default = "last" if made.per_token else self.options.get("pooling") or self.facts.pooling
        facts = Facts(
            head=kind, pooling=pooling or default, layer=self.facts.layer, max_length=self.facts.max_length, seed=seed
        )  # fmt: skip
        return RewardModel(self.remembered() if made.per_token else self.backbone, made, facts)

    def remembered(self) -> "Remembered":
        self._remembered = self._remembered or Remembered(self.backbone, self.cache / "tokens")
        return self._remembered

    def fit(
        self, rows: Sequence[PairRow], head: str, head_options: Mapping[str, Any], *, lr: float, steps: int, seed: int
    ) -> RewardModel:
        """About `steps` optimizer steps on the rows, so that few pairs are not learned for a shorter time."""
        model = self.model(head, head_options, seed)
        if isinstance(model.backbone, Remembered):
            model.backbone.fill([answer for row in rows for answer in (row.chosen, row.rejected)])
        size = int(self.options.get("batch_size", RewardTraining.batch_size))
        epochs = max(1, round(steps / max(1, -(-len(rows) // size))))
        asked = RewardTraining(
            freeze="backbone", epochs=epochs, lr=lr, seed=seed, save_seconds=1e9, token_budget=1 << 20, **self.options
        )
        state = self.cache / "state.safetensors"
        forget(state)
        features = None if model.head.per_token else self.cache / "features"
        train(model, Pairs(tuple(rows), {}), asked, state, cache=features)
        return model

    def scores(self, model: RewardModel, answers: Sequence[Encoded]) -> Array:
        """(N,): raw scores of a single reward model."""
        if isinstance(model.backbone, Remembered):
            model.backbone.fill(answers)
        features = None if model.head.per_token else self.cache / "features"
        return scores(model, answers, features)[:, 0]

    def deltas(self, model: RewardModel, rows: Sequence[PairRow]) -> Array:
        found = self.scores(model, [answer for row in rows for answer in (row.chosen, row.rejected)])
        return found[::2] - found[1::2]


class Remembered(nn.Module):
    """Hidden states of all tokens, looked up: for heads that read every token. Kept in what they are computed in."""

    def __init__(self, backbone: Any, cache: Path) -> None:
        super().__init__()
        self.config = backbone.config
        self._inner = (backbone,)  # in a tuple: no part of this module, so not hashed with it at every training
        self._dtype = fast_dtype()
        weights = tensors_key(backbone.parameters())
        self._folder = cache / digest({"weights": weights, "dtype": self._dtype})
        self._known: dict[str, Tensor] = {}
        for path in sorted(self._folder.glob("*.safetensors")):
            self._known |= load_file(path)

    def fill(self, rows: Sequence[Encoded]) -> None:
        """Compute what is not known, and keep it in files of about CHUNK rows."""
        missing = {_name(row.ids): row for row in rows if _name(row.ids) not in self._known}
        names, values = list(missing), list(missing.values())
        micros = micro_batches(range(len(names)), list(map(len, values)), default_token_budget())
        chunk: dict[str, Tensor] = {}
        for number, micro in enumerate(micros, start=1):
            chunk |= zip([names[i] for i in micro], self._compute([values[i] for i in micro]), strict=True)
            if len(chunk) >= CHUNK or number == len(micros):
                self._keep(chunk)
                chunk = {}

    def _compute(self, rows: Sequence[Encoded]) -> Iterator[Tensor]:
        where = next(self._inner[0].parameters()).device
        batch = collate(rows, 0, where)
        with torch.no_grad(), autocast(self._dtype):
            asked = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
            found = self._inner[0](**asked, use_cache=False).last_hidden_state
        for row, tokens in zip(rows, found, strict=True):
            yield tokens[: len(row)].to("cpu", getattr(torch, self._dtype)).clone()

    def _keep(self, chunk: dict[str, Tensor]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{digest(sorted(chunk))}.safetensors"
        save_file(chunk, path.with_suffix(".partial"))
        path.with_suffix(".partial").replace(path)
        self._known |= chunk

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> Any:
        found = torch.zeros(*input_ids.shape, int(self.config.hidden_size), device=input_ids.device)
        rows = input_ids.cpu().numpy()
        for i, n in enumerate(attention_mask.sum(1).tolist()):
            found[i, :n] = self._known[_name(rows[i, :n])].float()
        return SimpleNamespace(last_hidden_state=found)


def _name(ids: Any) -> str:
    return hashlib.blake2b(np.asarray(ids, "<i4").tobytes(), digest_size=16).hexdigest()


def portion(rows: Sequence[PairRow], share: float, seed: int) -> list[PairRow]:
    """The pairs of the first prompts in a seeded order, about `share` of all pairs: a larger share holds a smaller."""
    order = sorted({row.preference.prompt for row in rows}, key=lambda prompt: digest([seed, prompt]))
    count: dict[str, int] = {}
    for row in rows:
        count[row.preference.prompt] = count.get(row.preference.prompt, 0) + 1
    kept, total = set[str](), 0
    for prompt in order:
        if total >= share * len(rows) - 0.5:
            break
        kept.add(prompt)
        total += count[prompt]
    return [row for row in rows if row.preference.prompt in kept]
