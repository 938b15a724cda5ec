"""A person's own judge: a function `score(prompt, completion, **options) -> float | None`, or a class.

Its name has the hash of its source and options in it, so that two versions never share rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from math import isfinite
from typing import Any

from sparring.loop.errors import ConfigError, StepError
from sparring.loop.judgements import Pointwise, score_id, unjudged
from sparring.loop.parts import Judge
from sparring.loop.registry import Part
from sparring.loop.traits import JudgeTraits
from sparring.loop.types import Completion, Group, Judgement, Prompt, digest

CHUNK = 64  # judgements per transaction


def own_judge(part: Part[JudgeTraits], options: Mapping[str, Any]) -> Judge:
    """The judge of a function; or of a class, whose objects are judges or are called as `score(prompt, completion)`."""
    label = f"{part.make.__qualname__}@{digest([part.source, dict(options)])[:12]}"
    if not isinstance(part.make, type):
        return FunctionJudge(label, part, options)
    made = Part(part.name, _named(part.make, label), part.traits, part.what, part.source)(**options)
    if all(hasattr(made, method) for method in ("judge", "read", "missing")):
        return made  # type: ignore[no-any-return]
    if not callable(made):
        raise ConfigError(
            f"{part.name} makes {made!r}; expected a judge (see sparring.Judge), or an object that can be called as "
            "score(prompt, completion)"
        )
    return FunctionJudge(label, Part(part.name, made, part.traits, part.what, part.source), {})


class FunctionJudge(Pointwise):
    """Scores each completion alone, by `score(prompt, completion, **options)`: a number, or None for no answer.

    Raises StepError for anything else, and for an exception in the function, with the line of the person's code.
    """

    def __init__(self, name: str, score: Part[JudgeTraits], options: Mapping[str, Any]) -> None:
        self.name, self._score, self._options = name, score, options

    def judge(self, groups: Sequence[Group]) -> Iterator[Sequence[Judgement]]:
        rows = (self._judgement(group.prompt, c) for group in groups for c in unjudged(group))
        while chunk := tuple(islice(rows, CHUNK)):
            yield chunk

    def _judgement(self, prompt: Prompt, completion: Completion) -> Judgement:
        value = self._score(prompt, completion, **self._options)
        if value is not None and not (isinstance(value, int | float) and isfinite(value)):
            raise StepError(
                f"your own judge {self._score.name} gave {value!r} for {completion.id}, an answer to {prompt.id}; "
                "expected a finite number, or None for no answer"
            )
        number = None if value is None else float(value)
        return Judgement(score_id(self.name, completion), self.name, completion.id, None, "", "", 0, number)


def _named(made_by: type, label: str) -> type:
    """The class, whose objects have the name that says their source and options, whatever they call themselves."""

    def forget(self: Any, name: str) -> None:
        pass

    return type(
        made_by.__name__, (made_by,), {"name": property(lambda self: label, forget), "__doc__": made_by.__doc__}
    )
