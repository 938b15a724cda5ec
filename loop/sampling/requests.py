"""The requests to an engine, its answers, and the protocol of an engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sparring.loop.types import Checkpoint


@dataclass(frozen=True)
class Answer:
    """One sampled answer: its tokens, and the model's log-prob of each at temperature 1."""

    text: str
    token_ids: list[int]
    logprobs: list[float]
    finish_reason: str


@dataclass(frozen=True)
class Request:
    prompt_ids: Sequence[int]
    n: int
    seed: int  # sample i of a request uses seed + i and does not depend on the rest of the batch
    temperature: float
    top_p: float
    max_tokens: int


@dataclass(frozen=True)
class GreedyRequest:
    """A request for the greedy answer: free text, JSON under `schema`, or with log P of `token_ids` as first token."""

    prompt_ids: Sequence[int]
    max_tokens: int
    token_ids: Sequence[int] = ()
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class GreedyReply:
    text: str
    n_tokens: int
    finish_reason: str
    logprobs: Mapping[int, float] = field(default_factory=dict)  # of the request's token_ids


class SamplingEngine(Protocol):
    """An engine for the sampler: vllm_engine.Engine or transformers_engine.PlainEngine."""

    context: int
    dtype: str

    def load(self, checkpoint: Checkpoint) -> bool: ...
    def generate(self, requests: Sequence[Request]) -> list[list[Answer]]: ...
    def ask(self, requests: Sequence[GreedyRequest]) -> list[GreedyReply]: ...
    def prompt_logprobs(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]: ...
    def sleep(self) -> None: ...
    def close(self) -> None: ...
