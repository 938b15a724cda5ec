"""Questions about judges, prompts and texts, worked by hand. One file holds a run for each test."""

from collections.abc import Iterator
from hashlib import md5
from typing import Any

import pytest

from sparring.loop.types import (
    JudgeCall,
    Judgement,
)
from sparring.store.store import DuckStore
from tests.helpers.kept_store import KeptStore
from tests.helpers.questions import asked, begin, prompts, told
from tests.helpers.records import (
    RUN,
    completion,
    filled_store,
    judgement,
    pair,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckStore]:
    path = tmp_path_factory.mktemp("questions") / "preferences.duckdb"
    filled_store(path)
    kept = KeptStore(path)
    yield kept
    kept.close()


def test_judges_agree_on_two_answers_or_not(store: DuckStore) -> None:
    """x ranks a < b < c; y a > b = c; z has a < b and no answer to c; each member's mean counts."""
    (p,) = prompts("agree", 1)
    rnd = begin("agree", [p])
    made = [completion(rnd, p, k) for k in range(3)]
    scores = {"x": (1, 2, 3), "y": (3, 2, 2), "z": (1, 2, None)}
    store.add([[p, *made, *(judgement(a, s, j) for j in scores for a, s in zip(made, scores[j], strict=True))]])
    store.add([[Judgement("second-member", "y", made[0].id, None, "m", "", 0, 1.5)]])  # 2.25 on the mean: still above
    found = asked(store, "judge_agreement", "agree", "judge", "other_judge", "duels", "agreement", "opposed")
    assert sorted(found) == [("x", "y", 3, 0.0, pytest.approx(2 / 3)), ("x", "z", 1, 1.0, 0.0), ("y", "z", 1, 0.0, 1.0)]


def test_a_comparison_counts_before_the_scores_of_the_same_judge(store: DuckStore) -> None:
    (p,) = prompts("both", 1)
    rnd = begin("both", [p])
    a, b = (completion(rnd, p, k) for k in range(2))
    store.add([[p, a, b, *told("x", b, a, 0.8, 0.6), *(judgement(c, s, "x") for c, s in ((a, 1), (b, 0)))]])
    store.add([[*(judgement(c, s, "y") for c, s in ((a, 0), (b, 1)))]])
    assert asked(store, "judge_agreement", "both", "duels", "agreement", "opposed") == [(1, 1.0, 0.0)]


def test_of_a_large_round_a_hundred_prompts_of_each_split_are_compared(store: DuckStore) -> None:
    """Two judges agree on every other prompt only, so that the share shows which prompts were drawn."""
    many, few = prompts("many", 130), prompts("many", 3, "eval")
    rnd = begin("many", many)
    groups = [[completion(rnd, p, k) for k in range(2)] for p in (*many, *few)]
    agreed = [i % 2 == 0 for i in range(130)] + [True] * 3
    said = [
        judgement(a, float(a.sample == (j == "x" or same)), j)
        for group, same in zip(groups, agreed, strict=True)
        for a in group
        for j in "xy"
    ]
    store.add([[*many, *few, *(a for group in groups for a in group), *said]])
    drawn = sorted(range(130), key=lambda i: md5(many[i].id.encode()).hexdigest())[:100]
    expected = (sum(agreed[i] for i in drawn) + 3) / 103
    ((duels, agreement),) = asked(store, "judge_agreement", "many", "duels", "agreement")
    assert (duels, agreement) == (103, pytest.approx(expected))


def test_position_bias_is_that_of_a_run(store: DuckStore) -> None:
    for name, seconds in (("here", (0.2, 0.8, None)), ("there", (0.9, 0.9, 0.9))):
        (p,) = prompts(name, 1)
        rnd = begin(name, [p])
        a, b, c = (completion(rnd, p, k) for k in range(3))
        duels = zip(((a, b), (a, c), (b, c)), seconds, strict=True)
        store.add([[p, a, b, c, *(j for (x, y), s in duels for j in told("x", x, y, 0.9, s))]])
    columns = ("judge", "duels", "disagree", "both_first", "both_second")
    assert asked(store, "position_bias", "here", *columns) == [("x", 2, 0.5, 0.5, 0.0)]
    assert asked(store, "position_bias", "there", *columns) == [("x", 3, 0.0, 0.0, 0.0)]


def test_prompts_are_decided_where_the_judge_puts_answers_further_apart_than_usual(store: DuckStore) -> None:
    """Gaps 1, 0, 0.5 and 0: 0.375 is usual. The prompt with one answer judged has none."""
    columns = ("round", "prompt", "spread", "judges", "outcome", "margin", "against")
    most = [
        (1, "Name a bird.", pytest.approx(1 / 0.375), 1, "paired", 1.0, 0.0),
        (2, "Name a bird.", pytest.approx(0.5 / 0.375), 1, "paired", 0.5, 0.0),
        (1, "Say yes.", 0.0, 1, "tie", None, None),
        (2, "Say yes.", 0.0, 1, "identical", None, None),
    ]
    assert asked(store, "decided_prompts", RUN, *columns) == most
    assert asked(store, "undecided_prompts", RUN, *columns) == most[2:]


def test_judges_against_a_pair_and_clear_comparisons_show(store: DuckStore) -> None:
    """Of those that score, x is for the pair and y against it; z compares: 0.4 and 0.1 from even, 0.25 is usual."""
    ps = prompts("against", 2)
    rnd = begin("against", ps)
    (a, b), (c, d) = ([completion(rnd, p, k) for k in range(2)] for p in ps)
    scores = [judgement(k, s, j) for j, k, s in (("x", a, 2), ("x", b, 1), ("y", a, 0), ("y", b, 4))]
    store.add(
        [[*ps, rnd, a, b, c, d, pair(rnd, a, b), *scores, *told("z", a, b, 0.9, 0.9), *told("z", c, d, 0.6, 0.6)]]
    )
    found = asked(store, "decided_prompts", "against", "prompt", "spread", "judges", "against")
    assert found == [
        ("against train 0", pytest.approx((1 + 1 + 1.6) / 3), 3, 0.5),
        ("against train 1", pytest.approx(0.4), 1, None),
    ]


def test_equal_answers_are_all_found_and_no_others(store: DuckStore) -> None:
    ps = prompts("equal", 3)
    rnd = begin("equal", ps, 4)
    texts = ["so it is", "other words", "so it is", "other words", "so it is", "something else"]
    tokens = {"so it is": (1, 2, 3, 4), "other words": (1, 2, 3, 4), "something else": (7, 8, 9)}
    made = [completion(rnd, ps[i // 2], i % 2, text=t, token_ids=tokens[t]) for i, t in enumerate(texts)]
    store.add([[*ps, *made]])
    columns = ("completions", "identical", "overlap", "prompts", "first_round", "last_round", "text")
    first, second = asked(store, "near_identical", "equal", *columns)
    assert first == (3, 3, 1.0, 3, 4, 4, "so it is")
    assert second == (2, 2, 1.0, 2, 4, 4, "other words")


def test_answers_without_tokens_are_compared_but_for_case_spaces_and_stops(store: DuckStore) -> None:
    ps = prompts("plain", 1)
    rnd = begin("plain", ps)
    none: dict[str, Any] = {"token_ids": (), "logprobs": ()}
    texts = ("Yes.", "yes", " YES ", "no")
    store.add([[*ps, *(completion(rnd, ps[0], k, text=t, **none) for k, t in enumerate(texts))]])
    ((completions, identical, text),) = asked(store, "near_identical", "plain", "completions", "identical", "text")
    assert (completions, identical, text in texts[:3]) == (3, 1, True)


def test_most_answers_that_differ_in_a_word_are_found(store: DuckStore) -> None:
    """60 words, the last one another: 58 of 62 token triples are shared, so each is found with a chance of 0.88."""
    ps = prompts("near", 30)
    rnd = begin("near", ps)
    made = []
    for i, p in enumerate(ps):
        words = [f"w{i}-{k}" for k in range(60)]
        for k in range(2):
            text, tokens = " ".join([*words[:59], f"end{k}"]), [*range(100 * i, 100 * i + 59), 10_000 + k]
            made.append(completion(rnd, p, k, text=text, token_ids=tokens))
    store.add([[*ps, *made]])
    found = asked(store, "near_identical", "near", "completions", "identical", "overlap", "prompts")
    assert len(found) > 20
    assert set(found) == {(2, 1, 59 / 61, 1)}


def test_costs_are_counted_by_run(store: DuckStore) -> None:
    for name, cost in (("cheap", None), ("dear", 0.5)):
        (p,) = prompts(name, 1)
        a = completion(begin(name, [p]), p)
        said = judgement(a, 1.0, "llm")
        calls = [
            JudgeCall(f"{name}-{k}", "llm", said.id, k, "model", "x", e, 10, 2, cost, 0.25)
            for k, e in ((1, "no"), (2, ""))
        ]
        store.add([[p, a, said, *calls]])
    columns = (
        "judge",
        "model",
        "calls",
        "questions",
        "failed",
        "prompt_tokens",
        "completion_tokens",
        "cost",
        "seconds",
    )
    assert asked(store, "judge_costs", "cheap", *columns) == [("llm", "model", 2, 1, 1, 20, 4, None, 0.5)]
    assert asked(store, "judge_costs", "dear", *columns) == [("llm", "model", 2, 1, 1, 20, 4, 1.0, 0.5)]
