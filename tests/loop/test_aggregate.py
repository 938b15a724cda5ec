"""Ensembles by hand: what each aggregation says of three members, and when it says nothing."""

from collections.abc import Mapping

import pytest

from sparring.loop.aggregate import AGGREGATORS, lower_bound, members, uncertainty
from sparring.loop.errors import ConfigError
from sparring.loop.types import Judgement

SAME = {"0": (0.0, 1.0), "1": (0.0, 1.0), "2": (0.0, 1.0)}


def said(completion: str, *values: float | None, principle: str = "") -> list[Judgement]:
    return [
        Judgement(f"{completion}/{k}/{principle}", "ensemble", completion, None, str(k), principle, 0, value)
        for k, value in enumerate(values)
    ]


def scores(kind: str, answers: Mapping[str, tuple[float | None, ...]], **options: float) -> Mapping[str, float]:
    judgements = [j for completion, values in answers.items() for j in said(completion, *values)]
    return members(judgements, kind, SAME, **options).scores


# Of 1, 3, 5 the mean is 3, the variance (4 + 0 + 4) / 3 = 8/3 and its root 1.63299.
@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("mean", {}, 3.0),
        ("worst", {}, 1.0),
        ("uncertainty", {}, 3 - 0.5 * 8 / 3),
        ("uncertainty", {"lam": 0.1}, 3 - 0.1 * 8 / 3),
        ("lower_bound", {}, 3 - 1.632993),
        ("lower_bound", {"beta": 2.0}, 3 - 2 * 1.632993),
    ],
)
def test_each_aggregator_by_hand(kind: str, options: dict[str, float], expected: float) -> None:
    assert scores(kind, {"x": (1.0, 3.0, 5.0)}, **options) == {"x": pytest.approx(expected, abs=1e-6)}


def test_the_worst_case_flips_a_ranking_that_the_mean_does_not() -> None:
    # Two members love x and one does not; all find y fair. Means 2.0 and 1.0, lowest -2.0 and 1.0.
    answers: dict[str, tuple[float | None, ...]] = {"x": (4.0, 4.0, -2.0), "y": (1.0, 1.0, 1.0)}
    for kind in AGGREGATORS:
        found = scores(kind, answers)
        assert (found["x"] > found["y"]) is (kind == "mean"), kind


def test_members_are_standardised_before_they_are_aggregated() -> None:
    # Raw, the lowest is member 1 for both. On their own scales x is (2, -1) and y is (0, 1).
    scales = {"0": (10.0, 2.0), "1": (-100.0, 50.0)}
    judgements = [*said("x", 14.0, -150.0), *said("y", 10.0, -50.0)]
    assert members(judgements, "worst", scales).scores == {"x": -1.0, "y": 0.0}
    assert members(judgements, "mean", scales).scores == {"x": 0.5, "y": 0.5}


def test_a_shift_or_a_scale_of_a_member_changes_nothing() -> None:
    plain = [*said("x", 1.0, 2.0), *said("y", 2.0, -1.0)]
    moved = [*said("x", 1.0, 2.0 * 7 + 3), *said("y", 2.0, -1.0 * 7 + 3)]
    for kind in AGGREGATORS:
        one = members(plain, kind, {"0": (0.0, 1.0), "1": (0.5, 2.0)}).scores
        other = members(moved, kind, {"0": (0.0, 1.0), "1": (0.5 * 7 + 3, 14.0)}).scores
        assert one == pytest.approx(other)


@pytest.mark.parametrize("kind", list(AGGREGATORS))
def test_a_member_without_an_answer_leaves_no_score(kind: str) -> None:
    # x's silent member might have been the worst of all; y lacks a row; z has everything.
    judgements = [*said("x", 5.0, 5.0, None), *said("y", 5.0, 5.0), *said("z", 0.0, 0.0, 0.0)]
    assert members(judgements, kind, SAME).scores == {"z": 0.0}


def test_principles_of_a_member_are_averaged_and_none_of_them_may_be_silent() -> None:
    scales = {"0": (0.0, 1.0)}
    both = [*said("x", 1.0, principle="kind"), *said("x", 3.0, principle="true")]
    half = [*said("y", 1.0, principle="kind"), *said("y", None, principle="true")]
    assert members([*both, *half], "worst", scales).scores == {"x": 2.0}


def test_zero_is_a_score_and_duels_are_no_scores() -> None:
    duel = Judgement("d", "ensemble", "x", "y", "0", "", 0, 0.9)
    assert members([*said("x", 0.0), duel], "mean", {"0": (0.0, 1.0)}).scores == {"x": 0.0}


def test_one_member_alone_is_certain() -> None:
    assert uncertainty([2.0]) == lower_bound([2.0]) == 2.0


@pytest.mark.parametrize(
    ("kind", "scales", "options", "message"),
    [
        ("worse", SAME, {}, "no aggregator 'worse' .did you mean 'worst'"),
        ("worst", SAME, {"lam": 1.0}, "'worst' has no option 'lam'.*it takes none"),
        ("mean", SAME | {"1": (0.0, 0.0)}, {}, "member '1' has standard deviation 0.0"),
        ("mean", {"0": (0.0, 1.0)}, {}, "has a member '1'; expected one of .'0'"),
    ],
)
def test_refusals(kind: str, scales: dict[str, tuple[float, float]], options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        members(said("x", 1.0, 2.0, 3.0), kind, scales, **options)
