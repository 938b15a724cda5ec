"""The method that learns by a policy gradient from the answers that the policy itself has just sampled."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparring.loop.errors import ConfigError, DataError
from sparring.loop.hardware import autocast, device
from sparring.loop.learning.batches import Batch
from sparring.loop.learning.critic import FOLDER as CRITIC
from sparring.loop.learning.critic import Critic, token_values
from sparring.loop.learning.experience import Experience, Rollout, experience, policy_share, value_share
from sparring.loop.learning.forward_choice import batch_for
from sparring.loop.learning.learner import UpdateContext, UpdateResult
from sparring.loop.learning.logprobs import token_logprobs
from sparring.loop.learning.objectives import History, Plain
from sparring.loop.learning.optimize import Optimized, optimize
from sparring.loop.learning.policy_options import PPO, PolicyGradient
from sparring.loop.learning.recipes import ADAM_EPS
from sparring.loop.learning.state import save_moments
from sparring.loop.learning.training_rows import GroupRows, TrainingRows
from sparring.loop.types import derive_seed

TRAINER = "trainer"  # folder below a checkpoint: optimizers and baseline, for the update that continues from it
Tokens = Callable[[Any, Batch], Tensor]


class OnPolicy:
    """PPO, RLOO, REINFORCE, GRPO or Dr. GRPO, depending on the options (loop.learning.policy_options).

    Policy and critic are two models with an optimizer each, and their losses share no weights. So the critic takes its
    steps after the policy, on the same batches. `value_coef` only scales the critic's gradient.
    """

    from_divergence = False

    def __init__(self, algorithm: str, options: PolicyGradient) -> None:
        self.algorithm, self.options = algorithm, options

    def improve(self, work: UpdateContext) -> UpdateResult:
        before = Path(work.rnd.policy.path)
        critic = _critic(work, self.options.critic, before) if isinstance(self.options, PPO) else None
        rollout, metrics = experience(_rollout(work, critic), self.options, earlier=_baseline(before))

        def train(name: str, model: Any, objective: type[PolicyObjective], state: Path, **options: Any) -> Optimized:
            moments = before / TRAINER / f"{name}.safetensors"
            return optimize(
                model,
                objective(rollout, self.options, work.data, work.dtype),
                work.batches(),
                work.optimization,
                state,
                progress=work.progress,
                moments=moments if moments.exists() and (work.carries or model is critic) else None,
                eps=ADAM_EPS[self.options.recipe] if isinstance(self.options, PPO) else 1e-8,
                **options,
            )

        # `keep`: a kill in the critic's steps must not lose the policy's.
        policy = train("policy", work.model, PolicyObjective, work.state, keep=critic is not None)
        history, optimizers = policy.history, {"policy": policy.optimizer} if work.carries else {}
        if critic is not None:
            state = work.state.with_name(f"{work.state.stem}-critic.safetensors")
            optimized = train("critic", critic, ValueObjective, state)
            optimizers["critic"] = optimized.optimizer
            history = [
                {**step, **{f"critic_{name}": value for name, value in more.items()}}
                for step, more in zip(history, optimized.history, strict=True)
            ]

        def keep(folder: Path) -> None:
            if critic is not None:
                critic.save(folder / CRITIC)
            for name, optimizer in optimizers.items():
                parameters = optimizer.param_groups[0]["params"]
                save_moments(folder / TRAINER / f"{name}.safetensors", parameters, optimizer)
            (folder / TRAINER).mkdir(exist_ok=True)
            baseline = {name: metrics[name] for name in ("baseline", "baseline_count") if name in metrics}
            (folder / TRAINER / "baseline.json").write_text(json.dumps(baseline), encoding="utf-8")

        return UpdateResult(history, keep, metrics)


class PolicyObjective(Plain):
    """The surrogate loss of the policy on a rollout."""

    def __init__(self, rollout: Experience, options: PolicyGradient, data: TrainingRows, dtype: str) -> None:
        self.rollout, self.options, self.data, self.dtype = rollout, options, data, dtype

    def begin(self, model: Any, batch: Sequence[Sequence[int]], history: History) -> None:
        self.totals = self.rollout.totals([i for micro in batch for i in micro])

    def share(self, model: Any, rows: Sequence[int]) -> tuple[Tensor, dict[str, float]]:
        values = _tokens(model, token_logprobs, self.data, rows, self.dtype)
        loss, metrics = policy_share(values, self.rollout.take(rows), self.options, self.totals)
        return loss, {"loss": float(loss.detach()), **metrics}


class ValueObjective(PolicyObjective):
    """The critic's loss on the same rollout."""

    options: PPO

    def share(self, model: Any, rows: Sequence[int]) -> tuple[Tensor, dict[str, float]]:
        values = _tokens(model, token_values, self.data, rows, self.dtype)
        loss, metrics = value_share(values, self.rollout.take(rows), self.options, self.totals)
        return loss, {"loss": float(loss.detach()), **metrics}


def _critic(work: UpdateContext, start: str, policy: Path) -> Critic:
    if (policy / CRITIC).is_dir():
        return Critic.load(policy / CRITIC).to(device())
    folder = policy if start == "policy" else Path(start)
    return Critic.start(folder, policy, seed=derive_seed(work.seed, "critic")).to(device())


def _rollout(work: UpdateContext, critic: Critic | None) -> Rollout:
    """The round's answers and their log-probs before training, computed in the micro-batches of the first epoch.

    The same shapes give the same rounding, so the ratios of the first step are exactly 1.
    """
    data, where = _groups(work.data), device()
    _refuse_not_sampled(data)
    every = range(len(data))
    micro_batches = [micro for batch in work.batches(1) for micro in batch]
    counts = [[len(tokens) for tokens in row.completions] for row in data.rows]
    lengths = torch.tensor([n for row in counts for n in row], device=where)
    return Rollout(
        completion=torch.arange(len(lengths), device=where).repeat_interleave(lengths),
        group=torch.tensor([i for i, row in enumerate(counts) for _ in row], device=where),
        score=torch.cat([torch.from_numpy(r) for r in data.flat("rewards")]).to(where),
        stopped=torch.tensor(data.stopped, device=where),
        old=_every_token(work.model, token_logprobs, data, micro_batches, work.dtype),
        sampler=data.sampled_tokens(every, where),
        reference=data.reference_tokens(every, 0, where) if data.references[0] else None,
        values=None if critic is None else _every_token(critic, token_values, data, micro_batches, work.dtype),
    )


def _tokens(model: Any, what: Tokens, data: TrainingRows, rows: Sequence[int], dtype: str) -> Tensor:
    batch = batch_for(model.backbone if isinstance(model, Critic) else model, [data.rows[i] for i in rows])
    with autocast(dtype):
        return what(model, batch)


def _every_token(
    model: Any, what: Tokens, data: TrainingRows, micro_batches: Sequence[Sequence[int]], dtype: str
) -> Tensor:
    """(N,) one value per completion token of all rows, in row order."""
    by_row: dict[int, Tensor] = {}
    for micro in micro_batches:
        with torch.no_grad():
            values = _tokens(model, what, data, micro, dtype)
        sizes = [sum(map(len, data.rows[i].completions)) for i in micro]
        by_row |= zip(micro, torch.split(values, sizes), strict=True)
    return torch.cat([by_row[i] for i in range(len(data))])


def _groups(data: TrainingRows) -> GroupRows:
    if not isinstance(data, GroupRows):
        raise ConfigError(
            "the round has pairs, and a policy gradient learns from groups of answers; use pair.kind group"
        )
    return data


def _refuse_not_sampled(data: GroupRows) -> None:
    for row, sampled in zip(data.rows, data.sampled, strict=True):
        if sum(map(len, row.completions)) != len(sampled):
            raise DataError(
                "an answer of the round has no log-probs from its sampler: it is a dataset's, and a policy gradient "
                "learns from the policy's own answers; remove the dataset from sample.extra"
            )


def _baseline(policy: Path) -> tuple[float, int]:
    """The mean and the number of the rewards in earlier updates."""
    path = policy / TRAINER / "baseline.json"
    baseline = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return float(baseline.get("baseline", 0.0)), int(baseline.get("baseline_count", 0))
