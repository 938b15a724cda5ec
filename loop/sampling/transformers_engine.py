"""The engine for tests and for machines without vLLM: transformers in this process, one prompt at a time."""

from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparring.loop.hardware import autocast, device, fast_dtype
from sparring.loop.learning.checkpoint import load_model
from sparring.loop.sampling.folder_facts import positions, unknown_ids
from sparring.loop.sampling.requests import Answer, GreedyReply, GreedyRequest, Request
from sparring.loop.tokens import Template
from sparring.loop.types import Checkpoint


class PlainEngine:
    """A SamplingEngine on transformers. It is many times slower than vLLM except on tiny models.

    It loads the learner's weights in the same way as the learner, so there is nothing to probe.
    """

    probed = False

    def __init__(self, *, context: int = 2048, dtype: str | None = None) -> None:
        self.context, self.dtype = context, dtype or fast_dtype()
        self._most = context
        self._loaded: str | None = None
        self._model: Any = None

    def load(self, checkpoint: Checkpoint) -> bool:
        if self._loaded != checkpoint.weights_sha256:
            self._model = load_model(Path(checkpoint.path), device())
            self._tokenizer = Template.of(checkpoint.path).tokenizer
            self._ends = Template.of(checkpoint.path).end_ids
            self._unknown = torch.tensor(unknown_ids(checkpoint.path), dtype=torch.long)
            self._loaded = checkpoint.weights_sha256
            self.context = min(self._most, positions(checkpoint.path))
        return False

    def restart(self, checkpoint: Checkpoint) -> None:
        """Load these weights anew."""
        self.close()
        self.load(checkpoint)

    def prompt_logprobs(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        with torch.no_grad():
            return [_logprobs(self._model, torch.tensor([list(ids)], device=device())) for ids in sequences]

    def generate(self, requests: Sequence[Request]) -> list[list[Answer]]:
        return [self._answers(request) for request in requests]

    def ask(self, requests: Sequence[GreedyRequest]) -> list[GreedyReply]:
        """The greedy answer to each request. A schema is not enforced; the model must follow it by itself."""
        return [self._reply(request) for request in requests]

    def sleep(self) -> None:
        pass

    def close(self) -> None:
        self._model, self._loaded = None, None

    @torch.no_grad()
    def _answers(self, request: Request) -> list[Answer]:
        ends = torch.tensor(sorted(self._ends))
        generators = [torch.Generator().manual_seed(request.seed + i) for i in range(request.n)]
        ids = torch.tensor([list(request.prompt_ids)] * request.n, device=device())
        new, cache, tokens, logprobs = ids, dict[str, Any](), list[Tensor](), list[Tensor]()
        stopped = torch.zeros(request.n, dtype=torch.bool)
        while len(tokens) < request.max_tokens and not bool(stopped.all()):
            with autocast(self.dtype):
                output = self._model(input_ids=new, use_cache=True, **self._places(ids, new), **cache)
            logits, cache = output.logits[:, -1].float().cpu(), _cache(output)
            drawn = _draw(logits.index_fill(1, self._unknown, float("-inf")), request, generators)
            tokens.append(drawn)
            logprobs.append(logits.log_softmax(-1).gather(1, drawn[:, None])[:, 0])
            stopped |= torch.isin(drawn, ends)
            ids = torch.cat([ids, drawn[:, None].to(device())], 1)
            new = ids[:, -1:] if cache else ids
        return [
            self._answer(t, p)
            for t, p in zip(torch.stack(tokens, 1).tolist(), torch.stack(logprobs, 1).tolist(), strict=True)
        ]

    def _places(self, ids: Tensor, new: Tensor) -> dict[str, Tensor]:
        """The positions of the `new` last of `ids`: a model that counts its cache may count wrong (Bamba)."""
        takes = "position_ids" in signature(self._model.forward).parameters
        places = torch.arange(ids.shape[1] - new.shape[1], ids.shape[1], device=ids.device)
        return {"position_ids": places.expand(len(ids), -1)} if takes else {}

    @torch.no_grad()
    def _reply(self, request: GreedyRequest) -> GreedyReply:
        (answer,) = self._answers(Request(request.prompt_ids, 1, 0, 0.0, 1.0, request.max_tokens))
        logprobs: dict[int, float] = {}
        if request.token_ids:
            ids = torch.tensor([list(request.prompt_ids)], device=device())
            with autocast(self.dtype):
                first = self._model(input_ids=ids).logits[0, -1].float().log_softmax(-1)
            logprobs = {token: float(first[token]) for token in request.token_ids}
        return GreedyReply(answer.text, len(answer.token_ids), answer.finish_reason, logprobs)

    def _answer(self, tokens: list[int], logprobs: list[float]) -> Answer:
        """The answer up to the first end id, which is one of its tokens and not part of its text."""
        end = next((i for i, token in enumerate(tokens) if token in self._ends), None)
        text = self._tokenizer.decode(tokens[:end], skip_special_tokens=True)
        kept = len(tokens) if end is None else end + 1
        return Answer(text, tokens[:kept], logprobs[:kept], "length" if end is None else "stop")


def _cache(output: Any) -> dict[str, Any]:
    """What the next call of a model needs to go on: nothing if it gives no cache, and must read all tokens again."""
    return {name: output[name] for name in ("past_key_values", "cache_params") if output.get(name) is not None}


def _draw(logits: Tensor, request: Request, generators: Sequence[torch.Generator]) -> Tensor:
    """One token per row, drawn by the row's own generator, so an answer does not depend on the other rows."""
    if request.temperature == 0:
        return logits.argmax(-1)
    p = (logits / request.temperature).softmax(-1)
    if request.top_p < 1:
        ordered, order = p.sort(-1, descending=True)
        ordered[ordered.cumsum(-1) - ordered >= request.top_p] = 0  # keeps the token that crosses top_p
        p = torch.zeros_like(p).scatter(-1, order, ordered)
    return torch.stack([torch.multinomial(row, 1, generator=g)[0] for row, g in zip(p, generators, strict=True)])


def _logprobs(model: Any, ids: Tensor) -> list[float]:
    logits = model(input_ids=ids).logits[0, :-1].float()
    logprobs: list[float] = logits.log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0].tolist()
    return logprobs
