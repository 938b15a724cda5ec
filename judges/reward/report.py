"""Measures of a reward model on labelled pairs that it has not seen."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sparring.judges.measure import accuracy, calibration_error, length_controlled
from sparring.judges.reward.encoding import Encoded
from sparring.judges.reward.features import Progress, features, row_key, silent
from sparring.judges.reward.model import RewardModel
from sparring.judges.reward.rows import Pairs, pairs_of
from sparring.loop.errors import DataError
from sparring.loop.hardware import autocast, fast_dtype
from sparring.loop.labelled_pairs import Preference

Array = npt.NDArray[np.float64]
Metric = dict[str, Any]


def scores(
    model: RewardModel,
    encoded: Sequence[Encoded],
    cache: Path | None = None,
    progress: Progress = silent,
    *,
    dtype: str | None = None,
    token_budget: int | None = None,
) -> Array:
    """Raw scores (N, M), each distinct row computed once. `cache` keeps features (see judges.reward.features)."""
    distinct = {row_key(row): row for row in encoded}
    number = {key: i for i, key in enumerate(distinct)}
    rows = list(distinct.values())
    if not rows:
        return np.zeros((0, model.members))
    with torch.no_grad():
        if model.adapters:
            computed = _adapted(model, rows, progress, dtype or fast_dtype(), token_budget)
        else:
            computed = model.score(features(model, rows, cache, progress, dtype=dtype, token_budget=token_budget))
    values: Array = computed.double().cpu().numpy()[[number[row_key(row)] for row in encoded]]
    return values


def evaluate(
    model: RewardModel,
    preferences: Sequence[Preference] | Pairs,
    cache: Path | None = None,
    progress: Progress = silent,
    **options: Any,
) -> dict[str, Metric]:
    """The measures of `measured` on the pairs that fit. Options are those of `scores`."""
    pairs = pairs_of(model, preferences)
    values = scores(model, _answers(pairs), cache, progress, **options)
    return measured(model, pairs, values[::2] - values[1::2])


def measured(model: RewardModel, pairs: Pairs, delta: Array) -> dict[str, Metric]:
    """Measures, each {value, low, high, n}, of the score differences (N, M) between likelier winner and other answer.

    accuracy            on the pairs with a winner, with its interval by prompt; accuracy_0, ... of several members
    length_controlled   mean of the accuracies on pairs whose better answer is longer, and on those where it is shorter
    longer_wins         accuracy of taking the longer answer
    calibration_error   expected, of the mean over members of sigma(difference), on all pairs, in ten bins
    ties, too_long, identical, duplicate   shares of all pairs; the last three were dropped

    A measure without pairs is absent. Members are put on one scale (of RewardModel.set_scale, or else of these
    differences) before their mean is taken.
    """
    p, longer = np.array([r.p for r in pairs.rows]), np.array([r.longer for r in pairs.rows])
    prompts = [r.preference.prompt for r in pairs.rows]
    whole = (delta / _spread(model, delta)).mean(1)
    estimates = {
        "accuracy": accuracy(whole, p, prompts).share,
        "length_controlled": length_controlled(whole, p, longer, prompts),
        "longer_wins": accuracy(longer, p, prompts).share,
    }
    if delta.shape[1] > 1:
        estimates |= {f"accuracy_{i}": accuracy(column, p, prompts).share for i, column in enumerate(delta.T)}
    report: dict[str, Metric] = {name: asdict(estimate) for name, estimate in estimates.items() if estimate is not None}
    if (calibration := calibration_error((1 / (1 + np.exp(-delta))).mean(1), p)) is not None:
        report["calibration_error"] = _alone(calibration, len(p))
    total = len(p) + sum(pairs.dropped.values())
    for name, count in {"ties": pairs.ties, **pairs.dropped}.items():
        report[name] = _alone(count / total if total else 0.0, total)
    return report


def scale(
    model: RewardModel, preferences: Sequence[Preference] | Pairs, cache: Path | None = None, **options: Any
) -> tuple[list[float], list[float]]:
    """(means, standard deviations), one per member, of the scores of all distinct answers, for RewardModel.set_scale.

    Raises DataError if a member gives all answers the same score.
    """
    answers = {row_key(row): row for row in _answers(pairs_of(model, preferences))}
    if not answers:
        raise DataError(f"none of {len(preferences)} pairs can be scored; give some to take a scale from")
    values = scores(model, list(answers.values()), cache, **options)
    mean, std = values.mean(0), values.std(0)
    if not (std > 0).all():
        raise DataError(
            f"the scores of {len(answers)} answers have standard deviations {std.tolist()}, expected above 0"
        )
    return mean.tolist(), std.tolist()


def _answers(pairs: Pairs) -> list[Encoded]:
    """Chosen, rejected, chosen, rejected, ..."""
    return [answer for row in pairs.rows for answer in (row.chosen, row.rejected)]


def _spread(model: RewardModel, delta: Array) -> Array:
    if model.facts.std is not None:
        return np.array(model.facts.std)
    spread: Array = delta.std(0) if delta.shape[1] > 1 and len(delta) else np.ones(delta.shape[1])
    return np.where(spread > 0, spread, 1.0)


def _adapted(
    model: RewardModel, rows: Sequence[Encoded], progress: Progress, dtype: str, token_budget: int | None
) -> torch.Tensor:
    values = torch.zeros(len(rows), model.members)
    done = 0
    for micro, batch in model.batches(rows, token_budget):
        with autocast(dtype):
            values[micro] = model(**batch).cpu()
        done += len(micro)
        progress("scores", done, len(rows), None)
    return values


def _alone(value: float, n: int) -> Metric:
    return {"value": value, "low": None, "high": None, "n": n}
