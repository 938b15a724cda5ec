"""A baseline that a reward model has to beat: Bradley-Terry on a bag of words. Pure numpy."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sparring.judges.measure import Array, sigma
from sparring.judges.weak import words
from sparring.loop.errors import DataError
from sparring.loop.labelled_pairs import Preference, folds

Ints = npt.NDArray[np.int64]

PENALTIES = (300.0, 100.0, 30.0, 10.0, 3.0)  # each fit starts from the one before
MIN_PAIRS = 2  # a word that is in one pair only can only memorise that pair


@dataclass(frozen=True)
class BagOfWords:
    """Bradley-Terry on words: P(a beats b) = sigma(w . (x_a - x_b)), x = log(1 + count) of each word."""

    vocabulary: Mapping[str, int]
    weights: Array  # one per word
    l2: float

    def predict(self, preferences: Sequence[Preference]) -> Array:
        """P(a beats b) of each pair; exactly 1/2 if the answers differ in no known word. [pairs]"""
        return sigma(_differences(preferences, self.vocabulary).times(self.weights))


def fit_words(train: Sequence[Preference], l2: float | None = None, *, seed: int = 0) -> BagOfWords:
    """Minimise sum of weight * cross-entropy to p_a, + l2 / 2 |w|^2. No intercept, so that a and b can change places.

    Without `l2`, five-fold cross-validation by prompt picks the penalty of PENALTIES with the best cross-entropy.
    Raises DataError when there are no words to learn from.
    """
    vocabulary = _vocabulary(train)
    if not vocabulary:
        raise DataError(f"no word occurs in {MIN_PAIRS} or more of the {len(train)} pairs; give more labelled pairs")
    data = _Data(_differences(train, vocabulary), np.array([p.p_a for p in train]), np.array([p.weight for p in train]))
    if l2 is None:
        l2 = _best_penalty(data, np.array(folds(train, 5, seed)))
    return BagOfWords(vocabulary, _newton(data, l2, np.zeros(len(vocabulary))), l2)


def _best_penalty(data: "_Data", fold: Ints) -> float:
    loss = dict.fromkeys(PENALTIES, 0.0)
    for held_out in np.unique(fold):
        inside, outside = data.where(fold != held_out), data.where(fold == held_out)
        w = np.zeros(data.x.shape[1])
        for l2 in PENALTIES:
            w = _newton(inside, l2, w)
            loss[l2] += _loss(outside, 0.0, w)
    return min(loss, key=loss.__getitem__)


def _vocabulary(preferences: Sequence[Preference]) -> dict[str, int]:
    seen = Counter(word for p in preferences for word in {*words(p.a), *words(p.b)})
    return {word: i for i, word in enumerate(sorted(w for w, n in seen.items() if n >= MIN_PAIRS))}


@dataclass(frozen=True)
class _Sparse:
    """A matrix [rows, columns] by its non-zero values, each with its row and column."""

    row: Ints
    column: Ints
    value: Array
    shape: tuple[int, int]

    def times(self, v: Array) -> Array:
        return np.bincount(self.row, self.value * v[self.column], self.shape[0]).astype(np.float64)  # empty: counts

    def where(self, mask: npt.NDArray[np.bool_]) -> "_Sparse":
        kept = mask[self.row]
        row = (np.cumsum(mask) - 1)[self.row[kept]]
        return _Sparse(row, self.column[kept], self.value[kept], (int(mask.sum()), self.shape[1]))

    def transposed_times(self, v: Array) -> Array:
        return np.bincount(self.column, self.value * v[self.row], self.shape[1]).astype(np.float64)


def _differences(preferences: Sequence[Preference], vocabulary: Mapping[str, int]) -> _Sparse:
    entries = []
    for i, p in enumerate(preferences):
        a, b = Counter(words(p.a)), Counter(words(p.b))
        for word in sorted(a.keys() | b.keys()):
            if word in vocabulary and a[word] != b[word]:
                entries.append((i, vocabulary[word], np.log1p(a[word]) - np.log1p(b[word])))
    row, column, value = zip(*entries, strict=True) if entries else ((), (), ())
    shape = (len(preferences), len(vocabulary))
    return _Sparse(np.array(row, np.int64), np.array(column, np.int64), np.array(value, np.float64), shape)


@dataclass(frozen=True)
class _Data:
    x: _Sparse
    labels: Array
    weights: Array

    def where(self, mask: npt.NDArray[np.bool_]) -> "_Data":
        return _Data(self.x.where(mask), self.labels[mask], self.weights[mask])


def _loss(data: _Data, l2: float, w: Array) -> float:
    z = data.x.times(w)
    return float(data.weights @ (np.logaddexp(0, z) - data.labels * z) + l2 / 2 * w @ w)


def _newton(data: _Data, l2: float, w: Array) -> Array:
    """Newton's method from `w`, with steps by conjugate gradients. The loss is strictly convex: it has one minimum."""
    for _ in range(50):
        p = sigma(data.x.times(w))
        gradient = data.x.transposed_times(data.weights * (p - data.labels)) + l2 * w
        if np.abs(gradient).max() < 1e-6:
            break
        direction = _solve(data.x, data.weights * p * (1 - p), l2, -gradient)
        size, before, slope = 1.0, _loss(data, l2, w), float(gradient @ direction)
        while _loss(data, l2, w + size * direction) > before + 1e-4 * size * slope and size > 1e-6:
            size /= 2
        w = w + size * direction
    return w


def _solve(x: _Sparse, curvature: Array, l2: float, right: Array) -> Array:
    """v with (X^T diag(curvature) X + l2) v = right, by conjugate gradients."""
    v, residual = np.zeros_like(right), right.copy()
    direction, size = residual.copy(), float(residual @ residual)
    for _ in range(200):
        if size <= 1e-6 * float(right @ right):  # exact enough: the next Newton step corrects the rest
            break
        image = x.transposed_times(curvature * x.times(direction)) + l2 * direction
        step = size / float(direction @ image)
        v, residual = v + step * direction, residual - step * image
        size, before = float(residual @ residual), size
        direction = residual + size / before * direction
    return v
