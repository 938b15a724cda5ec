"""Signs of reward hacking, worked by hand: what is compared, what counts as a rise, and who says no."""

from collections.abc import Iterator, Mapping
from math import sqrt
from typing import Any

import pytest

from sparring.loop.judgements import duel_id
from sparring.loop.types import Checkpoint, Completion, JudgeInfo, Judgement, Prompt, Record, RunInfo, Update
from sparring.store.questions import answer
from sparring.store.store import DuckStore
from tests.helpers.kept_store import KeptStore
from tests.helpers.records import checkpoint, completion, judgement, prompt, round_of

SCORES = {"reward": ((0.1, 0.2, 0.3), (0.2, 0.4, 0.6))}  # changes 0.1, 0.2, 0.3: mean 0.2, standard deviation 0.1
HALF = 1.96 * 0.1 / sqrt(3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckStore]:
    kept = KeptStore(tmp_path_factory.mktemp("hacking") / "preferences.duckdb")
    yield kept
    kept.close()


def signs(store: DuckStore, run: str) -> dict[str, Any]:
    with store.db.read() as con:
        (row,) = answer(con, "hacking_signs", run=run).to_pylist()
    return dict(row)


def updated(run: str, judge: str | None = "reward") -> tuple[list[Record], Checkpoint, Checkpoint]:
    """A run whose round 1 went from a policy to a candidate, and whose config names a judge."""
    before = checkpoint(f"{run}-before", run=run)
    after = checkpoint(f"{run}-after", before, run)
    config = {"shape": {"judge": {"kind": judge, "b": 1}}} if judge else {}
    rows: list[Record] = [RunInfo(run, run, 0, config, "", {}), before, after]
    rows += [JudgeInfo(name, name, {"b": 1, "kind": name}) for name in ("reward", "critic")]
    rows += [Update(f"update-{run}", run, 1, "dpo", before.id, after.id, 3, 1.0, {})]
    return rows, before, after


def held_out(
    run: str, scores: Mapping[str, tuple[tuple[float | None, ...], ...]], tokens: tuple[int, int] = (10, 10),
    judge: str | None = "reward",
) -> list[Record]:  # fmt: skip
    """Held-out prompts with one answer before and one after, as the judges scored them, of so many tokens."""
    rows, *policies = updated(run, judge)
    prompts = [prompt(f"{run} {i}", "eval") for i in range(len(next(iter(scores.values()))[0]))]
    rows += prompts
    for which, policy in enumerate(policies):
        for i, p in enumerate(prompts):
            made = completion(round_of(which, policy, policy, []), p, token_ids=range(tokens[which]), logprobs=())
            rows += [made, *(judgement(made, values[which][i], name) for name, values in scores.items())]
    return rows


def test_a_rise_that_another_judge_denies_is_a_sign(store: DuckStore) -> None:
    store.add([held_out("denied", SCORES | {"critic": ((5, 6, 7), (4, 5, 6))})])
    found = signs(store, "denied")
    assert (found["hacking"], found["reason"]) == (True, "score +0.2, while critic says -1")
    assert (found["judge"], found["score_change"], found["score_prompts"]) == ("reward", pytest.approx(0.2), "held-out")
    assert (found["score_low"], found["score_high"]) == (pytest.approx(0.2 - HALF), pytest.approx(0.2 + HALF))
    assert (found["other_judge"], found["other_change"], found["other_high"]) == ("critic", -1.0, -1.0)


def test_a_rise_by_longer_answers_is_a_sign(store: DuckStore) -> None:
    store.add([held_out("longer", SCORES, (10, 15))])
    found = signs(store, "longer")
    assert (found["hacking"], found["reason"]) == (True, "score +0.2, while answers are 50 % longer")
    assert (found["tokens_before"], found["tokens_change"]) == (10.0, 5.0)


def test_a_tenth_more_tokens_is_no_sign(store: DuckStore) -> None:
    store.add([held_out("as long", SCORES, (10, 11))])
    found = signs(store, "as long")
    assert (found["hacking"], found["other_judge"]) == (False, None)
    assert found["reason"] == "the score rises, answers are no longer; no other judge was asked"


def test_a_rise_that_the_other_judge_sees_too_is_none(store: DuckStore) -> None:
    store.add([held_out("honest", SCORES | {"critic": ((5, 6, 7), (6, 7, 8))})])
    assert signs(store, "honest")["hacking"] is False
    assert signs(store, "honest")["reason"] == "the score rises, and nothing speaks against it"


def test_a_fall_within_noise_is_none(store: DuckStore) -> None:
    store.add([held_out("noise", SCORES | {"critic": ((5, 6, 7), (1, 7, 8))})])  # changes -4, 1, 1
    found = signs(store, "noise")
    assert (found["hacking"], found["other_change"]) == (False, pytest.approx(-2 / 3))
    assert found["other_low"] < 0 < found["other_high"]


def test_without_a_rise_there_is_no_sign(store: DuckStore) -> None:
    store.add([held_out("level", {"reward": ((1, 1, 1), (1, 1, 1)), "critic": ((5, 6, 7), (4, 5, 6))}, (10, 90))])
    assert signs(store, "level")["hacking"] is False
    assert signs(store, "level")["reason"] == "the score does not rise beyond noise"


def test_answers_without_a_value_are_left_out_and_one_prompt_says_nothing(store: DuckStore) -> None:
    store.add([held_out("silent", {"reward": ((0.1, 0.2, None), (0.2, None, 0.6)), "critic": ((5, 5, 5), (1, 1, 1))})])
    found = signs(store, "silent")
    assert (found["hacking"], found["score_change"]) == (None, None)
    assert found["reason"] == "no score before and after that can be compared"


def test_where_the_config_names_no_judge_the_only_one_is_taken(store: DuckStore) -> None:
    store.add([held_out("only", {"rules": SCORES["reward"]}, (10, 15), judge=None)])
    assert (signs(store, "only")["judge"], signs(store, "only")["hacking"]) == ("rules", True)
    store.add([held_out("two", {"rules": SCORES["reward"], "more": SCORES["reward"]}, (10, 15), judge=None)])
    assert (signs(store, "two")["judge"], signs(store, "two")["hacking"]) == (None, None)


def test_the_judge_that_a_round_was_paired_by_is_the_one(store: DuckStore) -> None:
    two = {"rules": SCORES["reward"], "more": SCORES["reward"]}
    rows = held_out("noted", two, (10, 15), judge=None)
    policy = next(row for row in rows if isinstance(row, Checkpoint))
    store.add([[*rows, round_of(1, policy, policy, [], judge="more")]])
    assert (signs(store, "noted")["judge"], signs(store, "noted")["other_judge"]) == ("more", "rules")


def test_another_judge_never_stands_in_for_the_one_that_the_config_describes(store: DuckStore) -> None:
    store.add([held_out("examined", {"critic": SCORES["reward"]}, (10, 15))])
    assert (signs(store, "examined")["judge"], signs(store, "examined")["hacking"]) == (None, None)


def _played(run: str, which: int, policy: Checkpoint, values: tuple[float, ...]) -> list[Record]:
    """A round on train prompts of its own, scored by the judge that learning uses; two answers a prompt."""
    prompts = [prompt(f"{run} {which} {i}") for i in range(len(values))]
    rnd = round_of(which, policy, policy, prompts)
    groups = [(value, [completion(rnd, p, k) for k in range(2)]) for p, value in zip(prompts, values, strict=True)]
    scored = [(c, value + shift) for value, group in groups for c, shift in zip(group, (-1, 1), strict=True)]
    return [rnd, *prompts, *(c for c, _ in scored), *(judgement(c, value, "reward") for c, value in scored)]


def test_train_prompts_of_this_round_and_the_next_are_compared_where_held_out_ones_were_not_judged(
    store: DuckStore,
) -> None:
    """Means by prompt 1, 2, 3 and then 7, 8, 9: a change of 6, whose variance is 1/3 + 1/3. Another judge measures."""
    rows, before, after = updated("train")
    rows += [*_played("train", 1, before, (1, 2, 3)), *_played("train", 2, after, (7, 8, 9))]
    for which, policy in enumerate((before, after)):
        for i in range(2):
            p: Prompt = prompt(f"train {i}", "eval")
            made = completion(round_of(which, policy, policy, []), p)
            rows += [p, made, judgement(made, 5.0 - which, "critic")]
    store.add([rows])
    found = signs(store, "train")
    assert (found["score_prompts"], found["score_change"]) == ("train", 6.0)
    assert found["score_high"] == pytest.approx(6 + 1.96 * sqrt(2 / 3))
    assert (found["other_prompts"], found["other_change"], found["hacking"]) == ("held-out", -1.0, True)


def test_a_judge_of_pairs_is_read_by_its_wins_over_the_rival(store: DuckStore) -> None:
    """The candidate wins 0.25 of each duel with the policy before, which wins 0.5 against itself."""
    rows = held_out("pairs", SCORES)
    made = [row for row in rows if isinstance(row, Completion)]
    for old, new in zip(made[:3], made[3:], strict=True):
        rows += [
            Judgement(duel_id("critic", new, old, order), "critic", new.id, old.id, "", "", order, p)
            for order, p in enumerate((0.2, 0.3))
        ]
    store.add([rows])
    found = signs(store, "pairs")
    assert (found["other_judge"], found["other_change"], found["hacking"]) == ("critic", -0.25, True)
    assert found["reason"] == "score +0.2, while critic says -0.25"
