"""Measures of a reward model on held-out pairs, on numbers worked by hand."""

from dataclasses import replace
from math import exp
from pathlib import Path

import numpy as np
import pytest
import torch

from sparring.judges.reward.encoding import Encoding
from sparring.judges.reward.features import features
from sparring.judges.reward.model import RewardModel
from sparring.judges.reward.report import evaluate, measured, scale, scores
from sparring.judges.reward.rows import encode_pairs, pairs_of
from sparring.loop.errors import DataError
from sparring.loop.evaluator import wilson
from sparring.loop.labelled_pairs import Preference
from tests.helpers.reward_pairs import pairs, prompt


def make(number: int, a: str, b: str, p_a: float) -> Preference:
    return Preference.make(prompt(f"q{number}"), a, b, p_a)


# The better answer is longer, longer, longer, shorter, of equal length; then a tie, and three that are dropped.
GIVEN = [
    make(0, "aaa", "b", 1.0),
    make(1, "b", "aaa", 0.0),
    make(2, "aaaa", "b", 0.9),
    make(3, "a", "bb", 1.0),
    make(4, "a", "b", 1.0),
    make(5, "a", "bb", 0.5),
    make(6, "a", "a", 1.0),
    make(4, "b", "a", 0.0),
    make(8, "x" * 70, "a", 1.0),
]
DELTA = np.array([2.0, 1.0, -1.0, 3.0, 0.0, 5.0])  # of the likelier winner: right, right, wrong, right, a tie


def test_measures_by_hand(tiny: Path) -> None:
    model, kept = RewardModel.create(tiny), encode_pairs(Encoding(tiny, 64), GIVEN)
    found = measured(model, kept, DELTA[:, None])
    low, high = wilson(3.5 / 5, 5)
    assert found["accuracy"] == {"value": 3.5 / 5, "low": pytest.approx(low), "high": pytest.approx(high), "n": 5}
    assert found["longer_wins"]["value"] == 3.5 / 5
    assert found["length_controlled"]["value"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["length_controlled"]["n"] == 4
    sure = [1 / (1 + exp(-abs(d))) for d in DELTA]
    right = [1, 1, 1 - 0.9, 1, 0.5, 0.5]
    # Ten bins of 0.05 from 0.5: 1 and -1 share the one from 0.7 to 0.75; 3 and 5 that from 0.95 to 1.
    bins = [[0], [1, 2], [3, 5], [4]]
    expected = sum(abs(sum(sure[i] - right[i] for i in b)) for b in bins) / 6
    assert found["calibration_error"] == {"value": pytest.approx(expected), "low": None, "high": None, "n": 6}
    shares = {name: found[name]["value"] * 9 for name in ("ties", "too_long", "identical", "duplicate")}
    assert shares == pytest.approx({"ties": 1, "too_long": 1, "identical": 1, "duplicate": 1})
    assert all(metric.keys() == {"value", "low", "high", "n"} for metric in found.values())
    assert not any(name.startswith("accuracy_") for name in found)


def test_members_are_put_on_one_scale(tiny: Path) -> None:
    model, kept = RewardModel.create(tiny, "multi", {"members": 2}), encode_pairs(Encoding(tiny, 64), GIVEN)
    loud = np.array([100.0, 100.0, -100.0, 100.0, 100.0, 100.0])  # wrong once, and as sure of it as of the rest
    quiet = np.array([0.1, 0.1, 0.5, 0.1, 0.1, 0.1])  # right, and surest where the other one is wrong
    found = measured(model, kept, np.stack([loud, quiet], 1))
    assert (found["accuracy_0"]["value"], found["accuracy_1"]["value"]) == (0.8, 1.0)
    assert found["accuracy"]["value"] == 1.0
    model.set_scale([0, 0], [1, 1])  # as if they were on one scale already
    assert measured(model, kept, np.stack([loud, quiet], 1))["accuracy"]["value"] == 0.8


def test_what_cannot_be_measured_is_absent(tiny: Path) -> None:
    model = RewardModel.create(tiny)
    ties = evaluate(model, [make(0, "a", "bb", 0.5)], dtype="float32")
    assert ties.keys() == {"calibration_error", "ties", "too_long", "identical", "duplicate"}
    nothing = evaluate(model, [make(0, "a", "a", 1.0)], dtype="float32")
    assert nothing.keys() == {"ties", "too_long", "identical", "duplicate"}
    assert nothing["identical"]["value"] == 1.0


def test_swapping_the_answers_changes_nothing(tiny: Path) -> None:
    model, given = RewardModel.create(tiny), pairs(30)
    swapped = [replace(p, a=p.b, b=p.a, p_a=1 - p.p_a) for p in given]
    found, other = (evaluate(model, each, dtype="float32") for each in (given, swapped))
    assert found == other


def test_evaluate_scores_what_the_model_scores(tiny: Path, tmp_path: Path) -> None:
    model, given = RewardModel.create(tiny, "mlp"), pairs(31)
    right = 0.0
    for p in given:
        better, worse = (p.a, p.b) if p.p_a == 1 else (p.b, p.a)
        rows = [Encoding(tiny).encode(p.messages, text) for text in (better, worse)]
        with torch.no_grad():
            first, second = (float(model(**model.collate([row]))) for row in rows if row is not None)
        right += first > second
    seen: list[str] = []
    found = evaluate(model, given, tmp_path, lambda what, *_: seen.append(what), dtype="float32")
    assert found["accuracy"]["value"] == pytest.approx(right / 31)
    assert set(seen) == {"features"}
    assert 0 < right < 31


def test_scores_of_adapters_are_those_of_the_model(tiny: Path) -> None:
    model = RewardModel.create(tiny, "multi", {"members": 2}, adapters=2, adapter_options={"rank": 2})
    with torch.no_grad():
        for name, p in model.backbone.named_parameters():
            if ".lora_B.1" in name:
                p.fill_(0.1)
    rows = [row.chosen for row in pairs_of(model, pairs(9)).rows]
    with torch.no_grad():
        expected = np.array([model(**model.collate([row]))[0].tolist() for row in rows])
    found = scores(model, [*rows, rows[0]], dtype="float32", token_budget=100)
    np.testing.assert_allclose(found, [*expected, expected[0]], atol=1e-5)
    zero = model.score(features(model, rows, dtype="float32")).detach().numpy()
    assert np.abs(found[:9, 1] - zero[:, 1]).max() > 1e-2  # adapter 1 is not adapter 0


def test_scale_is_of_the_distinct_answers(tiny: Path) -> None:
    model = RewardModel.create(tiny, "multi", {"members": 2})
    given = [make(0, "a", "b", 1.0), make(0, "b", "c", 0.5), make(0, "d", "d", 1.0)]
    mean, std = scale(model, given, dtype="float32")
    with torch.no_grad():
        rows = [Encoding(tiny).encode(prompt("q0"), text) for text in "abc"]
        found = np.array([model(**model.collate([row]))[0].tolist() for row in rows if row is not None])
    np.testing.assert_allclose(mean, found.mean(0), atol=1e-5)
    np.testing.assert_allclose(std, np.sqrt(((found - found.mean(0)) ** 2).sum(0) / 3), atol=1e-5)
    model.set_scale(mean, std)
    with torch.no_grad():
        model.head.scores[1].weight.zero_()  # type: ignore[index, operator, union-attr]
    with pytest.raises(DataError, match="standard deviations"):
        scale(model, given, dtype="float32")
    with pytest.raises(DataError, match="none of 1 pairs"):
        scale(model, given[2:], dtype="float32")
