"""Questions to an engine in this process: the judge's own, or the sampler's."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from sparring.judges.llm_client import Question, Reply, call_id
from sparring.judges.verdicts import by_label, storable, unreadable
from sparring.loop.errors import ConfigError
from sparring.loop.types import Checkpoint, JudgeCall

if TYPE_CHECKING:
    from sparring.loop.sampling.requests import GreedyReply, GreedyRequest
    from sparring.loop.tokens import Rendering, Template

CHUNK = 32  # questions per call of the engine: they are stored together, and a crash loses at most these


class Serves(Protocol):
    """The part of an engine that a client needs. Both engines of loop.sampling have it."""

    context: int

    def ask(self, requests: Sequence["GreedyRequest"]) -> list["GreedyReply"]: ...


class Warms(Protocol):
    """The sampler, which keeps one live engine for all policies."""

    @property
    def engine(self) -> Serves: ...
    def warm(self, policy: Checkpoint) -> None: ...
    def sleep(self) -> None: ...


class LocalClient(ABC):
    """The part that clients (see judges.llm_client) with an engine in this process share.

    A question that is too long for the context gets no answer. Answers are greedy, so nothing is asked twice. Raises
    ConfigError for a label that is not one token.
    """

    @property
    @abstractmethod
    def model(self) -> str: ...

    @property
    @abstractmethod
    def _checkpoint(self) -> Checkpoint: ...

    @property
    @abstractmethod
    def _host(self) -> Warms:
        """What keeps the engine, and loads the checkpoint into it."""

    @property
    def weights(self) -> Sequence[str]:
        return (self._checkpoint.weights_sha256,)

    def ask(self, questions: Sequence[Question]) -> Iterator[list[Reply]]:
        if not questions:
            return
        self._host.warm(self._checkpoint)
        try:
            for start in range(0, len(questions), CHUNK):
                yield self._replies(questions[start : start + CHUNK])
        finally:
            self._host.sleep()

    @cached_property
    def _template(self) -> "Template":
        from sparring.loop.tokens import Template

        return Template.of(self._checkpoint.path, self._rendering)

    @property
    def _rendering(self) -> "Rendering | None":
        """How the checkpoint's conversations become tokens; None: as by default."""
        return None

    @property
    def _context(self) -> int:
        from sparring.loop.sampling.folder_facts import positions

        return min(self._host.engine.context, positions(self._checkpoint.path))

    def _replies(self, questions: Sequence[Question]) -> list[Reply]:
        requests = [(question, self._inquiry(question)) for question in questions]
        fits = [(question, request) for question, request in requests if self._lacks(request) <= 0]
        began = time.monotonic()
        answers = self._host.engine.ask([request for _, request in fits])
        seconds = (time.monotonic() - began) / max(1, len(fits))
        replies = {
            question.id: self._reply(question, request, answer, seconds)
            for (question, request), answer in zip(fits, answers, strict=True)
        }
        return [replies.get(question.id) or self._too_long(question, request) for question, request in requests]

    def _inquiry(self, question: Question) -> "GreedyRequest":
        from sparring.loop.sampling.requests import GreedyRequest

        ids = self._template.prompt_ids(question.messages)
        return GreedyRequest(
            ids, 1 if question.labels else question.max_tokens, list(self._tokens(question.labels)), question.schema
        )

    def _tokens(self, labels: Sequence[str]) -> dict[int, str]:
        """The tokens that stand for a label: the label, and the label after a space if that is one token too."""
        tokens: dict[int, str] = {}
        for label in labels:
            for text in (label, f" {label}"):
                ids = self._template.tokenizer.encode(text, add_special_tokens=False)
                if len(ids) == 1 and tokens.setdefault(ids[0], label) == label:
                    continue
                if text == label:
                    raise ConfigError(
                        f"label {label!r} is {len(ids)} tokens for {self.model}, or another label's; expected one "
                        "token of its own, such as A or B: change the judge's labels, or set verdict: json"
                    )
        return tokens

    def _lacks(self, request: "GreedyRequest") -> int:
        return len(request.prompt_ids) + request.max_tokens - self._context

    def _too_long(self, question: Question, request: "GreedyRequest") -> Reply:
        room = self._context - request.max_tokens
        return Reply(question, None, {}, f"the question has {len(request.prompt_ids)} tokens, room for {room}")

    def _reply(self, question: Question, request: "GreedyRequest", answer: "GreedyReply", seconds: float) -> Reply:
        text = storable(answer.text)
        label = self._tokens(question.labels)
        logprobs = by_label((label[token], logprob) for token, logprob in answer.logprobs.items())
        cut = answer.finish_reason == "length" and not question.labels
        error = f"cut at {request.max_tokens} tokens" if cut else unreadable(question, text, logprobs)
        tokens = (len(request.prompt_ids), answer.n_tokens)
        id = call_id(question, 1)
        call = JudgeCall(id, question.judge, question.id, 1, self.model, text, error, *tokens, None, seconds)
        return Reply(question, None if error else text, {} if error else logprobs, error, (call,))


class EngineClient(LocalClient):
    """Asks `model`, a folder or hub id, with an engine of its own. On a GPU, one engine per process is awake at a time.

    `context` is the most tokens that a question and its answer may have together.
    """

    def __init__(self, model: str, *, context: int = 4096, dtype: str | None = None, gpu_memory: float = 0.85) -> None:
        self._source, self._most, self._dtype, self._gpu_memory = model, context, dtype, gpu_memory

    @property
    def model(self) -> str:
        """The model's name with its weights' hash, because a folder's weights may change."""
        return f"{self._source}@{self._checkpoint.weights_sha256[:12]}"

    def close(self) -> None:
        self.engine.close()

    def warm(self, policy: Checkpoint) -> None:
        self.engine.load(policy)

    def sleep(self) -> None:
        self.engine.sleep()

    @property
    def _host(self) -> Warms:
        return self

    @cached_property
    def _checkpoint(self) -> Checkpoint:
        from sparring.loop.learning.checkpoint import weights_sha256
        from sparring.loop.models import resolve_model

        folder = resolve_model(self._source)
        return Checkpoint("", "", str(folder), None, weights_sha256(folder))

    @cached_property
    def engine(self) -> Any:
        from sparring.loop.sampling.folder_facts import positions
        from sparring.loop.sampling.vllm_engine import Engine

        return Engine(
            context=min(self._most, positions(self._checkpoint.path)),
            dtype=self._dtype,
            max_seqs=CHUNK,
            gpu_memory=self._gpu_memory,
        )


class PolicyClient(LocalClient):
    """Asks a policy with the sampler's engine, within its context. `model` is the checkpoint's id."""

    def __init__(self, policy: Checkpoint, sampler: Warms, rendering: "Rendering | None" = None) -> None:
        self._policy, self._sampler, self._given = policy, sampler, rendering

    @property
    def _rendering(self) -> "Rendering | None":
        return self._given

    @property
    def model(self) -> str:
        return self._policy.id

    def close(self) -> None:
        """Do nothing: the engine is the sampler's."""

    @property
    def _checkpoint(self) -> Checkpoint:
        return self._policy

    @property
    def _host(self) -> Warms:
        return self._sampler
