"""Policy-gradient updates of the tiny model: how they start, what they leave for the next round, and kills."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from sparring.loop.errors import ConfigError, DataError, StepError
from sparring.loop.learning.checkpoint import weights_sha256
from sparring.loop.learning.critic import Critic
from sparring.loop.learning.learner import TorchLearner
from sparring.loop.learning.options import Lora, Optimization
from sparring.loop.learning.policy_gradient_method import OnPolicy
from sparring.loop.learning.policy_options import ALGORITHMS, algorithm
from sparring.loop.types import Checkpoint
from tests.helpers.learner_pairs import N, initial, round_of, unscored

pytestmark = pytest.mark.slow

REALS = pa.list_(pa.float64())


class Killed(Exception):
    pass


def learner_of(folder: Path, name: str = "ppo", lora: Lora | None = None, **options: Any) -> TorchLearner:
    taken = {k: options.pop(k) for k in ("progress",) if k in options}
    steps = {k: options.pop(k) for k in [*options] if k in Optimization.model_fields}
    made = Optimization(**{"lr": 1e-3, "batch_size": 3, "warmup": 0.0, "save_seconds": 0.0} | steps)
    return TorchLearner(
        folder, OnPolicy(name, algorithm(name, **options)), made, seed=0, dtype="float32", lora=lora, **taken
    )


def rollout(learner: TorchLearner, folder: Path, policy: Checkpoint | None = None) -> pa.Table:
    """EXCHANGES as groups of two answers: the first has reward 1. Sampler and reference are the policy itself."""
    policy = policy or initial(folder)
    pairs = unscored(folder)
    told = {f.completion_id: list(f.token_logprobs) for chunk in learner.score(policy, pairs) for f in chunk}
    tokens = [[told[i] for i in ids] for ids in pairs["completion_ids"].to_pylist()]
    kept = pairs.select(["row_id", "messages", "completion_ids", "token_ids", "stopped"])
    table = kept.append_column("logprobs", pa.array(tokens)).append_column("reference", pa.array([[t] for t in tokens]))
    rewards = [[1.0, 0.0]] * N
    return table.append_column("rewards", pa.array(rewards, REALS)).append_column("weights", pa.array(rewards, REALS))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_first_step_is_on_policy(name: str, tiny: Path, tmp_path: Path) -> None:
    """Every ratio is 1, KL to old and reference is 0, and the sampler was right (E.6: pitfalls of PPO)."""
    options = {"max_tokens": 64} if name == "dr_grpo" else {}
    learner = learner_of(tmp_path, name, **options)
    _, update, steps = learner.learn(round_of(initial(tiny)), rollout(learner, tiny))
    first = steps[0].metrics
    assert first["ratio"] == pytest.approx(1.0, abs=1e-6)
    assert first["clip_share"] == 0.0
    assert {first[f"approx_kl_{k}"] for k in ("k1", "k2", "k3")} == {0.0}
    assert {first[f"kl_{k}"] for k in ("k1", "k2", "k3")} == {0.0}
    assert update.metrics["mismatch_abs"] == 0.0 and update.metrics["rollout_kl"] == 0.0
    assert update.metrics["score"] == 0.5 and update.algorithm == name
    assert steps[1].metrics["ratio"] != 1.0  # by the second step the policy has moved


def test_what_was_good_becomes_more_likely(tiny: Path, tmp_path: Path) -> None:
    learner = learner_of(tmp_path, "rloo", epochs=4)
    table = rollout(learner, tiny)
    candidate, _, _ = learner.learn(round_of(initial(tiny)), table)
    after = {
        f.completion_id: f.value - sum(known)
        for chunk in learner.score(candidate, unscored(tiny))
        for f in chunk
        for known in [
            dict(
                zip(
                    (i for ids in table["completion_ids"].to_pylist() for i in ids),
                    (t for row in table["logprobs"].to_pylist() for t in row),
                    strict=True,
                )
            )[f.completion_id]
        ]
    }
    gained = [after[f"chosen_{i}"] - after[f"rejected_{i}"] for i in range(N)]
    assert sum(g > 0 for g in gained) >= N - 1 and sum(gained) / N > 1


def test_the_critic_and_both_optimizers_are_in_the_checkpoint(tiny: Path, tmp_path: Path) -> None:
    learner = learner_of(tmp_path)
    one, _, _ = learner.learn(round_of(initial(tiny)), rollout(learner, tiny))
    folder = Path(one.path)
    assert sorted(p.name for p in folder.glob("*.safetensors")) == ["model.safetensors"]  # what vLLM reads
    assert weights_sha256(folder) == one.weights_sha256
    assert {p.name for p in (folder / "trainer").iterdir()} == {
        "policy.safetensors",
        "critic.safetensors",
        "baseline.json",
    }
    first = Critic.load(folder / "critic")
    # The next round goes on from them: other values, moments of three steps more.
    again = replace(round_of(one), index=2)
    two, _, _ = learner.learn(again, rollout(learner, tiny, one))
    assert not torch.equal(Critic.load(Path(two.path) / "critic").head.weight, first.head.weight)
    for name in ("policy", "critic"):
        steps = [load_file(Path(k.path) / "trainer" / f"{name}.safetensors")["0.step"].item() for k in (one, two)]
        assert steps == [3.0, 6.0]  # of 7 prompts, 3 a step


def test_a_reward_average_continues_across_rounds(tiny: Path, tmp_path: Path) -> None:
    learner = learner_of(tmp_path, "reinforce", kl_coef=0.0)
    one, first, _ = learner.learn(round_of(initial(tiny)), rollout(learner, tiny))
    assert (first.metrics["baseline"], first.metrics["baseline_count"]) == (0.5, 14.0)
    table = rollout(learner, tiny, one)
    better = table.set_column(table.column_names.index("rewards"), "rewards", pa.array([[1.0, 1.0]] * N, REALS))
    _, second, _ = learner.learn(replace(round_of(one), index=2), better)
    assert (second.metrics["baseline"], second.metrics["baseline_count"]) == (0.75, 28.0)


@pytest.mark.parametrize("killed_in", ["policy", "critic", "both"])
def test_a_killed_ppo_update_resumes_to_the_same_bits(killed_in: str, tiny: Path, tmp_path: Path) -> None:
    """Six steps of the policy, then six of the critic; a kill in either."""
    policy = round_of(initial(tiny))
    whole = learner_of(tmp_path / "whole", epochs=2)
    table = rollout(whole, tiny)
    expected = whole.learn(policy, table)
    assert len(expected[2]) == 6
    # Calls of `progress` until the kill. After one at the second, step 2 is taken again: its state was not saved.
    kill_at = {"policy": [3], "critic": [9], "both": [2, 8]}[killed_in]

    def killing(call: int) -> Any:
        calls = []

        def kill(done: int, total: int, loss: float) -> None:
            calls.append(done)
            if len(calls) == call:
                raise Killed

        return kill

    for call in kill_at:
        with pytest.raises(Killed):
            learner_of(tmp_path / "killed", epochs=2, progress=killing(call)).learn(policy, table)
    assert list((tmp_path / "killed").glob("*.safetensors"))
    found = learner_of(tmp_path / "killed", epochs=2).learn(policy, table)
    assert (found[0].weights_sha256, found[2]) == (expected[0].weights_sha256, expected[2])
    for file in ("critic/model.safetensors", "critic/value_head.safetensors", "trainer/critic.safetensors"):
        one, two = (load_file(Path(k.path) / file) for k in (expected[0], found[0]))
        assert all(torch.equal(one[name], two[name]) for name in one)
    assert [p.name for p in (tmp_path / "killed").iterdir()] == ["round-0001"]


def test_n_plus_takes_four_epochs_with_its_own_eps(tiny: Path, tmp_path: Path) -> None:
    learner = learner_of(tmp_path, recipe="n_plus", epochs=4, batch_size=N)
    _, _, steps = learner.learn(round_of(initial(tiny)), rollout(learner, tiny))
    assert len(steps) == 4 and all("critic_value_loss" in step.metrics for step in steps)


def test_adapters_are_trained_and_start_fresh_in_each_update(tiny: Path, tmp_path: Path) -> None:
    learner = learner_of(tmp_path, lora=Lora(r=4, alpha=8))
    one, _, _ = learner.learn(round_of(initial(tiny)), rollout(learner, tiny))
    assert not (
        Path(one.path) / "trainer" / "policy.safetensors"
    ).exists()  # they are merged: no optimizer to go on with
    assert (Path(one.path) / "trainer" / "critic.safetensors").exists()
    two, _, _ = learner.learn(replace(round_of(one), index=2), rollout(learner, tiny, one))
    assert two.weights_sha256 != one.weights_sha256


def test_pairs_are_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has pairs, and a policy gradient learns from groups"):
        learner_of(tmp_path).learn(round_of(initial(tiny)), unscored(tiny))


def test_answers_of_a_dataset_are_refused(tiny: Path, tmp_path: Path) -> None:
    learner = learner_of(tmp_path)
    table = rollout(learner, tiny)
    given = [[[], row[1]] if i == 2 else row for i, row in enumerate(table["logprobs"].to_pylist())]
    table = table.set_column(table.column_names.index("logprobs"), "logprobs", pa.array(given))
    with pytest.raises(DataError, match="it is a dataset's"):
        learner.learn(round_of(initial(tiny)), table)


def test_one_answer_per_prompt_has_nothing_to_compare_with(tiny: Path, tmp_path: Path) -> None:
    learner = learner_of(tmp_path, "rloo")
    table = rollout(learner, tiny)
    first = table.slice(0, 1).to_pylist()[0]
    shorter = {
        name: [values[0][:1]] if name == "reference" else values[:1]
        for name, values in first.items()
        if isinstance(values, list)
    }
    table = pa.concat_tables([pa.Table.from_pylist([first | shorter], table.schema), table.slice(1)])
    with pytest.raises(StepError, match="1 of 7 prompts have a single answer"):
        learner.learn(round_of(initial(tiny)), table)
