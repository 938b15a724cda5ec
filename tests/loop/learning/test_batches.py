"""The layout of a batch by hand, and log-probs that depend on prompt and completion alone (pitfalls 3, 8 to 10)."""

from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparring.loop.errors import DataError
from sparring.loop.learning.batches import Row, collate, micro_batches, plan
from sparring.loop.learning.checkpoint import load_model
from sparring.loop.learning.logprobs import completion_logprobs, token_logprobs

END = 257  # <|im_end|> of the tiny model, which also pads
ROWS = [
    Row([5, 6, 7], ([10, 11, END], [20, END])),
    Row([8, 9], ([30, 31, 32, 33, 34], [40])),
    Row([1], ([END], [END, END])),  # an end token is a token like any other
    Row(list(range(50, 90)), (list(range(100, 125)), list(range(200, 203)), list(range(130, 180)))),
    Row([3] * 17, ([END, 3, END],)),
]


@pytest.fixture(scope="module")
def model(tiny: Path) -> Any:
    return load_model(tiny, torch.device("cpu"))


def logprobs(model: Any, rows: list[Row]) -> list[float]:
    with torch.no_grad():
        return completion_logprobs(model, collate(rows)).tolist()


def by_hand(model: Any, prompt: list[int], completion: list[int]) -> float:
    """Plain logits of prompt + completion, read off one position before each completion token."""
    ids = prompt + completion
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    total = 0.0
    for at in range(len(prompt), len(ids)):
        total += (logits[at - 1, ids[at]] - torch.logsumexp(logits[at - 1], 0)).item()
    return total


def test_layout_by_hand() -> None:
    batch = collate(ROWS[:2])
    #            [ prompt | completion 0      | completion 1 ]
    assert batch.input_ids.tolist() == [
        [5, 6, 7, 10, 11, END, 20, END],
        [8, 9, 30, 31, 32, 33, 34, 40],
    ]
    assert batch.position_ids.tolist() == [
        [0, 1, 2, 3, 4, 5, 3, 4],
        [0, 1, 2, 3, 4, 5, 6, 2],
    ]
    # Row 0 starts at flat position 0, row 1 at 8. First tokens are predicted at the ends of the prompts, 2 and 9.
    assert batch.source.tolist() == [2, 3, 4, 2, 6, 9, 10, 11, 12, 13, 9]
    assert batch.target.tolist() == [10, 11, END, 20, END, 30, 31, 32, 33, 34, 40]
    assert batch.completion.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 3]
    assert batch.lengths.tolist() == [3, 2, 5, 1]


def test_attention_by_hand() -> None:
    mask = collate([Row([5, 6], ([10], [20, 21])), Row([7], ([30],))]).attention
    assert mask is not None and mask.shape == (2, 1, 5, 5)
    assert mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],  # the second completion does not see the first
        [1, 1, 0, 1, 1],
    ]
    assert mask[1, 0, :2].int().tolist() == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0]]  # nothing real looks at padding
    assert mask.any(-1).all()  # a query with nothing to look at would be NaN


def test_single_completions_need_no_mask() -> None:
    assert collate([Row([5], ([6, 7],)), Row([5, 6, 7], ([8],))]).attention is None


def test_tree_rows_equal_plain_logits(model: Any) -> None:
    expected = [by_hand(model, list(row.prompt), list(c)) for row in ROWS for c in row.completions]
    assert logprobs(model, ROWS) == pytest.approx(expected, abs=1e-4)
    assert len({round(value, 2) for value in expected}) == len(expected)  # no two of them agree by being trivial


def test_tree_rows_equal_single_rows(model: Any) -> None:
    single = [Row(row.prompt, (c,)) for row in ROWS for c in row.completions]
    assert logprobs(model, ROWS) == pytest.approx(logprobs(model, single), abs=1e-4)


def test_company_and_padding_change_nothing(model: Any) -> None:
    alone = list(chain.from_iterable(logprobs(model, [row]) for row in ROWS))
    assert logprobs(model, ROWS) == pytest.approx(alone, abs=1e-4)
    assert logprobs(model, ROWS[::-1])[-2:] == pytest.approx(alone[:2], abs=1e-4)


def test_the_other_completion_changes_nothing(model: Any) -> None:
    chosen = logprobs(model, [Row([5, 6, 7], ([10, 11], [20]))])[0]
    for rejected in ([99] * 40, [10, 11], [END]):
        first, last = (logprobs(model, [Row([5, 6, 7], c)]) for c in (([10, 11], rejected), (rejected, [10, 11])))
        assert [first[0], last[1]] == pytest.approx([chosen, chosen], abs=1e-4)


def test_the_end_token_counts_once(model: Any) -> None:
    stopped, cut = Row([5, 6], ([10, 11, END],)), Row([5, 6], ([10, 11],))
    assert collate([stopped, cut]).lengths.tolist() == [3, 2]
    with torch.no_grad():
        tokens = token_logprobs(model, collate([stopped])).tolist()
    assert len(tokens) == 3
    ended, not_ended = logprobs(model, [stopped])[0], logprobs(model, [cut])[0]
    assert ended == pytest.approx(not_ended + tokens[2], abs=1e-4)
    assert tokens[2] < -0.1


@pytest.mark.parametrize(
    ("prompt", "completions", "sizes"),
    [([], ([1],), "[0, 1]"), ([1, 2], ([3], []), "[2, 1, 0]")],
)
def test_nothing_to_learn_from_is_refused(prompt: list[int], completions: tuple[list[int], ...], sizes: str) -> None:
    with pytest.raises(DataError) as refused:
        Row(prompt, completions)
    assert f"without tokens (tokens: {sizes})" in str(refused.value)


LENGTHS = st.lists(st.integers(2, 300), min_size=1, max_size=80)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 9), st.integers(1, 1500), st.integers(0, 2**31 - 1), st.integers(1, 3))
def test_plan(lengths: list[int], batch_size: int, token_budget: int, seed: int, epochs: int) -> None:
    options = {"batch_size": batch_size, "token_budget": token_budget, "seed": seed, "epochs": epochs}
    made = plan(lengths, **options)
    assert made == plan(tuple(lengths), **options)
    size = -(-len(lengths) // batch_size)
    assert len(made) == size * epochs
    rows = [[i for micro in batch for i in micro] for batch in made]
    for epoch in range(epochs):
        batches = rows[epoch * size : (epoch + 1) * size]
        assert sorted(chain.from_iterable(batches)) == list(range(len(lengths)))
        # All are full but one, which takes what is left.
        assert sorted(map(len, batches))[1:] == [batch_size] * (size - 1)
    assert made[:size] == plan(lengths, **options | {"epochs": 1})  # more epochs leave the first as it was


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 1500))
def test_micro_batches(lengths: list[int], token_budget: int) -> None:
    made = micro_batches(range(len(lengths)), lengths, token_budget)
    assert sorted(chain.from_iterable(made)) == list(range(len(lengths)))
    for micro in made:
        assert len(micro) == 1 or len(micro) * max(lengths[i] for i in micro) <= token_budget
    # Greedy: the first row of the next would have burst the one before.
    for micro, after in pairwise(made):
        assert (len(micro) + 1) * lengths[after[0]] > token_budget


def test_micro_batches_by_hand() -> None:
    assert micro_batches([0, 1, 2, 3], [10, 2, 3, 4], 12) == [[1, 2, 3], [0]]
    assert micro_batches([3, 0], [10, 2, 3, 4], 1) == [[3], [0]]


def test_seeds_and_epochs_order_differently() -> None:
    def order(seed: int, epochs: int = 1) -> list[list[list[int]]]:
        return plan([7] * 64, batch_size=8, token_budget=100, seed=seed, epochs=epochs)

    assert len({str(order(seed)) for seed in range(20)}) == 20
    first, second = order(0, 2)[:8], order(0, 2)[8:]
    assert first != second


def test_like_lengths_share_a_batch() -> None:
    lengths = [1 + i % 16 for i in range(128)]  # one window: 16 batches of 8, eight rows of each length
    for batch in plan(lengths, batch_size=8, token_budget=10_000, seed=3):
        assert len({lengths[i] for micro in batch for i in micro}) == 1
