"""A sampler with tree search: one tree of partial answers per train prompt, for all prompts of a chunk at once."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from sparring.loop.errors import ConfigError
from sparring.loop.parts import Judge
from sparring.loop.sampling.options import Search, Source
from sparring.loop.sampling.requests import Answer, Request, SamplingEngine, completion_id, completion_of, parted
from sparring.loop.sampling.sampler import EngineSampler, Sampling
from sparring.loop.sampling.tree import Cut, Leaf, Step, after, every, expand, select
from sparring.loop.tokens import Template
from sparring.loop.types import Completion, Group, Judgement, Prompt, Round, derive_seed

log = logging.getLogger("sparring.search")


class TreeSampler(EngineSampler):
    """Monte Carlo tree search over the steps of an answer: MCTS-DPO, arXiv:2405.00451; see loop.sampling.tree.

    Each iteration selects one step in each prompt's tree and samples full answers that continue it, with one engine
    call for all prompts of a chunk (and a second call if new steps get several rollouts). `value` judges them. It is a
    verifiable judge without a model, because the engine keeps the accelerator. The paper's values by self-evaluation
    (the policy rates a step) and its intermediate rewards are left out: the value of a step is that of the full answers
    below it.

    The completions are all partial answers and all full answers. `parent_id` is the partial answer that a completion
    continues. Tokens and log-probs are as sampled, from the beginning of the answer; `seed` is that of the last draw.
    `siblings` pairs partial answers; judges do not see them. Held-out prompts and other sources are sampled without
    search.

    `step` is the text or the number of tokens that ends a step. Raises ConfigError for a value judge that compares
    answers.
    """

    def __init__(
        self,
        engine: SamplingEngine,
        sampling: Sampling,
        search: Search,
        step: str | int,
        value: Judge,
        *,
        seed: int,
        probes: Path | None = None,
    ) -> None:
        if value.compares:
            raise ConfigError(
                f"judge {value.name} compares answers, and a search needs a value of each answer alone; use a judge "
                "that scores single answers"
            )
        super().__init__(engine, sampling, seed=seed, probes=probes)
        self.search, self.step, self.value = search, step, value

    def _answers(self, rnd: Round, source: Source | None, fits: Sequence[tuple[Prompt, list[int]]]) -> list[Completion]:
        if source is not None or rnd.split == "eval":
            return super()._answers(rnd, source, fits)
        forest = Forest(self, rnd, [Tree(prompt, ids) for prompt, ids in fits])
        for _ in range(self.search.iterations):
            forest.iterate()
        return forest.records()


@dataclass(frozen=True)
class Tree:
    prompt: Prompt
    prompt_ids: Sequence[int]
    root: Step = field(default_factory=Step)


@dataclass(frozen=True)
class Draw:
    """A request for `n` more full answers that continue a step of a tree."""

    tree: Tree
    step: Step
    n: int


class Forest:
    """The search of one chunk of prompts."""

    def __init__(self, sampler: TreeSampler, rnd: Round, trees: Sequence[Tree]) -> None:
        self.sampler, self.search, self.rnd, self.trees = sampler, sampler.search, rnd, trees
        self._template = Template.of(rnd.policy.path, sampler.sampling.rendering)
        self._tokenizer = self._template.tokenizer
        self._cut: Cut = every(sampler.step) if isinstance(sampler.step, int) else after(sampler.step, self._text)
        self._numbers = count()
        self.same = 0  # steps that were drawn again and merged with an identical sibling

    def iterate(self) -> None:
        """Expand one step in each tree that still has an open one."""
        selected = [(tree, select(tree.root, self.search.exploration)) for tree in self.trees]
        chosen = [(tree, step) for tree, step in selected if step is not None]
        self._sample([Draw(tree, step, self._more(step)) for tree, step in chosen])
        grown = [(tree, step) for tree, step in chosen if len(step.path) < self.search.depth]
        self.same += sum(expand(step, self._cut) for _, step in grown)
        new = [(tree, child) for tree, step in grown for child in step.children if not child.ended]
        self._sample([Draw(tree, child, self.search.rollouts - len(child.leaves)) for tree, child in new])

    def records(self) -> list[Completion]:
        """The completions of one tree after the other, each partial answer before those that continue it."""
        if self.same:
            log.info("round %d: %d steps repeated an earlier step", self.rnd.index, self.same)
        return [c for tree in self.trees for c in self._below(tree.prompt, tree.root, None, count())]

    def _more(self, step: Step) -> int:
        """The number of answers to sample from a chosen step: `rollouts` at the last depth, else up to `actions`."""
        if len(step.path) == self.search.depth:
            return self.search.rollouts
        return max(1, self.search.actions - len(step.leaves))

    def _sample(self, draws: Sequence[Draw]) -> None:
        """Sample full answers that continue steps, and add them to the steps with their values."""
        draws = [d for d in draws if d.n > 0]
        if not draws:
            return
        requests = [self._request(d) for d in draws]
        drawn = [
            [self._full(d, request, k, answer) for k, answer in enumerate(answers)]
            for d, request, answers in zip(draws, requests, self.sampler.engine.generate(requests), strict=True)
        ]
        values = self._values([Group(d.tree.prompt, tuple(answers)) for d, answers in zip(draws, drawn, strict=True)])
        for d, answers in zip(draws, drawn, strict=True):
            d.step.leaves += [Leaf(answer, values.get(answer.id)) for answer in answers]
            d.step.drawn += d.n

    def _request(self, d: Draw) -> Request:
        s, begun = self.sampler.sampling, d.step.token_ids
        seed = derive_seed(self.sampler.seed, self.rnd.index, d.tree.prompt.id, d.step.path, d.step.drawn)
        return Request([*d.tree.prompt_ids, *begun], d.n, seed, s.temperature, s.top_p, s.max_tokens - len(begun))

    def _full(self, d: Draw, request: Request, k: int, answer: Answer) -> Completion:
        """The answer from its beginning. Its number is unique in the chunk, and final only in `records`."""
        tokens = [*d.step.token_ids, *answer.token_ids]
        whole = Answer(self._text(tokens), tokens, [*d.step.logprobs, *answer.logprobs], answer.finish_reason)
        full = completion_of(self.rnd, d.tree.prompt, request, next(self._numbers), whole, request.seed + k)
        return parted(full, self._template, d.tree.prompt_ids)

    def _values(self, groups: Sequence[Group]) -> Mapping[str, float]:
        judge = self.sampler.value
        judgements = [row for chunk in judge.judge(groups) for row in chunk if isinstance(row, Judgement)]
        return judge.read(judgements).scores

    def _below(self, prompt: Prompt, step: Step, parent: str | None, numbers: Iterator[int]) -> Iterator[Completion]:
        for child in step.children:
            node = parent
            if not child.ended:
                partial = self._record(prompt, self._partial(child), parent, next(numbers))
                yield partial
                node = partial.id
            yield from self._below(prompt, child, node, numbers)
        for leaf in step.leaves:
            yield self._record(prompt, leaf.completion, parent, next(numbers))

    def _partial(self, step: Step) -> Completion:
        assert step.cut_from is not None  # the root is not an answer, and no caller passes it
        tokens, logprobs = step.token_ids, step.logprobs
        text = self._text(tokens)
        partial = replace(step.cut_from, text=text, token_ids=tokens, logprobs=logprobs, finish_reason="length")
        return replace(partial, thought=None)  # a step may end within a thought

    def _record(self, prompt: Prompt, answer: Completion, parent: str | None, number: int) -> Completion:
        return replace(answer, id=completion_id(self.rnd, prompt, number), sample=number, parent_id=parent)

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))
