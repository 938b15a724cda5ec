"""The search as a sampler: in a language whose best answer is known, and what comes out of it, token by token."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from math import log
from pathlib import Path
from typing import Any

import pytest

from sparring.judges.rules import RulesJudge
from sparring.loop.errors import ConfigError
from sparring.loop.judgements import Scores, to_judge
from sparring.loop.pairing import Candidates, Choice, Unpaired
from sparring.loop.pairing.builders.tree import siblings
from sparring.loop.parts import Judge, Sampled
from sparring.loop.sampling.options import Search, Source
from sparring.loop.sampling.sampler import EngineSampler, Sampling
from sparring.loop.sampling.search import TreeSampler
from sparring.loop.types import Checkpoint, Completion, Experience, Group, Judgement, Prompt, PromptOutcome, Round
from tests.helpers.language import Language, P
from tests.helpers.scripted_judges import DuelJudge, ScoreJudge

PROMPTS = [Prompt.make([{"role": "user", "content": f"question {i}"}], "train", "by hand", {}) for i in range(12)]
LINES = 5
LONG = 8


def leading(_: str, answer: str) -> float:
    """The lines of y up to the first x, as a share of the most there may be."""
    return len(list(itertools.takewhile(lambda line: line == "y", answer.split("\n")))) / LONG


def round_of(folder: Path, index: int = 1, **changes: Any) -> Round:
    policy = Checkpoint("checkpoint_policy", "run", str(folder), None, "0" * 64)
    return Round("run", index, policy, policy, policy, policy, (), **changes)


def sampler_of(engine: Language, search: Search = Search(), **options: Any) -> TreeSampler:  # noqa: B008
    seed, step, value = options.pop("seed", 0), options.pop("step", "\n"), options.pop("value", ScoreJudge(leading))
    sampling = Sampling({"train": 1, "eval": 3}, **{"max_tokens": 40, **options})
    return TreeSampler(engine, sampling, search, step, value, seed=seed)


Records = list[Sampled]


def sampled(sampler: EngineSampler, rnd: Round, prompts: Sequence[Prompt]) -> Records:
    return [record for chunk in sampler.sample(rnd, prompts) for record in chunk]


def of_id(record: Sampled) -> tuple[str, str]:
    return record.id, repr(record)


def trees(records: Records) -> dict[str, list[Completion]]:
    found = defaultdict(list)
    for c in (record for record in records if isinstance(record, Completion)):
        found[c.prompt_id].append(c)
    return found


def parents(tree: Sequence[Completion]) -> set[str | None]:
    return {c.parent_id for c in tree}


def full(tree: Sequence[Completion]) -> list[Completion]:
    return [c for c in tree if c.id not in parents(tree)]


def depth(of: Completion, tree: Sequence[Completion]) -> int:
    """How many partial answers come before this one."""
    by_id = {c.id: c for c in tree}
    return 0 if of.parent_id is None else 1 + depth(by_id[of.parent_id], tree)


WIDE = Search(depth=LONG, actions=8, iterations=12, exploration=0.3)


def test_the_search_finds_what_plain_sampling_misses(tiny: Path) -> None:
    """The best answer has p = 0.45^8: 60 independent ones hold it in one of ten cases."""
    best = "\n".join("y" * LONG)
    found = trees(sampled(sampler_of(Language(tiny, LONG), WIDE), round_of(tiny), PROMPTS))
    assert len(found) == len(PROMPTS)
    n = max(len(full(tree)) for tree in found.values())
    plain = EngineSampler(Language(tiny, LONG), Sampling({"train": n, "eval": 1}, max_tokens=40), seed=0)
    others = trees(sampled(plain, round_of(tiny), PROMPTS))
    hits = [sum(any(c.text == best for c in tree) for tree in each.values()) for each in (found, others)]
    assert n < 70 and hits[0] >= 10 and hits[1] <= 2


def test_siblings_part_at_the_right_step(tiny: Path) -> None:
    """After k good lines y is better than x, and after a bad one nothing is better than anything."""
    found = trees(sampled(sampler_of(Language(tiny, LONG), WIDE), round_of(tiny), PROMPTS))
    pairs = Counter[tuple[str, str]]()
    for tree in found.values():
        chosen = siblings(Candidates(tree, Scores({c.id: leading("", c.text) for c in full(tree)})))
        if isinstance(chosen, Unpaired):
            assert all(c.text[0] == "x" for c in tree)  # no draw from the prompt on was a y
            continue
        for choice in chosen:
            assert isinstance(choice, Choice)
            good, bad = choice.chosen.completion, choice.rejected.completion
            pairs[good.text, bad.text] += 1
            shared = good.text.rindex("y")  # a token a letter
            assert list(good.token_ids[:shared]) == list(bad.token_ids[:shared])
            assert good.token_ids[shared] != bad.token_ids[shared]
    steps = {("y\n" * k + "y\n", "y\n" * k + "x\n") for k in range(LONG - 1)}
    assert set(pairs) == steps | {("y\n" * (LONG - 1) + "y", "y\n" * (LONG - 1) + "x")}
    assert pairs["y\n", "x\n"] >= 10


def test_what_comes_out_is_what_was_sampled(tiny: Path) -> None:
    engine = Language(tiny, LINES)
    for rollouts in (1, 3):
        found = trees(sampled(sampler_of(engine, Search(rollouts=rollouts)), round_of(tiny), PROMPTS))
        for tree in found.values():
            refuse_wrong(tree, engine)
        assert len({c.id for tree in found.values() for c in tree}) == sum(map(len, found.values()))


def refuse_wrong(tree: Sequence[Completion], engine: Language) -> None:
    by_id = {c.id: c for c in tree}
    assert [c.sample for c in tree] == list(range(len(tree)))
    seen = set[str | None]([None])
    for c in tree:
        assert c.parent_id in seen  # a parent before its children
        seen.add(c.id)
        before = list(by_id[c.parent_id].token_ids) if c.parent_id else []
        tokens = list(c.token_ids)
        assert tokens[: len(before)] == before and len(tokens) > len(before)
        assert engine.tokenizer.decode(tokens, skip_special_tokens=True) == c.text
        letters = [log(P[letter]) for letter in c.text.split("\n") if letter]
        assert [p for p in c.logprobs if p] == pytest.approx(letters)
        assert len(c.logprobs) == len(tokens)
        if c.id in parents(tree):
            assert c.finish_reason == "length" and c.text.count("\n") == depth(c, tree) + 1 and c.text[-1] == "\n"
        else:
            assert c.finish_reason == "stop" and tokens[-1] == engine.tokenizer.eos_token_id


def test_identical_steps_are_one(tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "sparring.search"):
        found = trees(sampled(sampler_of(Language(tiny, 3), Search(actions=6)), round_of(tiny), PROMPTS[:4]))
    for tree in found.values():
        partial = [tuple(c.token_ids) for c in tree if c.id in parents(tree)]
        assert len(partial) == len(set(partial))
        assert sum(c.parent_id is None for c in tree) <= 2  # x and y, of six answers and more
        assert len(full(tree)) > 6
    assert "steps repeated an earlier step" in caplog.text


def test_one_call_an_iteration_for_all_prompts(tiny: Path) -> None:
    engine = Language(tiny, LINES)
    sampled(sampler_of(engine, Search(iterations=6)), round_of(tiny), PROMPTS)
    assert [len(requests) for requests in engine.asked] == [len(PROMPTS)] * 6
    assert {r.n for r in engine.asked[0]} == {2}
    assert {r.n for requests in engine.asked[1:] for r in requests} == {1}  # the other is there already
    several = Language(tiny, LINES)
    found = trees(sampled(sampler_of(several, Search(iterations=6, rollouts=3)), round_of(tiny), PROMPTS))
    assert 6 < len(several.asked) <= 12
    for tree in found.values():
        for partial in (c for c in tree if c.id in parents(tree)):
            below = [c for c in full(tree) if list(c.token_ids[: len(partial.token_ids)]) == list(partial.token_ids)]
            assert len(below) >= 3
    for each in (engine, several):
        requests = [r for requests in each.asked for r in requests]
        drawn = [r.seed + i for r in requests for i in range(r.n)]
        assert len(drawn) == len(set(drawn))
        whole = {len(r.prompt_ids) + 40 for r in each.asked[0]}
        assert {len(r.prompt_ids) + r.max_tokens for r in requests} == whole  # of prompt and answer together


def test_a_search_is_the_same_again_alone_and_in_a_chunk(tiny: Path) -> None:
    rnd = round_of(tiny)
    whole = sampled(sampler_of(Language(tiny, LINES)), rnd, PROMPTS)
    assert sampled(sampler_of(Language(tiny, LINES)), rnd, PROMPTS) == whole
    chunks = list(sampler_of(Language(tiny, LINES), chunk=5).sample(rnd, PROMPTS))
    assert [len({c.prompt_id for c in chunk if isinstance(c, Completion)}) for chunk in chunks] == [5, 5, 2]
    assert sorted(of_id(record) for chunk in chunks for record in chunk) == sorted(map(of_id, whole))
    # killed after the first chunk: what is missing is made alike
    assert sampled(sampler_of(Language(tiny, LINES), chunk=5), rnd, PROMPTS[5:]) == [*chunks[1], *chunks[2]]
    texts = [c.text for c in whole if isinstance(c, Completion)]
    for other in (
        sampled(sampler_of(Language(tiny, LINES), seed=1), rnd, PROMPTS),
        sampled(sampler_of(Language(tiny, LINES)), round_of(tiny, 2), PROMPTS),
    ):
        assert [c.text for c in other if isinstance(c, Completion)] != texts


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_answers_are_cut_down_to_the_depth(tiny: Path, limit: int) -> None:
    found = trees(sampled(sampler_of(Language(tiny, LINES), Search(depth=limit)), round_of(tiny), PROMPTS))
    for tree in found.values():
        assert max(depth(c, tree) for c in tree) == limit  # of full answers below the last step
        assert len(full(tree)) == 2 + 15  # and the search goes on there


@pytest.mark.parametrize("rollouts", [1, 3])
def test_answers_that_end_at_once_end_the_search(tiny: Path, rollouts: int) -> None:
    engine = Language(tiny, 1)
    found = trees(sampled(sampler_of(engine, Search(rollouts=rollouts)), round_of(tiny), PROMPTS))
    assert len(engine.asked) == 1
    assert all(len(tree) == 2 and parents(tree) == {None} for tree in found.values())


def test_some_end_and_others_go_on(tiny: Path) -> None:
    """Steps of five tokens: three lines are done with the first step, five with the second."""
    for lines, calls in ((3, 1), (5, 3)):
        engine = Language(tiny, lines)
        found = trees(sampled(sampler_of(engine, step=6), round_of(tiny), PROMPTS))
        assert len(engine.asked) <= calls
        assert {depth(c, t) for t in found.values() for c in full(t)} == {0 if lines == 3 else 1}


def test_an_answer_that_is_cut_off_is_a_full_one(tiny: Path) -> None:
    """At four tokens of nine: y, newline, y, newline. The last step ends there too, and is the answer."""
    engine = Language(tiny, LINES)
    found = trees(sampled(sampler_of(engine, max_tokens=4), round_of(tiny), PROMPTS))
    for tree in found.values():
        assert {(len(c.token_ids), c.finish_reason) for c in full(tree)} == {(4, "length")}
        assert {len(c.token_ids) for c in tree if c.id in parents(tree)} == {2}


def test_a_prompt_that_is_too_long_fails_alone(tiny: Path) -> None:
    long = Prompt.make([{"role": "user", "content": "x" * 300}], "train", "by hand", {})
    records = sampled(sampler_of(Language(tiny, 3)), round_of(tiny), [PROMPTS[0], long, PROMPTS[1]])
    (failed,) = (r for r in records if isinstance(r, PromptOutcome))
    assert (failed.prompt_id, failed.outcome) == (long.id, "failed") and "room for 160" in failed.reason
    assert {r.prompt_id for r in records if isinstance(r, Completion)} == {p.id for p in PROMPTS[:2]}


def test_others_than_the_policy_on_train_prompts_sample_plainly(tiny: Path) -> None:
    value = ScoreJudge(leading)
    held_out = Prompt.make([{"role": "user", "content": "held out"}], "eval", "by hand", {})
    sampler = sampler_of(Language(tiny, 3), value=value, extra=[Source(of="reference", n=2)])
    found = sampled(sampler, round_of(tiny, split="eval"), [held_out])
    (source,) = sampler.sources(round_of(tiny))
    found += sampled(sampler, source, [PROMPTS[0]])
    assert [(c.origin, c.parent_id) for c in found if isinstance(c, Completion)] == [
        *[("policy", None)] * 3,
        *[("reference", None)] * 2,
    ]
    assert value.asked == 0  # the search's judge never sees a held-out answer


def test_without_values_the_search_goes_by_the_policy(tiny: Path) -> None:
    value = ScoreJudge(lambda prompt, answer: None)
    found = trees(sampled(sampler_of(Language(tiny, LINES), value=value), round_of(tiny), PROMPTS))
    assert value.asked == sum(len(full(tree)) for tree in found.values()) > 0


def test_a_search_needs_values(tiny: Path) -> None:
    with pytest.raises(
        ConfigError, match="judge duels compares answers, and a search needs a value of each answer alone"
    ):
        sampler_of(Language(tiny, 3), value=DuelJudge(lambda a, b: 0.5))


@pytest.mark.parametrize("judge", [RulesJudge(regex="y", truncated="fail"), DuelJudge(lambda a, b: 0.6)])
def test_a_judge_is_not_asked_about_partial_answers(tiny: Path, judge: Judge) -> None:
    found = trees(sampled(sampler_of(Language(tiny, 3)), round_of(tiny), PROMPTS[:3]))
    groups = tuple(Group(prompt, tuple(found[prompt.id])) for prompt in PROMPTS[:3])
    asked = to_judge(Experience(groups, ()), None, 0.5)
    answers = {c.id for group in groups for c in full(group.completions)}
    assert {c.id for group in asked for c in group.completions} == answers
    said = tuple(row for chunk in judge.judge(asked) for row in chunk if isinstance(row, Judgement))
    assert {row.completion_id for row in said} | {row.rival_id for row in said} - {None} == answers
    assert all(row.rationale != "truncated" for row in said)  # no full answer is, every partial one would be
    assert [judge.missing(group) for group in to_judge(Experience(groups, said), None, 0.5)] == [0, 0, 0]
