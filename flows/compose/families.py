"""Models of several families in one process: which share an engine, and which share their tokens."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from sparring.loop.parts import Sampled
from sparring.loop.types import Checkpoint, Prompt, Round

if TYPE_CHECKING:
    from sparring.loop.sampling.sampler import EngineSampler


class FamilySampler:
    """A sampler with an engine for one family of models at a time: vLLM keeps the tokenizer that it started with."""

    def __init__(self, make: "Callable[[], EngineSampler]", family: Callable[[Checkpoint], str]) -> None:
        self.make, self.family = make, family
        self._live: tuple[str, EngineSampler] | None = None

    def sources(self, rnd: Round) -> list[Round]:
        return []

    def sample(self, rnd: Round, prompts: Sequence[Prompt]) -> Iterator[Sequence[Sampled]]:
        if prompts:
            yield from self._of(self.family(rnd.policy)).sample(rnd, prompts)

    def sleep(self) -> None:
        if self._live:
            self._live[1].sleep()

    def close(self) -> None:
        if self._live:
            self._live[1].engine.close()
            self._live = None

    def _of(self, family: str) -> "EngineSampler":
        if self._live is None or self._live[0] != family:
            self.close()
            self._live = (family, self.make())
        return self._live[1]


def same_tokens(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether a token id means the same to both: else neither can say how likely the other's answer is."""
    from sparring.loop.tokens import Template

    first, second = (Template.of(checkpoint.path).tokenizer.get_vocab() for checkpoint in (one, other))
    return bool(first == second)
