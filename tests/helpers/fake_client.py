"""A client without a model: it answers by a function of the question. Its calls cost nothing but are counted."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from sparring.judges.llm_client import Question, Reply
from sparring.loop.errors import StepError
from sparring.loop.types import JudgeCall, make_id

Answer = str | Mapping[str, float] | None  # a text, log-probs of labels, or nothing


class FakeClient:
    """Answers `chunk` questions at a time; its endpoint goes away when it has answered `dies_after` of them."""

    def __init__(
        self,
        answer: Callable[[Question], Answer],
        *,
        model: str = "fake",
        chunk: int = 1,
        dies_after: int | None = None,
    ) -> None:
        self.answer, self.model, self.chunk, self.dies_after = answer, model, chunk, dies_after
        self.asked: list[Question] = []

    @property
    def weights(self) -> Sequence[str]:
        return ()

    def close(self) -> None:
        self.closed = True

    def ask(self, questions: Sequence[Question]) -> Iterator[list[Reply]]:
        for start in range(0, len(questions), self.chunk):
            if self.dies_after is not None and len(self.asked) >= self.dies_after:
                raise StepError("the endpoint is gone; start it again")
            part = questions[start : start + self.chunk]
            self.asked += part
            yield [self._reply(question) for question in part]

    def _reply(self, question: Question) -> Reply:
        found = self.answer(question)
        logprobs = found if isinstance(found, Mapping) else {}
        text = max(logprobs, key=logprobs.__getitem__) if isinstance(found, Mapping) else found
        error = "no reply: timed out" if text is None else ""
        made = make_id("call", question=question.id)
        call = JudgeCall(made, question.judge, question.id, 1, self.model, text, error, 9, 1, None, 0.0)
        return Reply(question, text, logprobs, error, (call,), "unreached" if text is None else "abstained")
