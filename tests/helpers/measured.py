"""Checkpoints of a project (tests.helpers.spar), measured on answers that a script has for them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from sparring.flows.config import Config, read_config
from sparring.flows.run.evaluate import Measurement, parts_of, play_measurement, prepared
from sparring.loop.fakes import FakeLearner, FakeSampler
from sparring.loop.parts import Parts
from sparring.loop.types import Completion, Evaluation, Prompt, PromptOutcome, Round

Answers = Mapping[str, Mapping[str, Sequence[str]]]  # policy id -> the question -> its answers

FISH, NO = "Name a fish.", "Say no."
# The judge of the project: at most three words for FISH, and "no" for NO.
RIVAL = {FISH: ("cod", "it is a cod"), NO: ("yes", "maybe")}  # scores 1, 0 and 0, 0
BETTER = {FISH: ("eel", "cod"), NO: ("no", "yes")}  # scores 1, 1 and 1, 0


class Scripted(FakeSampler):
    """Answers from the script: one token per byte, then the end token, each at -0.5 nats. Records its calls."""

    def __init__(self, script: Answers, *, die_after: int | None = None) -> None:
        super().__init__({"train": 2, "eval": 2})
        self.script, self.die_after = script, die_after
        self.asked: list[tuple[str, str]] = []

    def sample(self, rnd: Round, prompts: Sequence[Prompt]) -> Iterator[list[Completion | PromptOutcome]]:
        for each in prompts:
            if len(self.asked) == self.die_after:
                raise KeyboardInterrupt
            self.asked.append((rnd.policy.id, each.messages[-1]["content"]))
            yield [self._said(rnd, each, k) for k in (0, 1)]

    def _said(self, rnd: Round, prompt: Prompt, sample: int) -> Completion:
        text = self.script[rnd.policy.id][prompt.messages[-1]["content"]][sample]
        tokens = [*text.encode(), 0]
        made = self._completion(rnd, prompt, sample)
        return replace(made, text=text, token_ids=tokens, logprobs=[-0.5] * len(tokens))


def config(*changes: str) -> Config:
    return read_config("loop.yaml", ["evaluate.n=2", *changes])


def parts(ready: Measurement, sampler: FakeSampler) -> Parts:
    return replace(parts_of(ready, sampler, lambda step, total, chunks: chunks), learner=FakeLearner())


def measured(
    sampler: FakeSampler, *changes: str, candidate: str | None = None, rival: str | None = None, kl: bool = True
) -> list[Evaluation]:
    with prepared(config(*changes), candidate, rival) as ready:
        play_measurement(ready, parts(ready, sampler), kl=kl)
        assert ready.done
        return ready.results()
