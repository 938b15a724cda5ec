"""A judge of sentiment for benchmarks: logistic regression on a frozen language model's hidden states."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sparring.loop.hardware import autocast, device, fast_dtype
from sparring.loop.judgements import Pointwise, score_id, unjudged
from sparring.loop.learning.checkpoint import load_model
from sparring.loop.tokens import Template
from sparring.loop.types import Group, Judgement

LAYER = 18  # of SmolLM2's 30: the middle layers say most of a text's sentiment
BATCH = 32


class Features:
    """Mean-pooled hidden states of a frozen model's layer."""

    def __init__(self, folder: Path) -> None:
        self.model, self.tokenizer = load_model(folder, device()), Template.of(str(folder)).tokenizer
        self.model.base_model.layers = self.model.base_model.layers[:LAYER]

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(texts, D) float32."""
        found: list[Tensor] = []
        for start in range(0, len(texts), BATCH):
            ids = [self.tokenizer(t or " ")["input_ids"][:128] for t in texts[start : start + BATCH]]
            width = max(map(len, ids))
            rows = torch.tensor([[*row, *[0] * (width - len(row))] for row in ids], device=device())
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids], device=device())
            with autocast(fast_dtype()):
                hidden = self.model.base_model(input_ids=rows, attention_mask=mask, use_cache=False).last_hidden_state
            weight = mask[..., None].float()
            found.append(((hidden.float() * weight).sum(1) / weight.sum(1)).cpu())
        return torch.cat(found)


class SentimentJudge(Pointwise):
    """log P(positive) / P(negative) of the whole text, prompt and answer, clipped to +-`limit`."""

    def __init__(self, features: Features, weight: Tensor, bias: Tensor, mean: Tensor, limit: float = 6.0) -> None:
        self.features, self.weight, self.bias, self.mean, self.limit = features, weight, bias, mean, limit
        self.name = f"sentiment-{abs(float(weight.sum())):.6f}"

    def score(self, texts: Sequence[str]) -> list[float]:
        logits = (self.features(texts) - self.mean) @ self.weight + self.bias
        found: list[float] = logits.clamp(-self.limit, self.limit).tolist()
        return found

    def judge(self, groups: Sequence[Group]) -> Iterator[list[Judgement]]:
        for start in range(0, len(groups), 8):
            some = groups[start : start + 8]
            asked = [(f"{g.prompt.messages[-1]['content']}{c.text}", c) for g in some for c in unjudged(g)]
            values = self.score([text for text, _ in asked])
            yield [
                Judgement(score_id(self.name, c), self.name, c.id, None, "", "", 0, value)
                for (_, c), value in zip(asked, values, strict=True)
            ]


def train_judge(folder: Path, train: list[dict[str, Any]], test: list[dict[str, Any]], cache: Path) -> SentimentJudge:
    """Fit on rows of `text` and `label`; features are kept in `cache`. Prints the accuracy on `test`."""
    features = Features(folder)
    if not cache.exists():
        made = {"train": features([r["text"] for r in train]), "test": features([r["text"] for r in test])}
        save_file(made, cache)
    kept = load_file(cache)
    y = {name: torch.tensor([float(r["label"]) for r in rows]) for name, rows in (("train", train), ("test", test))}
    mean = kept["train"].mean(0)
    weight, bias = torch.zeros(len(mean), requires_grad=True), torch.zeros((), requires_grad=True)
    steps = torch.optim.LBFGS([weight, bias], max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        steps.zero_grad()
        logits = (kept["train"] - mean) @ weight + bias
        value = torch.nn.functional.binary_cross_entropy_with_logits(logits, y["train"]) + 1e-3 * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    steps.step(closure)  # type: ignore[arg-type, no-untyped-call]
    found = SentimentJudge(features, weight.detach(), bias.detach(), mean)
    right = (((kept["test"] - mean) @ found.weight + found.bias > 0).float() == y["test"]).float().mean()
    print(f"judge: accuracy {float(right):.3f} on {len(test)} held-out texts")
    return found
