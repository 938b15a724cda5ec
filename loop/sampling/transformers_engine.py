"""The engine for tests and for machines without vLLM: transformers in this process, one prompt at a time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparring.loop.hardware import autocast, device, fast_dtype
from sparring.loop.learning.checkpoint import load_model
from sparring.loop.sampling.requests import Answer, GreedyReply, GreedyRequest, Request
from sparring.loop.sampling.vllm_engine import positions
from sparring.loop.tokens import Template
from sparring.loop.types import Checkpoint


class PlainEngine:
    """A SamplingEngine on transformers. It is many times slower than vLLM except on tiny models.

    It loads the learner's weights in the same way as the learner, so there is nothing to probe.
    """

    probed = False

    def __init__(self, *, context: int = 2048, dtype: str | None = None) -> None:
        self.context, self.dtype = context, dtype or fast_dtype()
        self._loaded: str | None = None
        self._model: Any = None

    def load(self, checkpoint: Checkpoint) -> bool:
        if self._loaded != checkpoint.weights_sha256:
            self._model = load_model(Path(checkpoint.path), device())
            self._tokenizer = Template.of(checkpoint.path).tokenizer
            self._loaded = checkpoint.weights_sha256
            self.context = min(self.context, positions(checkpoint.path))
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
        from transformers import DynamicCache

        eos = self._tokenizer.eos_token_id
        generators = [torch.Generator().manual_seed(request.seed + i) for i in range(request.n)]
        ids = torch.tensor([list(request.prompt_ids)] * request.n, device=device())
        cache, tokens, logprobs = DynamicCache(), list[Tensor](), list[Tensor]()
        stopped = torch.zeros(request.n, dtype=torch.bool)
        while len(tokens) < request.max_tokens and not bool(stopped.all()):
            with autocast(self.dtype):
                logits = self._model(input_ids=ids, past_key_values=cache, use_cache=True).logits[:, -1].float().cpu()
            drawn = _draw(logits, request, generators)
            tokens.append(drawn)
            logprobs.append(logits.log_softmax(-1).gather(1, drawn[:, None])[:, 0])
            stopped |= drawn == eos
            ids = drawn[:, None].to(device())
        return [
            self._answer(t, p, eos)
            for t, p in zip(torch.stack(tokens, 1).tolist(), torch.stack(logprobs, 1).tolist(), strict=True)
        ]

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

    def _answer(self, tokens: list[int], logprobs: list[float], eos: int) -> Answer:
        end = tokens.index(eos) + 1 if eos in tokens else len(tokens)
        text = self._tokenizer.decode(tokens[:end], skip_special_tokens=True)
        return Answer(text, tokens[:end], logprobs[:end], "stop" if eos in tokens else "length")


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
