"""Thoughts apart from answers: what a model writes between two marks before it answers. Judges see the answer alone."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

# The marks of Qwen, DeepSeek, SmolLM and others; of Mistral; of Exaone; of Cohere; of Granite.
MARKS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<thought>", "</thought>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<thinking>", "</thinking>"),
)


class Parts(NamedTuple):
    """`thought` None: there is none. `answer` None: the thought was not closed, so there is no answer."""

    thought: str | None
    answer: str | None


def marks_of(template: str, tokens: Iterable[str]) -> tuple[str, str] | None:
    """The marks that a model uses: those that its chat template or its added tokens have; None if it does not think."""
    known = set(tokens)
    return next((pair for pair in MARKS if set(pair) <= known or all(mark in template for mark in pair)), None)


def opens(prompt: str, marks: tuple[str, str]) -> bool:
    """Whether a prompt ends inside a thought, as where the template opens it for the model."""
    begin, end = (prompt.rfind(mark) for mark in marks)
    return begin > end and not prompt[begin + len(marks[0]) :].strip()


def split(text: str, marks: tuple[str, str], *, opened: bool = False) -> Parts:
    """A model's text in two. A mark counts at the beginning only: later it is something that the answer mentions.

    `opened`: the prompt ends inside a thought, so that the text begins in it.
    """
    begin, end = marks
    if not opened and not text.lstrip().startswith(begin):
        return Parts(None, text)
    thought, closed, answer = text.lstrip().removeprefix(begin).partition(end)
    return Parts(thought.strip(), answer.lstrip() if closed else None)


def answer_of(reply: str) -> str | None:
    """What a judge's reply says after its thought, whichever marks it uses; None if the thought was not closed."""
    if reply.lstrip().startswith(("{", "```")):
        return reply  # a verdict that mentions a mark
    for marks in MARKS:
        opened = marks[1] in reply and marks[0] not in reply  # its template had opened the thought
        parts = split(reply, marks, opened=opened)
        if parts.thought is not None:
            return parts.answer
    return reply


def with_marks(pieces: Sequence[str], marks: Sequence[str]) -> str:
    """Pieces of text with the marks that stood between them."""
    return "".join(part for pair in zip(pieces, [*marks, ""], strict=True) for part in pair)
