"""Pairs as token ids: what is dropped and counted, which answer comes first, in which order they are learned."""

from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest

from sparring.judges.reward.encoding import Encoding
from sparring.judges.reward.options import RewardTraining
from sparring.judges.reward.rows import Pairs, encode_groups, encode_pairs, pair_plan, refuse_unlearnable, split_rows
from sparring.loop.errors import DataError
from sparring.loop.labelled_pairs import Preference
from tests.helpers.reward_pairs import pairs, prompt

Q = prompt("q")


def make(a: str, b: str, p_a: float, **fields: float) -> Preference:
    return Preference.make(Q, a, b, p_a, **fields)


def test_the_likelier_winner_comes_first(tiny: Path) -> None:
    encoding = Encoding(tiny)
    given = [make("short", "a longer one", 0.25), make("yes", "no", 0.9), make("even", "odds", 0.5)]
    rows = encode_pairs(encoding, given).rows
    assert [row.p for row in rows] == [0.75, 0.9, 0.5]
    texts = [("a longer one", "short"), ("yes", "no"), ("even", "odds")]
    for row, (chosen, rejected) in zip(rows, texts, strict=True):
        assert (row.chosen, row.rejected) == (encoding.encode(Q, chosen), encoding.encode(Q, rejected))
    assert [row.longer for row in rows] == [7, 1, 0]
    assert rows[0].length == 2 * len(rows[0].chosen)


def test_what_is_dropped_is_counted(tiny: Path) -> None:
    given = [
        make("good", "bad", 1.0),
        make("good", "bad", 1.0, weight=2.0),  # again
        make("bad", "good", 0.0),  # again, the other way round
        make("good", "bad", 0.0),  # somebody disagrees: no repetition
        make("same", "same", 1.0),
        make("tie", "eit", 0.5),
        make("x" * 60, "y", 1.0),
        make("y", "x" * 60, 1.0),
    ]
    found = encode_pairs(Encoding(tiny, max_length=60), given)
    assert found.dropped == {"too_long": 2, "identical": 1, "duplicate": 2}
    assert [(row.preference.a, row.p) for row in found.rows] == [("good", 1.0), ("good", 1.0), ("tie", 0.5)]
    assert [row.chosen == found.rows[0].chosen for row in found.rows] == [True, False, False]
    assert (len(found), found.ties) == (3, 1)
    assert len(found) + sum(found.dropped.values()) == len(given)


def test_answers_that_come_to_the_same_tokens_are_identical(tiny: Path) -> None:
    # The encoding pulls the mark apart, which makes the two texts one.
    found = encode_pairs(Encoding(tiny), [make("< |im_end|>", "<|im_end|>", 1.0)])
    assert found.dropped["identical"] == 1


def test_pairs_without_a_winner_are_refused(tiny: Path) -> None:
    ties = encode_pairs(Encoding(tiny), [make("a", "b", 0.5), make("c", "c", 1.0)])
    with pytest.raises(DataError, match="1 pairs are left, 1 of them ties"):
        refuse_unlearnable(ties)
    refuse_unlearnable(encode_pairs(Encoding(tiny), [make("a", "b", 0.5), make("a", "b", 0.6)]))


def test_every_epoch_has_every_pair_and_every_member_its_order(tiny: Path) -> None:
    rows = encode_pairs(Encoding(tiny), pairs(50)).rows
    plans = [pair_plan(rows, RewardTraining(batch_size=8, epochs=2, seed=3), 200, m) for m in (0, 0, 1)]
    assert plans[0] == plans[1] != plans[2]
    for plan in plans:
        batches = [list(chain.from_iterable(batch)) for batch in plan]
        assert [len(batches), max(map(len, batches))] == [14, 8]
        for epoch in (batches[:7], batches[7:]):
            assert sorted(chain.from_iterable(epoch)) == list(range(50))
        for micro in chain.from_iterable(plan):
            assert len(micro) == 1 or len(micro) * max(rows[i].length for i in micro) <= 200


def test_stages_share_no_prompt(tiny: Path) -> None:
    given = pairs(60)
    again = [replace(p, id=f"{p.id}/2", a=p.a + "!", b=p.b + "?") for p in given]
    rows = encode_pairs(Encoding(tiny), given + again).rows
    first, rest = split_rows(rows, 0.5, seed=1)
    prompts = [{row.preference.prompt for row in part} for part in (first, rest)]
    assert not prompts[0] & prompts[1]
    assert (len(first) + len(rest), len(first) % 2, len(rest) % 2) == (120, 0, 0)
    assert 30 < len(first) < 90
    assert split_rows(rows, 0.5, seed=2)[0] != first


def test_groups_are_the_distinct_answers_of_a_prompt(tiny: Path) -> None:
    encoding = Encoding(tiny, max_length=60)
    other = Preference.make(prompt("other"), "alone", "x" * 60, 1.0)
    found = encode_groups(encoding, [make("a", "b", 1.0), other, make("b", "c", 0.0), make("a", "c", 0.5)])
    assert found == [tuple(encoding.encode(Q, text) for text in "abc")]


def test_no_pairs() -> None:
    with pytest.raises(DataError, match="nothing to learn from"):
        refuse_unlearnable(Pairs((), {"too_long": 3}))
