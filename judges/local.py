"""Questions to a vLLM engine in this process."""

import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from judges.asking import Question, Reply, call_id
from judges.verdicts import by_label, storable, unreadable
from loop.errors import ConfigError
from loop.types import Checkpoint, JudgeCall

if TYPE_CHECKING:
    from loop.sampling.engine import Inquiry, Told

CHUNK = 32  # questions the engine gets at a time: what is stored at once, and what a crash can lose


class EngineAsker:
    """An asker (see judges.asking) with an engine of its own beside the policy's; on a GPU only one is awake at a time.

    `context` is the most tokens a question and its answer may have together; a longer question gets no answer. Answers
    are greedy, so nothing is asked twice. Raises ConfigError for a label that is not one token.
    """

    def __init__(self, model: str, *, context: int = 4096, dtype: str | None = None, gpu_memory: float = 0.85) -> None:
        self._source, self._context, self._dtype, self._gpu_memory = model, context, dtype, gpu_memory

    @property
    def model(self) -> str:
        """The model's name, with its weights' hash: a folder may hold others tomorrow."""
        return f"{self._source}@{self._checkpoint.weights_sha256[:12]}"

    def ask(self, questions: Sequence[Question]) -> Iterator[list[Reply]]:
        if not questions:
            return
        self._engine.load(self._checkpoint)
        try:
            for start in range(0, len(questions), CHUNK):
                yield self._replies(questions[start : start + CHUNK])
        finally:
            self._engine.rest()

    @property
    def weights(self) -> Sequence[str]:
        return (self._checkpoint.weights_sha256,)

    def close(self) -> None:
        self._engine.close()

    @cached_property
    def _checkpoint(self) -> Checkpoint:
        from loop.learning.checkpoint import weights_sha256
        from loop.models import resolve_model

        folder = resolve_model(self._source)
        return Checkpoint("", "", str(folder), None, weights_sha256(folder))

    @cached_property
    def _engine(self) -> Any:
        from loop.hardware import device
        from loop.sampling.engine import Engine, positions

        return Engine(
            context=min(self._context, positions(self._checkpoint.path)),
            dtype=self._dtype,
            max_seqs=CHUNK,
            gpu_memory=self._gpu_memory,
            own_process=device().type == "cuda",
        )

    @cached_property
    def _template(self) -> Any:
        from loop.tokens import Template

        return Template.of(self._checkpoint.path)

    def _replies(self, questions: Sequence[Question]) -> list[Reply]:
        asked = [(question, self._inquiry(question)) for question in questions]
        fits = [(question, inquiry) for question, inquiry in asked if self._lacks(inquiry) <= 0]
        began = time.monotonic()
        told = self._engine.ask([inquiry for _, inquiry in fits])
        seconds = (time.monotonic() - began) / max(1, len(fits))
        replies = {
            question.id: self._reply(question, inquiry, answer, seconds)
            for (question, inquiry), answer in zip(fits, told, strict=True)
        }
        return [replies.get(question.id) or self._too_long(question, inquiry) for question, inquiry in asked]

    def _inquiry(self, question: Question) -> "Inquiry":
        from loop.sampling.engine import Inquiry

        ids = self._template.prompt_ids(question.messages)
        return Inquiry(
            ids, 1 if question.labels else question.max_tokens, list(self._tokens(question.labels)), question.schema
        )

    def _tokens(self, labels: Sequence[str]) -> dict[int, str]:
        """The tokens that stand for a label: the label, and the label after a space where that is one token too."""
        tokens: dict[int, str] = {}
        for label in labels:
            for text in (label, f" {label}"):
                ids = self._template.tokenizer.encode(text, add_special_tokens=False)
                if len(ids) == 1 and tokens.setdefault(ids[0], label) == label:
                    continue
                if text == label:
                    raise ConfigError(
                        f"label {label!r} is {len(ids)} tokens for {self._source}, or another label's; wanted one "
                        "of its own, as A or B are: change the judge's labels, or have it answer with verdict: json"
                    )
        return tokens

    def _lacks(self, inquiry: "Inquiry") -> int:
        return len(inquiry.prompt_ids) + inquiry.max_tokens - int(self._engine.context)

    def _too_long(self, question: Question, inquiry: "Inquiry") -> Reply:
        room = self._engine.context - inquiry.max_tokens
        return Reply(question, None, {}, f"the question has {len(inquiry.prompt_ids)} tokens, room for {room}")

    def _reply(self, question: Question, inquiry: "Inquiry", told: "Told", seconds: float) -> Reply:
        text = storable(told.text)
        label = self._tokens(question.labels)
        logprobs = by_label((label[token], logprob) for token, logprob in told.logprobs.items())
        cut = told.finish_reason == "length" and not question.labels
        error = f"cut at {inquiry.max_tokens} tokens" if cut else unreadable(question, text, logprobs)
        tokens = (len(inquiry.prompt_ids), told.n_tokens)
        made = call_id(question, 1)
        call = JudgeCall(made, question.judge, question.id, 1, self.model, text, error, *tokens, None, seconds)
        return Reply(question, None if error else text, {} if error else logprobs, error, (call,))
