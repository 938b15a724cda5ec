"""The bag of words: against autograd at the optimum, by hand on one word, and on the shared pairs."""

from collections import Counter
from math import log

import numpy as np
import pytest
import torch

from benchmarks.bag_of_words import BagOfWords, fit_words
from sparring.judges.bench import longer_by
from sparring.judges.measure import accuracy
from sparring.loop.errors import DataError
from sparring.loop.labelled_pairs import Preference, read_preferences, split_by_prompt
from tests.helpers.paths import DATA

PAIRS = DATA / "prefs_hh_harmless_human.parquet"


def pair(a: str, b: str, p_a: float, prompt: str = "go", weight: float = 1.0) -> Preference:
    return Preference.make([{"role": "user", "content": prompt}], a, b, p_a, weight=weight)


def random_pairs(n: int) -> list[Preference]:
    """Answers of eight words; those with more of w0 are better two times in three."""
    random = np.random.default_rng(0)
    found = []
    for k in range(n):
        a, b = (" ".join(f"w{i}" for i in random.integers(0, 12, 8)) for _ in "ab")
        more = np.sign(a.split().count("w0") - b.split().count("w0"))
        p_a = float(random.choice([1.0, 0.0, 0.6], p=[1 / 3 + more / 6, 1 / 3 - more / 6, 1 / 3]))
        found.append(pair(a, b, p_a, f"prompt {k % 40}", float(random.integers(1, 4))))
    return found


def test_one_word_by_hand() -> None:
    # "good" once against not at all, right 3 times in 4: the w of sigma(w log 2) = 3/4 is log 3 / log 2, less a penalty
    # that pulls it by l2 w = 4 log 2 (3/4 - sigma(w log 2)).
    train = [pair("good", "x1", 1.0), pair("x2", "good", 0.0), pair("good", "x3", 1.0), pair("good", "x4", 0.0)]
    fitted = fit_words(train, 1e-9)
    assert list(fitted.vocabulary) == ["good"]
    assert fitted.weights[0] == pytest.approx(log(3) / log(2), abs=1e-5)
    assert fitted.predict([pair("good", "no", 1.0), pair("no", "good", 1.0), pair("no", "yes", 1.0)]) == pytest.approx(
        [0.75, 0.25, 0.5]
    )
    w = fit_words(train, 2.0).weights[0]
    assert 2.0 * w == pytest.approx(4 * log(2) * (0.75 - 1 / (1 + np.exp(-w * log(2)))), abs=1e-6)


@pytest.mark.parametrize("l2", [0.1, 3.0])
def test_the_fit_is_the_optimum(l2: float) -> None:
    """The gradient of the loss, written out densely for autograd, is nought there; the loss is strictly convex."""
    train = random_pairs(150)
    fitted = fit_words(train, l2)
    x = torch.zeros(len(train), len(fitted.vocabulary), dtype=torch.float64)
    for i, p in enumerate(train):
        for text, sign in ((p.a, 1), (p.b, -1)):
            for word, n in Counter(text.split()).items():
                x[i, fitted.vocabulary[word]] += sign * log(1 + n)
    w = torch.tensor(fitted.weights, requires_grad=True)
    label, weight = torch.tensor([p.p_a for p in train]), torch.tensor([p.weight for p in train])
    fit = torch.nn.functional.binary_cross_entropy_with_logits(x @ w, label.double(), weight.double(), reduction="sum")
    (fit + l2 / 2 * w @ w).backward()  # type: ignore[no-untyped-call]
    assert w.grad is not None and w.grad.abs().max() < 1e-5
    assert fitted.weights[fitted.vocabulary["w0"]] == fitted.weights.max()


def test_swapping_the_answers_swaps_the_probability_and_not_the_fit() -> None:
    train = random_pairs(120)
    swapped = [pair(p.b, p.a, 1 - p.p_a, p.messages[0]["content"], p.weight) for p in train]
    one, other = fit_words(train, 1.0), fit_words(swapped, 1.0)
    np.testing.assert_allclose(one.weights, other.weights, atol=1e-6)
    np.testing.assert_allclose(one.predict(train) + one.predict(swapped), 1)


def test_the_penalty_is_chosen_by_held_out_pairs() -> None:
    random = np.random.default_rng(1)
    # One word in a hundred decides; with labels of noise instead, the strongest penalty is the best.
    texts = [" ".join(f"w{i}" for i in random.integers(0, 100, 10)) for _ in range(400)]
    rows = list(zip(texts[::2], texts[1::2], strict=True))
    told = [
        pair(f"{a} good", b, 1.0, f"{k}") if k % 2 else pair(a, f"{b} good", 0.0, f"{k}")
        for k, (a, b) in enumerate(rows)
    ]
    noise = [pair(a, b, float(random.integers(0, 2)), f"{k}") for k, (a, b) in enumerate(rows)]
    assert fit_words(told).l2 < fit_words(noise).l2


def test_nothing_to_learn_from_is_an_error() -> None:
    with pytest.raises(DataError, match="2 or more of the 1 pairs"):
        fit_words([pair("a b", "c d", 1.0)], 1.0)


@pytest.mark.skipif(not PAIRS.exists(), reason=f"no labelled pairs in {DATA}")
def test_words_tell_something_of_harm_and_length_does_not() -> None:
    train, held_out = split_by_prompt(read_preferences(str(PAIRS)), 0.25, 0)
    labels, prompts = [p.p_a for p in held_out], [p.prompt for p in held_out]
    fitted: BagOfWords = fit_words(train, 30.0)
    found = accuracy(fitted.predict(held_out) - 0.5, labels, prompts).share
    assert found is not None and found.low > 0.5
    by_length = accuracy(longer_by(held_out), labels, prompts).share
    assert by_length is not None and by_length.value < 0.5
