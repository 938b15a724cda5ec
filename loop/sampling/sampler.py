"""The sampler: completions of prompts by the round's policy and by other sources, chunk by chunk."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sparring.loop.errors import ProbeError
from sparring.loop.pairing.pipeline import outcome_of
from sparring.loop.parts import Sampled
from sparring.loop.sampling.folder_facts import positions
from sparring.loop.sampling.options import Source
from sparring.loop.sampling.prober import Prober
from sparring.loop.sampling.requests import Request, SamplingEngine, completion_of, parted
from sparring.loop.sampling.sources import gold, policy_of, source_of
from sparring.loop.tokens import RefusedPrompt, Rendering, Template
from sparring.loop.types import (
    Checkpoint,
    Completion,
    Prompt,
    PromptTokens,
    Round,
    Split,
    derive_seed,
)

log = logging.getLogger("sparring.sampler")

ADVICE = (
    "This engine was new, so vLLM and transformers compute the model differently. Nothing was sampled. Set "
    "sample.dtype: float32; if the error persists, sample.engine: transformers, which is slow"
)


@dataclass(frozen=True)
class Sampling:
    n: Mapping[Split, int]  # completions per prompt, for train and for eval
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 256
    chunk: int = 64  # prompts per chunk, which is stored at once; a crash loses at most one chunk
    extra: Sequence[Source] = ()  # the sources that answer the train prompts besides the policy
    models: Mapping[str, Checkpoint] = field(default_factory=dict)  # the models that `extra` names by folder or hub id
    rendering: Rendering = field(default_factory=Rendering)  # for policies; other models get the date alone


class EngineSampler:
    """Samples with one live engine. Seeds come from (run seed, round, prompt, sample), never from a clock.

    `probes` is the folder where a run keeps what the probe has seen.
    """

    def __init__(self, engine: SamplingEngine, sampling: Sampling, *, seed: int, probes: Path | None = None) -> None:
        self.engine, self.sampling, self.seed = engine, sampling, seed
        self._prober = Prober(engine, probes) if engine.probed else None
        self._live = False  # whether the engine has been loaded before

    def sources(self, rnd: Round) -> list[Round]:
        if rnd.split == "eval":
            return []
        return [
            replace(rnd, origin="dataset" if source.of == "dataset" else "reference", policy=policy)
            for source in self.sampling.extra
            for policy in [policy_of(source, rnd, self.sampling.models)]
        ]

    def sample(self, rnd: Round, prompts: Sequence[Prompt]) -> Iterator[list[Sampled]]:
        """Completions in whole chunks. Each chunk starts from an empty cache, so sampling it again gives the same."""
        if not prompts or (rnd.origin == "policy" and self.sampling.n[rnd.split] == 0):
            return
        source = source_of(rnd, self.sampling.extra, self.sampling.models)
        if rnd.origin != "dataset":
            self.warm(rnd.policy)
        for start in range(0, len(prompts), self.sampling.chunk):
            yield self._chunk(rnd, source, prompts[start : start + self.sampling.chunk])

    def warm(self, policy: Checkpoint) -> None:
        """Load `policy` into the engine, and probe new weights; a reload that fails the probe starts a new engine."""
        models = self.sampling.models.values()
        if self._prober:
            self._prober.prepare([policy, *models])
        if self.engine.load(policy) and self._prober:
            self._probe(self._prober, policy, own=policy not in models)
        self._live = True

    def _probe(self, prober: Prober, policy: Checkpoint, *, own: bool) -> None:
        try:
            prober.check(policy, own=own)
        except ProbeError as error:
            if not self._live:
                self.engine.close()  # a second try must not find these weights in it, unprobed
                raise ProbeError(f"{error}. {ADVICE}") from error
            log.warning("%s. A new engine is started and probed", error)
            self._live = False
            self.engine.restart(policy)
            self._probe(prober, policy, own=own)

    def sleep(self) -> None:
        self.engine.sleep()

    def _chunk(self, rnd: Round, source: Source | None, prompts: Sequence[Prompt]) -> list[Sampled]:
        template, from_dataset = self._template(rnd), source if rnd.origin == "dataset" else None
        given = {p.id: gold(rnd, p, from_dataset, template) for p in prompts} if from_dataset else {}
        longest = {p.id: len(given[p.id].token_ids) if given else self.sampling.max_tokens for p in prompts}
        asked = [(p, self._ids(rnd, p, template, longest[p.id])) for p in prompts]
        failed = [outcome_of(rnd, p.id, "failed", why) for p, why in asked if isinstance(why, str)]
        answered = [(p, ids) for p, ids in asked if not isinstance(ids, str)]
        if from_dataset:
            answers = [parted(given[p.id], template, ids) for p, ids in answered]
        else:
            answers = self._answers(rnd, source, answered)
        if source is not None and source.of in self.sampling.models:
            return [*failed, *answers]  # the policy that learns from them is given the prompt in its own tokens
        kept = {prompt.id: PromptTokens.make(prompt.id, ids) for prompt, ids in answered}
        return [*failed, *kept.values(), *(replace(c, prompt_tokens_id=kept[c.prompt_id].id) for c in answers)]

    def _template(self, rnd: Round) -> Template:
        others = {model.id for model in self.sampling.models.values()}
        rendering = self.sampling.rendering
        return Template.of(rnd.policy.path, Rendering(date=rendering.date) if rnd.policy.id in others else rendering)

    def _ids(self, rnd: Round, prompt: Prompt, template: Template, answer: int) -> list[int] | str:
        """The prompt's tokens, or why it cannot be answered."""
        try:
            ids = template.prompt_ids(prompt.messages)
        except RefusedPrompt as error:
            return str(error)
        most = positions(rnd.policy.path)
        context = min(self.engine.context, most)
        if len(ids) <= context - answer:
            return ids
        advice = "shorten the prompt" if context == most else "raise sample.context or shorten the prompt"
        return (
            f"the prompt has {len(ids)} tokens, and there is room for {context - answer} (context {context} minus "
            f"{answer} of an answer); {advice}"
        )

    def _answers(self, rnd: Round, source: Source | None, fits: Sequence[tuple[Prompt, list[int]]]) -> list[Completion]:
        requests = [self._request(rnd, source, p, i) for p, i in fits]
        template = self._template(rnd)
        return [
            parted(completion_of(rnd, prompt, request, k, answer, request.seed + k), template, ids)
            for (prompt, ids), request, answers in zip(fits, requests, self.engine.generate(requests), strict=True)
            for k, answer in enumerate(answers)
        ]

    def _request(self, rnd: Round, source: Source | None, prompt: Prompt, ids: list[int]) -> Request:
        s = self.sampling
        if source is None:
            seed = derive_seed(self.seed, rnd.index, prompt.id)
            return Request(ids, s.n[rnd.split], seed, s.temperature, s.top_p, s.max_tokens)
        seed = derive_seed(self.seed, rnd.index, prompt.id, source.of)
        temperature = s.temperature if source.temperature is None else source.temperature
        return Request(ids, source.n, seed, temperature, s.top_p, s.max_tokens)
