"""The sampler: completions of prompts with the round's policy, chunk by chunk."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loop.learning.probing import sequences, wanted_logprobs
from loop.pairs import outcome_of
from loop.sampling.engine import Answer, Engine, Request
from loop.sampling.probe import probe
from loop.tokens import Template
from loop.types import Checkpoint, Completion, Prompt, PromptOutcome, Round, Split, derive_seed, make_id


@dataclass(frozen=True)
class Sampling:
    n: Mapping[Split, int]  # completions a prompt, for train and for eval
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 256
    chunk: int = 64  # prompts a chunk: what is stored at once, and what a crash can lose


class VllmSampler:
    """Samples with the one live engine. Seeds come from (run seed, round, prompt, sample), never from a clock."""

    def __init__(self, engine: Engine, sampling: Sampling, *, seed: int) -> None:
        self.engine, self.sampling, self.seed = engine, sampling, seed
        self._before: list[float] | None = None  # what the trainer says of the weights that the engine holds

    def sample(self, rnd: Round, prompts: Sequence[Prompt]) -> Iterator[list[Completion | PromptOutcome]]:
        """One chunk at a time, all of it or nothing: each starts from an empty cache, so it can be made again alike."""
        if not prompts:
            return
        self.warm(rnd.policy)
        template = Template.of(rnd.policy.path)
        for start in range(0, len(prompts), self.sampling.chunk):
            chunk = prompts[start : start + self.sampling.chunk]
            ids = [template.prompt_ids(p.messages) for p in chunk]
            yield self._chunk(rnd, chunk, ids)

    def warm(self, policy: Checkpoint) -> None:
        """Make the engine ready to sample from `policy`, and sure of it."""
        if self.engine.load(policy):
            want = wanted_logprobs(Path(policy.path))
            probe(self.engine, policy, want, sequences(policy.path), self._before)
            self._before = want

    def rest(self) -> None:
        self.engine.rest()

    def _chunk(
        self, rnd: Round, prompts: Sequence[Prompt], ids: Sequence[list[int]]
    ) -> list[Completion | PromptOutcome]:
        room = self.engine.context - self.sampling.max_tokens
        fits = [(p, i) for p, i in zip(prompts, ids, strict=True) if len(i) <= room]
        records: list[Completion | PromptOutcome] = [
            outcome_of(
                rnd,
                p.id,
                "failed",
                f"the prompt has {len(i)} tokens, room for {room} (context {self.engine.context} less max_tokens "
                f"{self.sampling.max_tokens}); raise sample.context or shorten it",
            )
            for p, i in zip(prompts, ids, strict=True)
            if len(i) > room
        ]
        requests = [self._request(rnd, p, i) for p, i in fits]
        for (prompt, _), request, answers in zip(fits, requests, self.engine.generate(requests), strict=True):
            records += [self._completion(rnd, prompt, request, k, a) for k, a in enumerate(answers)]
        return records

    def _request(self, rnd: Round, prompt: Prompt, ids: list[int]) -> Request:
        s = self.sampling
        seed = derive_seed(self.seed, rnd.index, prompt.id)
        return Request(ids, s.n[rnd.split], seed, s.temperature, s.top_p, s.max_tokens)

    def _completion(self, rnd: Round, prompt: Prompt, request: Request, sample: int, answer: Answer) -> Completion:
        return Completion(
            id=make_id(
                "completion", run=rnd.run, round=rnd.index, policy=rnd.policy.id, prompt=prompt.id, sample=sample
            ),
            run=rnd.run,
            round=rnd.index,
            prompt_id=prompt.id,
            policy_id=rnd.policy.id,
            sample=sample,
            origin="policy",
            text=answer.text,
            token_ids=array("i", answer.token_ids),
            logprobs=array("f", answer.logprobs),
            finish_reason="stop" if answer.finish_reason == "stop" else "length",
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed + sample,
        )
