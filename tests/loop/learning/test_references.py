"""Which policies an update compares with: each kind of reference, and what MRPO's mixture is (arXiv:2405.16388)."""

from dataclasses import replace
from math import exp, log
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sparring.loop.errors import ConfigError
from sparring.loop.learning.references import Reference, mix
from sparring.loop.types import Checkpoint, Round
from tests.helpers.learner_pairs import N, initial, make_learner, round_of, scored, under, unscored, with_column
from tests.helpers.tiny import build_tiny_model


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "other", seed=1)


def rounds(one: Path, two: Path) -> Round:
    """A second round: the policy is no longer the initial one."""
    first, policy = initial(one), replace(initial(two), id="checkpoint_policy")
    return Round("run", 2, policy, first, first, first, ())


def weights(folder: str | Path) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "model.safetensors")


def test_what_each_kind_compares_with(tiny: Path, other: Path, tmp_path: Path) -> None:
    rnd = rounds(tiny, other)

    def asked(**options: Any) -> tuple[Checkpoint, list[str], list[str]]:
        reference = Reference(**options)
        begun = replace(rnd, reference=make_learner(tmp_path, reference=reference).anchor(rnd))
        return begun.reference, [k.id for k in reference.of_round(begun)], reference.named(begun)

    old, new = rnd.initial.id, rnd.policy.id
    assert asked(kind="initial")[1:] == ([old], [old])
    assert asked(kind="previous")[1:] == ([new], [new])
    assert asked(kind="none")[1:] == ([], [])
    assert asked(kind="sync")[1:] == ([], [new])  # it starts there; its log-probs are computed as the update goes
    assert asked(kind="mixture")[1:] == ([new, old], [new, old])
    assert asked(kind="mixture", of=["initial", "previous"])[1] == [old, new]


def test_an_average_over_rounds(tiny: Path, other: Path, tmp_path: Path) -> None:
    rnd = rounds(tiny, other)
    learner = make_learner(tmp_path, reference=Reference("ema", decay=0.75))
    found = learner.anchor(rnd)
    before, policy, average = weights(tiny), weights(other), weights(found.path)
    for name, tensor in average.items():
        torch.testing.assert_close(tensor, 0.75 * before[name] + 0.25 * policy[name])
    assert found.parent_id == rnd.policy.id and found == learner.anchor(rnd)  # made again, it is the same
    # With nothing learned yet, there is nothing to average.
    assert learner.anchor(round_of(rnd.initial)) == rnd.initial


@pytest.mark.slow
def test_a_synced_reference_is_where_the_policy_was(tiny: Path, tmp_path: Path) -> None:
    """With alpha 1 and a sync at every step, each step starts at the reference: margin 0 and loss ln 2, always."""
    pairs = unscored(tiny)
    policy = initial(tiny)
    options: dict[str, Any] = {"batch_size": 2, "epochs": 2, "lr": 1e-3}
    synced = make_learner(tmp_path / "1", reference=Reference("sync", alpha=1.0, every=1), **options)
    _, update, steps = synced.learn(round_of(policy), pairs)
    assert [step.metrics["loss"] for step in steps] == pytest.approx([log(2)] * len(steps), abs=1e-6)
    # With alpha 0 it never moves: it is `previous`, step by step.
    still = make_learner(tmp_path / "2", reference=Reference("sync", alpha=0.0, every=1), **options)
    plain = make_learner(tmp_path / "3", **options)
    one = still.learn(round_of(policy), pairs)
    two = plain.learn(round_of(policy), scored(plain, policy, pairs))
    assert one[0].weights_sha256 == two[0].weights_sha256
    assert [s.metrics["loss"] for s in one[2]] == [s.metrics["loss"] for s in two[2]]
    assert update.reference_ids == [policy.id]


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 3])
def test_a_killed_update_has_its_synced_reference_back(every: int, tiny: Path, tmp_path: Path) -> None:
    policy, pairs = initial(tiny), unscored(tiny)
    options: dict[str, Any] = {
        "batch_size": 2,
        "epochs": 2,
        "save_seconds": 0.0,
        "reference": Reference("sync", alpha=0.5, every=every),
    }

    class Killed(Exception):
        pass

    def kill(done: int, total: int, loss: float) -> None:
        if done == 6:
            raise Killed

    expected = make_learner(tmp_path / "whole", **options).learn(round_of(policy), pairs)
    with pytest.raises(Killed):
        make_learner(tmp_path / "killed", **options, progress=kill).learn(round_of(policy), pairs)
    again = make_learner(tmp_path / "killed", **options).learn(round_of(policy), pairs)
    assert (again[0].weights_sha256, again[2]) == (expected[0].weights_sha256, expected[2])


def test_the_mixture_by_hand() -> None:
    # One pair: log-probs of chosen and rejected under two references.
    given = torch.tensor([[[-1.0, -3.0]], [[-2.0, -2.5]]])  # (R, B, C)
    # Adaptive: |(-1) - (-3)| = 2 and |(-2) - (-2.5)| = 0.5 give weights 0.8 and 0.2.
    chosen = -log(0.8 / exp(-1) + 0.2 / exp(-2))
    rejected = -log(0.8 / exp(-3) + 0.2 / exp(-2.5))
    assert mix(given, True).tolist() == [[pytest.approx(chosen, abs=1e-5), pytest.approx(rejected, abs=1e-5)]]
    even = -log(0.5 / exp(-1) + 0.5 / exp(-2))
    assert mix(given, True, weights=[0.5, 0.5])[0, 0].item() == pytest.approx(even)
    assert mix(given, False)[0, 0].item() == pytest.approx(even)
    # All weight on one of them is that one; a mixture of one policy with itself is that policy.
    torch.testing.assert_close(mix(given, True, weights=[1.0, 0.0]), given[0])
    torch.testing.assert_close(mix(given[:1].expand(2, 1, 2), True), given[0])


def test_the_others_stay_near_the_first() -> None:
    # Mean log-probs of the first: -2 (chosen) and -6 (rejected), so a clip of 0.4 is 0.1 for chosen, 0.3 for rejected.
    given = torch.tensor([[[-2.0, -6.0]], [[-9.0, -5.0]]])
    clipped = mix(given, True, weights=[0.0, 1.0], clip=0.4)
    assert clipped.tolist() == [[pytest.approx(-2.2), pytest.approx(-5.0)]]  # -9 is out of -2.2 to -1.8; -5 is within
    assert mix(given, True, weights=[0.0, 1.0], clip=0.1)[0, 1].item() == pytest.approx(-6 * (1 - 0.075))


def test_a_mixture_of_one_policy_learns_as_that_policy(tiny: Path, tmp_path: Path) -> None:
    policy = initial(tiny)
    plain = make_learner(tmp_path / "1")
    pairs = scored(plain, policy, unscored(tiny))
    twice = with_column(pairs, "reference", [[row[0], row[0]] for row in pairs["reference"].to_pylist()])
    mixed = make_learner(tmp_path / "2", reference=Reference("mixture"))
    one, two = (learner.learn(round_of(policy), table)[2] for learner, table in ((plain, pairs), (mixed, twice)))
    assert two[0].metrics["loss"] == pytest.approx(one[0].metrics["loss"], abs=1e-5)
    assert "kl_k1" in one[0].metrics and "kl_k1" not in two[0].metrics  # a mixture has no log-prob a token


def test_no_reference_is_a_log_prob_of_0(tiny: Path, tmp_path: Path) -> None:
    policy, pairs = initial(tiny), unscored(tiny)
    none = make_learner(tmp_path / "1", reference=Reference("none"), loss="sigmoid")
    zeros = with_column(pairs, "reference", under([[0.0, 0.0]] * N, pairs))
    one = none.learn(round_of(policy), with_column(pairs, "reference", [[]] * N))
    two = make_learner(tmp_path / "2", loss="sigmoid").learn(round_of(policy), zeros)
    assert one[0].weights_sha256 == two[0].weights_sha256
    assert one[1].reference_ids == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "ema", "decay": 1.5}, "learn.reference.decay is 1.5; it must be a number from 0 to 1"),
        ({"kind": "sync", "every": 0}, "learn.reference.every is 0"),
        ({"kind": "mixture", "of": ["initial", "sft"]}, "learn.reference.of has 'sft'"),
        ({"kind": "mixture", "of": ["initial"]}, "a mixture needs two different policies"),
        ({"kind": "mixture", "weights": [0.9, 0.9]}, "expected 2 weights with the sum 1"),
        ({"kind": "mixture", "clip": -1.0}, "learn.reference.clip is -1.0"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        Reference(**options)
