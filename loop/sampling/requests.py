"""The requests to an engine, its answers, the protocol of an engine, and the records of answers."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from sparring.loop.tokens import Template
from sparring.loop.types import Checkpoint, Completion, Prompt, Round, make_id


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
    probed: bool  # whether it computes log-probs by other code than the trainer

    def load(self, checkpoint: Checkpoint) -> bool: ...
    def restart(self, checkpoint: Checkpoint) -> None: ...
    def generate(self, requests: Sequence[Request]) -> list[list[Answer]]: ...
    def ask(self, requests: Sequence[GreedyRequest]) -> list[GreedyReply]: ...
    def prompt_logprobs(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]: ...
    def sleep(self) -> None: ...
    def close(self) -> None: ...


def completion_of(rnd: Round, prompt: Prompt, request: Request, sample: int, answer: Answer, seed: int) -> Completion:
    """The record of an answer by the policy of `rnd`, which may be a source."""
    return Completion(
        id=completion_id(rnd, prompt, sample),
        run=rnd.run,
        round=rnd.index,
        prompt_id=prompt.id,
        policy_id=rnd.policy.id,
        sample=sample,
        origin=rnd.origin,
        text=answer.text,
        token_ids=array("i", answer.token_ids),
        logprobs=array("f", answer.logprobs),
        finish_reason="stop" if answer.finish_reason == "stop" else "length",
        temperature=request.temperature,
        top_p=request.top_p,
        seed=seed,
    )


def parted(completion: Completion, template: Template, prompt_ids: Sequence[int]) -> Completion:
    """The completion with its thought apart from its answer; learning takes the tokens of both."""
    thought, answer = template.parts(completion.text, completion.token_ids, prompt_ids)
    if thought is None or (answer is None and completion.origin == "dataset"):
        return completion  # what was given as an answer is one, also where the template opens a thought
    return replace(completion, thought=thought, text=answer or "")


def completion_id(rnd: Round, prompt: Prompt, sample: int) -> str:
    """The id of a completion by the policy and origin of `rnd`."""
    cause: dict[str, Any] = {"run": rnd.run, "round": rnd.index, "policy": rnd.policy.id, "prompt": prompt.id}
    origin = {} if rnd.origin == "policy" else {"origin": rnd.origin}
    return make_id("completion", **cause, sample=sample, **origin)
