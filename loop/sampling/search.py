"""The sampler that searches: for each train prompt a tree of partial answers, all prompts of a chunk side by side."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from sparring.loop.errors import ConfigError
from sparring.loop.parts import Judge
from sparring.loop.sampling.requests import Answer, Request, SamplingEngine
from sparring.loop.sampling.sampler import EngineSampler, Sampling, completion_id, completion_of
from sparring.loop.sampling.sources import Source
from sparring.loop.sampling.tree import Cut, Leaf, Search, Step, after, every, expand, select
from sparring.loop.tokens import Template
from sparring.loop.types import Completion, Group, Judgement, Prompt, Round, derive_seed

log = logging.getLogger("sparring.search")


class TreeSampler(EngineSampler):
    """Monte Carlo tree search over the steps of an answer: MCTS-DPO, arXiv:2405.00451; see loop.sampling.tree.

    An iteration takes one step of each prompt's tree and samples full answers from it on, in one call of the engine for
    all prompts of a chunk (and a second one where new steps get several rollouts). `value` judges them: a verifiable
    judge without a model, for the engine keeps the accelerator. Left out are the paper's values by self-evaluation (the
    policy asked how good a step is) and rewards along the way: a step is worth what the full answers below it are.

    The completions are every partial answer that was cut and every full one. `parent_id` is the partial answer that
    one goes on from, tokens and log-probs are those that were sampled, from the answer's beginning; `seed` is of its
    last draw. `siblings` learns from partial answers; a judge is not asked about them. Held-out prompts, and what other
    sources answer, are sampled plainly.

    `step` ends a step: a text, or a number of tokens. Raises ConfigError for a value judge that compares answers.
    """

    def __init__(
        self, engine: SamplingEngine, sampling: Sampling, search: Search, step: str | int, value: Judge, *, seed: int
    ) -> None:
        if value.compares:
            raise ConfigError(f"a search needs a value of each answer alone, and judge {value.name} compares answers")
        super().__init__(engine, sampling, seed=seed)
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
class Wanted:
    """`n` more full answers that go on from a step of a tree."""

    tree: Tree
    step: Step
    n: int


class Forest:
    """The search of one chunk of prompts."""

    def __init__(self, sampler: TreeSampler, rnd: Round, trees: Sequence[Tree]) -> None:
        self.sampler, self.search, self.rnd, self.trees = sampler, sampler.search, rnd, trees
        self._tokenizer = Template.of(rnd.policy.path).tokenizer
        self._cut: Cut = every(sampler.step) if isinstance(sampler.step, int) else after(sampler.step, self._text)
        self._numbers = count()
        self.same = 0  # steps that were drawn again: siblings that would be identical

    def iterate(self) -> None:
        """One step further in each tree that has not come to its end."""
        found = [(tree, select(tree.root, self.search.exploration)) for tree in self.trees]
        chosen = [(tree, step) for tree, step in found if step is not None]
        self._draw([Wanted(tree, step, self._more(step)) for tree, step in chosen])
        grown = [(tree, step) for tree, step in chosen if len(step.path) < self.search.depth]
        self.same += sum(expand(step, self._cut) for _, step in grown)
        new = [(tree, child) for tree, step in grown for child in step.children if not child.ended]
        self._draw([Wanted(tree, child, self.search.rollouts - len(child.leaves)) for tree, child in new])

    def records(self) -> list[Completion]:
        """Tree after tree, a partial answer before those that go on from it."""
        if self.same:
            log.info("round %d: %d steps were drawn that were there already", self.rnd.index, self.same)
        return [c for tree in self.trees for c in self._below(tree.prompt, tree.root, None, count())]

    def _more(self, step: Step) -> int:
        """How many answers are drawn from a chosen step on: at the last depth rollouts, else up to `actions`."""
        if len(step.path) == self.search.depth:
            return self.search.rollouts
        return max(1, self.search.actions - len(step.leaves))

    def _draw(self, wanted: Sequence[Wanted]) -> None:
        """Sample full answers from steps on, and hang them there with their values."""
        wanted = [w for w in wanted if w.n > 0]
        if not wanted:
            return
        requests = [self._request(w) for w in wanted]
        drawn = [
            [self._full(w, request, k, answer) for k, answer in enumerate(answers)]
            for w, request, answers in zip(wanted, requests, self.sampler.engine.generate(requests), strict=True)
        ]
        values = self._values([Group(w.tree.prompt, tuple(answers)) for w, answers in zip(wanted, drawn, strict=True)])
        for w, answers in zip(wanted, drawn, strict=True):
            w.step.leaves += [Leaf(answer, values.get(answer.id)) for answer in answers]
            w.step.drawn += w.n

    def _request(self, w: Wanted) -> Request:
        s, begun = self.sampler.sampling, w.step.token_ids
        seed = derive_seed(self.sampler.seed, self.rnd.index, w.tree.prompt.id, w.step.path, w.step.drawn)
        return Request([*w.tree.prompt_ids, *begun], w.n, seed, s.temperature, s.top_p, s.max_tokens - len(begun))

    def _full(self, w: Wanted, request: Request, k: int, answer: Answer) -> Completion:
        """From the answer's beginning. Its number is one of its own in the chunk, until the tree is told in order."""
        tokens = [*w.step.token_ids, *answer.token_ids]
        whole = Answer(self._text(tokens), tokens, [*w.step.logprobs, *answer.logprobs], answer.finish_reason)
        return completion_of(self.rnd, w.tree.prompt, request, next(self._numbers), whole, request.seed + k)

    def _values(self, groups: Sequence[Group]) -> Mapping[str, float]:
        judge = self.sampler.value
        said = [row for chunk in judge.judge(groups) for row in chunk if isinstance(row, Judgement)]
        return judge.read(said).scores

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
        assert step.cut_from is not None  # the root is no answer, and never asked for
        tokens, logprobs = step.token_ids, step.logprobs
        text = self._text(tokens)
        return replace(step.cut_from, text=text, token_ids=tokens, logprobs=logprobs, finish_reason="length")

    def _record(self, prompt: Prompt, answer: Completion, parent: str | None, number: int) -> Completion:
        return replace(answer, id=completion_id(self.rnd, prompt, number), sample=number, parent_id=parent)

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))
