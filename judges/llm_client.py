"""The questions and replies of an LLM judge, and the protocol of what answers: an endpoint, a local engine, a fake."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import uuid4

from sparring.loop.types import JudgeCall, Judgement, JudgementStatus, Message, make_id


@dataclass(frozen=True)
class Question:
    """One question. With `labels`, the answer is one token with the log-prob of each label. With `schema`, it is a JSON
    object under that JSON schema. With neither, it is text.
    """

    id: str  # the id of the judgement that the answer becomes
    judge: str
    messages: tuple[Message, ...]
    labels: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    max_tokens: int = 512


@dataclass(frozen=True)
class Reply:
    """The reply to a question. `text` None: there is no answer, and `error` says why. `calls` are the calls made."""

    question: Question
    text: str | None
    logprobs: Mapping[str, float]  # label -> log-prob, for the labels that have one
    error: str = ""
    calls: tuple[JudgeCall, ...] = ()
    status: JudgementStatus = "abstained"  # of a judgement to which this reply gives no value


class Asked(Protocol):
    """What calls are made for: the judgement that they are counted under, and its judge."""

    @property
    def id(self) -> str: ...
    @property
    def judge(self) -> str: ...


def call_id(question: Asked, attempt: int) -> str:
    """A new id each time: calls log what was paid for, and a question that is asked again is paid for again."""
    return make_id("call", judgement=question.id, attempt=attempt, once=uuid4().hex)


class LLMClient(Protocol):
    @property
    def model(self) -> str:
        """The model that answers; part of the judge's name."""
        ...

    @property
    def weights(self) -> Sequence[str]:
        """The hash of the model, if the client runs it itself."""
        ...

    def close(self) -> None: ...

    def ask(self, questions: Sequence[Question]) -> Iterator[Sequence[Reply]]:
        """One reply per question, in chunks as they come. A chunk is stored before more are awaited."""
        ...


class HasClient:
    """The part that judges with a client share."""

    client: LLMClient

    @property
    def weights(self) -> Sequence[str]:
        return self.client.weights

    def close(self) -> None:
        self.client.close()

    def ask(
        self, questions: Sequence[Question], judged: Callable[[Reply], Iterable[Judgement]]
    ) -> Iterator[list[Judgement | JudgeCall]]:
        """The judgements and the calls of each chunk of replies, so that they are stored before more are awaited."""
        for replies in self.client.ask(questions):
            judgements = [judgement for reply in replies for judgement in judged(reply)]
            yield [*judgements, *(call for reply in replies for call in reply.calls)]
