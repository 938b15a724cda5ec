"""The tree of a search: what a step is worth, where the search goes on, where answers are cut."""

from collections.abc import Sequence
from dataclasses import replace
from math import exp, sqrt

import pytest

from sparring.loop.sampling.tree import Leaf, Step, after, every, expand, puct, select
from sparring.loop.types import Completion
from tests.helpers.experience import completion


def answer(text: str) -> Completion:
    """A token a letter, at -0.5 nats each."""
    return replace(completion("p", 0, text), token_ids=[ord(letter) for letter in text])


def leaves(*answers: tuple[str, float | None]) -> list[Leaf]:
    return [Leaf(answer(text), value) for text, value in answers]


def child(text: str, start: int, end: int, *values: float | None) -> Step:
    return Step((0,), answer(text), start, end, leaves=leaves(*((text, value) for value in values)))


def family() -> tuple[Step, Step, Step]:
    """Two answers below a step of two tokens, worth 1 and 0, and one of 0.5 below a step of one token."""
    a, b = child("aaXX", 0, 2, 1.0, 0.0), child("bXXX", 0, 1, 0.5)
    return Step(children=[a, b]), a, b


def test_a_step_is_worth_the_mean_of_the_answers_below_it() -> None:
    root, a, _ = family()
    assert (root.visits, root.value) == (3, 0.5)
    a.children = [child("aaXXX", 2, 4, 0.25)]
    assert [a.visits, a.value] == [3, pytest.approx(1.25 / 3)]
    assert [root.visits, root.value] == [4, pytest.approx(1.75 / 4)]


def test_puct_worked_by_hand() -> None:
    """Q + w p sqrt(N_parent) / (1 + N), p = exp(sum log P / length^1.25)."""
    root, a, b = family()
    assert a.prior == pytest.approx(0.656752, abs=1e-6)  # exp(-1 / 2^1.25), 2^1.25 = 2.378414
    assert b.prior == pytest.approx(0.606531, abs=1e-6)  # exp(-0.5)
    assert puct(root, a, 1.0) == pytest.approx(0.5 + 0.656752 * 1.732051 / 3, abs=1e-6)
    assert puct(root, b, 1.0) == pytest.approx(0.5 + 0.606531 * 1.732051 / 2, abs=1e-6)
    assert puct(root, b, 3.0) == pytest.approx(0.5 + 3 * 0.606531 * 1.732051 / 2, abs=1e-5)
    assert select(root, 1.0) is b  # less visited
    a.leaves = leaves(("aaXX", 1.0), ("aaXX", 1.0))
    assert select(root, 0.1) is a  # 1 + 0.038 against 0.5 + 0.053
    assert select(root, 10.0) is b  # 1 + 3.79 against 0.5 + 5.25


def test_only_a_steps_own_tokens_make_its_prior() -> None:
    assert child("aaXXX", 2, 4).prior == pytest.approx(exp(-1 / 2**1.25))


def test_no_value_is_no_number() -> None:
    """What has no value counts as visited, and is thought of as its parent is."""
    root, a, b = family()
    b.leaves = leaves(("b", None))
    assert (b.value, b.visits, root.value, root.visits) == (None, 1, 0.5, 3)
    assert puct(root, b, 1.0) == pytest.approx(0.5 + b.prior * sqrt(3) / 2)
    a.leaves = leaves(("b", None))
    assert root.value is None
    assert puct(root, a, 1.0) == pytest.approx(a.prior * sqrt(2) / 2)


def test_the_search_goes_down_to_the_best_step_that_is_open() -> None:
    root, a, b = family()
    a.leaves, a.children = [], [child("aaXX", 2, 4, 1.0), child("aaYYY", 2, 3, 0.9)]
    assert select(root, 0.0) is a.children[1]  # its sibling is better, but has ended
    a.children[1].end = 5
    assert a.children[1].ended and not a.open
    assert select(root, 0.0) is b
    b.end = 4
    assert select(root, 0.0) is None
    assert select(Step(), 1.0) is not None  # before anything is sampled


def test_answers_are_cut_once_a_step() -> None:
    step = Step((1,), answer("aa"), 0, 2)
    step.leaves = leaves(("aaXY1", 0.1), ("aaXZ", 0.2), ("aaXY2", 0.3), ("aaX", 0.4))
    assert expand(step, every(2)) == 1
    assert step.leaves == []
    found = [(c.path, c.start, c.end, c.ended, [leaf.value for leaf in c.leaves]) for c in step.children]
    assert found == [
        ((1, 0), 2, 4, False, [0.1, 0.3]),  # XY twice
        ((1, 1), 2, 4, True, [0.2]),
        ((1, 2), 2, 3, True, [0.4]),
    ]
    assert step.value == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("tokens", "start", "end"),
    [
        (["a", "\n", "\n", "b"], 0, 3),
        (["a", "\n\n", "b"], 0, 2),
        (["a", "\n", "b", "\n\nc", "d"], 0, 4),  # the token that completes it, whatever else it holds
        (["a", "\n", "b"], 0, 3),  # none: up to the answer's end
        (["a", "\n\n"], 0, 2),
        (["a", "\n\n", "b", "c\n", "\n", "d"], 2, 5),
        (["a", "\n\n", "\n\n", "b", "\n\n", "c"], 2, 5),  # a step does not begin with its end
        (["\n\n", "\n\n"], 0, 2),
        (["a\n\n", "b"], 0, 1),
    ],
)
def test_a_text_ends_a_step_with_the_token_that_completes_it(tokens: list[str], start: int, end: int) -> None:
    def decode(ids: Sequence[int]) -> str:
        return "".join(tokens[i] for i in ids)

    assert after("\n\n", decode)(range(len(tokens)), start) == end


def test_a_number_of_tokens_ends_a_step() -> None:
    assert [every(3)(range(7), start) for start in (0, 3, 6)] == [3, 6, 7]
