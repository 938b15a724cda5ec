"""What is made once is not made again: reference log-probs, and the steps of a killed update (pitfalls 24, 26, 48)."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sparring.loop.errors import StepError
from sparring.loop.learning.learner import TorchLearner
from sparring.loop.types import Checkpoint
from tests.helpers.learner_pairs import (
    EXCHANGES,
    N,
    initial,
    make_learner,
    round_of,
    scored,
    under,
    unscored,
    with_column,
)

STEPS = 8  # two epochs of seven pairs, two a step


class Killed(Exception):
    pass


def told(learner: TorchLearner, policy: Checkpoint, pairs: Any) -> dict[str, list[float]]:
    return {each.completion_id: list(each.token_logprobs) for chunk in learner.score(policy, pairs) for each in chunk}


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 2, 5, STEPS])
def test_a_killed_update_resumes_where_it_stopped(step: int, tiny: Path, tmp_path: Path) -> None:
    policy = initial(tiny)
    # Warm-up and decay, so that a schedule begun anew would show.
    options: dict[str, Any] = {"batch_size": 2, "epochs": 2, "save_seconds": 0.0, "warmup": 0.4, "schedule": "linear"}
    undisturbed = make_learner(tmp_path / "undisturbed", **options)
    pairs = scored(undisturbed, policy, unscored(tiny))
    expected, _, expected_steps = undisturbed.learn(round_of(policy), pairs)
    assert len(expected_steps) == STEPS

    def kill(done: int, total: int, loss: float) -> None:
        if done == step:
            raise Killed

    with pytest.raises(Killed):
        make_learner(tmp_path / "killed", **options, progress=kill).learn(round_of(policy), pairs)
    left = [path.suffix for path in (tmp_path / "killed").glob("*")]
    assert left == ([".safetensors"] if step > 1 else [])  # the state after the step before, and no checkpoint

    reported = []
    again = make_learner(tmp_path / "killed", **options, progress=lambda done, *_: reported.append(done))
    candidate, update, steps = again.learn(round_of(policy), pairs)
    assert reported == list(range(step, STEPS + 1))
    assert candidate.weights_sha256 == expected.weights_sha256
    assert steps == expected_steps
    assert [path.name for path in (tmp_path / "killed").iterdir()] == ["round-0001"]
    assert update.metrics == pytest.approx(
        {name: sum(s.metrics[name] for s in steps) / STEPS for name in steps[0].metrics}
    )


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file may be larger than `room` bytes: what a write then meets, it meets on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.slow
@pytest.mark.parametrize("save_seconds", [0.0, 1e9], ids=["state", "checkpoint"])
def test_a_full_disk_is_said_leaves_nothing_half_and_costs_no_step(
    save_seconds: float, tiny: Path, tmp_path: Path
) -> None:
    policy, options = initial(tiny), {"batch_size": 2, "save_seconds": save_seconds}
    undisturbed = make_learner(tmp_path / "undisturbed", **options)
    pairs = scored(undisturbed, policy, unscored(tiny))
    expected, _, _ = undisturbed.learn(round_of(policy), pairs)
    learner = make_learner(tmp_path / "full", **options)
    with full_disk(10_000), pytest.raises(StepError, match=r"could not be written .*df -h .*spar resume"):
        learner.learn(round_of(policy), pairs)
    assert list((tmp_path / "full").iterdir()) == []
    found, _, _ = make_learner(tmp_path / "full", **options).learn(round_of(policy), pairs)
    assert found.weights_sha256 == expected.weights_sha256


@pytest.mark.slow
def test_killed_twice_by_the_same_learner(tiny: Path, tmp_path: Path) -> None:
    policy, kill_at = initial(tiny), [2, 3]

    def kill(done: int, total: int, loss: float) -> None:
        if kill_at and done == kill_at[0]:
            kill_at.pop(0)
            raise Killed

    options: dict[str, Any] = {"batch_size": 2, "save_seconds": 0.0}
    undisturbed = make_learner(tmp_path / "undisturbed", **options)
    pairs = scored(undisturbed, policy, unscored(tiny))
    expected, _, expected_steps = undisturbed.learn(round_of(policy), pairs)
    learner = make_learner(tmp_path / "killed", **options, progress=kill)
    for _ in range(2):
        with pytest.raises(Killed):
            learner.learn(round_of(policy), pairs)
    candidate, _, steps = learner.learn(round_of(policy), pairs)
    assert (candidate.weights_sha256, steps) == (expected.weights_sha256, expected_steps)


@pytest.mark.slow
def test_learned_but_not_told(tiny: Path, tmp_path: Path) -> None:
    # Dead between the checkpoint's rename and the store's commit: the same update is made again over it.
    policy, learner = initial(tiny), make_learner(tmp_path)
    pairs = scored(learner, policy, unscored(tiny))
    first, second = (learner.learn(round_of(policy), pairs) for _ in range(2))
    assert (first[0], first[2]) == (second[0], second[2])


def test_score_gives_each_completion_once(tiny: Path, tmp_path: Path) -> None:
    policy, pairs = initial(tiny), unscored(tiny)
    found = [logprob for chunk in make_learner(tmp_path).score(policy, pairs) for logprob in chunk]
    assert sorted(logprob.completion_id for logprob in found) == sorted(
        i for ids in pairs["completion_ids"].to_pylist() for i in ids
    )
    tokens = {
        f"{side}_{i}": len(e[k].encode()) + 1
        for i, e in enumerate(EXCHANGES)
        for k, side in ((1, "chosen"), (2, "rejected"))
    }
    assert {logprob.completion_id: logprob.n_tokens for logprob in found} == tokens
    assert {logprob.weights_sha256 for logprob in found} == {policy.weights_sha256}
    assert len({logprob.id for logprob in found}) == 2 * N
    assert all(logprob.value < 0 for logprob in found)


def test_score_makes_only_what_is_missing(tiny: Path, tmp_path: Path) -> None:
    policy = initial(tiny)
    learner = make_learner(tmp_path, token_budget=1)  # a row a micro-batch
    full = scored(learner, policy, unscored(tiny))
    reference = full["reference"].to_pylist()
    partly = [[[None, None]] if i in (2, 5) else values for i, values in enumerate(reference)]
    found = told(learner, policy, with_column(full, "reference", partly))
    # Bit for bit what it was before, because the micro-batches are the same.
    assert found == {f"{side}_{i}": reference[i][0][k] for i in (2, 5) for k, side in enumerate(("chosen", "rejected"))}


def test_in_a_shared_micro_batch_known_values_come_again_unchanged(tiny: Path, tmp_path: Path) -> None:
    # The whole micro-batch is computed for the same rounding; the store leaves what it has.
    policy, learner = initial(tiny), make_learner(tmp_path, token_budget=100_000)
    full = scored(learner, policy, unscored(tiny))
    reference = full["reference"].to_pylist()
    found = told(learner, policy, with_column(full, "reference", [[[None, reference[0][0][1]]], *reference[1:]]))
    assert found == {
        f"{side}_{i}": reference[i][0][k] for i in range(N) for k, side in enumerate(("chosen", "rejected"))
    }


def test_score_of_known_values_loads_no_model(tiny: Path, tmp_path: Path) -> None:
    nowhere = Checkpoint("checkpoint_0", "run", str(tmp_path / "nowhere"), None, "0" * 64)
    pairs = unscored(tiny)
    known = with_column(pairs, "reference", under([[-1.0, -2.0]] * N, pairs))
    assert list(make_learner(tmp_path).score(nowhere, known)) == []
