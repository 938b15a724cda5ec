"""Scores of pairs by models that were not trained on the pair's prompt: cross-validation, out-of-fold strength."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sparring.judges.reward.features import Progress, silent
from sparring.judges.reward.model import RewardModel
from sparring.judges.reward.options import RewardTraining
from sparring.judges.reward.report import scores
from sparring.judges.reward.rows import encoding_of
from sparring.judges.reward.train import create, forget, train
from sparring.loop.labelled_pairs import Preference, folds

Array = npt.NDArray[np.float64]


def out_of_fold(
    base: Path,
    preferences: Sequence[Preference],
    options: RewardTraining,
    k: int,
    work: Path,
    progress: Progress = silent,
    *,
    cache: Path | None = None,
) -> Array:
    """r(a) - r(b), [members, pairs]: each pair by a model trained on the folds without its prompt; NaN: too long.

    `work` is a folder for the state of the training in progress. A killed training resumes in its fold.
    """
    fold = folds(preferences, k, options.seed)
    deltas = np.full((options.members, len(preferences)), np.nan)
    for i in range(k):
        model, state = create(base, options), work / f"fold-{i}.safetensors"
        others = [p for p, f in zip(preferences, fold, strict=True) if f != i]
        train(model, others, options, state, progress, cache=cache)
        held_out = [n for n, f in enumerate(fold) if f == i]
        deltas[:, held_out] = differences(model, [preferences[n] for n in held_out], cache)
        forget(state)
    return deltas


def differences(model: RewardModel, preferences: Sequence[Preference], cache: Path | None = None) -> Array:
    """r(a) - r(b), [members, pairs]; NaN if one of the answers is too long."""
    return np.asarray(np.subtract(*np.moveaxis(answer_scores(model, preferences, cache), -1, 0)))


def answer_scores(model: RewardModel, preferences: Sequence[Preference], cache: Path | None = None) -> Array:
    """Raw scores of both answers, [members, pairs, 2]; NaN for both if one is too long."""
    encoding = encoding_of(model)
    rows = [(encoding.encode(p.messages, p.a), encoding.encode(p.messages, p.b)) for p in preferences]
    fits = [i for i, (a, b) in enumerate(rows) if a is not None and b is not None]
    table = np.full((model.members, len(preferences), 2), np.nan)
    if fits:
        values = scores(model, [x for i in fits for x in rows[i] if x is not None], cache)
        table[:, fits] = np.moveaxis(values.reshape(len(fits), 2, -1), -1, 0)
    return table
