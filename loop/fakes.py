"""Parts without a model. They play a whole loop in milliseconds, for tests and for trying out a store or a flow.

Their output is a pure function of its causes, as it is for the real parts.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from sparring.loop.judgements import Pointwise, unjudged
from sparring.loop.types import (
    Checkpoint,
    Completion,
    Divergence,
    Group,
    Judgement,
    LogProb,
    Prompt,
    PromptOutcome,
    Round,
    Split,
    Update,
    UpdateStep,
    derive_seed,
    digest,
    make_id,
)


class FakeSampler:
    """Writes `n` answers per prompt, one prompt per chunk. Their length depends on the seed and the policy."""

    def __init__(self, n: dict[Split, int], *, seed: int = 0) -> None:
        self.n, self.seed = n, seed

    def sources(self, rnd: Round) -> list[Round]:
        return []

    def sample(self, rnd: Round, prompts: Sequence[Prompt]) -> Iterator[list[Completion | PromptOutcome]]:
        for prompt in prompts:
            yield [self._completion(rnd, prompt, k) for k in range(self.n[rnd.split])]

    def sleep(self) -> None:
        pass

    def _completion(self, rnd: Round, prompt: Prompt, sample: int) -> Completion:
        seed = derive_seed(self.seed, rnd.index, prompt.id, sample, rnd.policy.weights_sha256)
        text = "x" * (1 + seed % 7)
        cause = {"run": rnd.run, "round": rnd.index, "policy": rnd.policy.id, "prompt": prompt.id, "sample": sample}
        tokens, logprobs = [*text.encode(), 0], [-0.5] * (len(text) + 1)
        names = (make_id("completion", **cause), rnd.run, rnd.index, prompt.id, rnd.policy.id, sample)
        return Completion(*names, "policy", text, tokens, logprobs, "stop", 1.0, 1.0, seed)


class FakeJudge(Pointwise):
    """Scores longer answers higher, up to 1.0, and texts of length `silent_at` not at all. One prompt per chunk."""

    name = "fake"

    def __init__(self, *, silent_at: int | None = None) -> None:
        self.silent_at = silent_at

    def judge(self, groups: Sequence[Group]) -> Iterator[list[Judgement]]:
        for group in groups:
            yield [self._judgement(c) for c in unjudged(group)]

    def _judgement(self, c: Completion) -> Judgement:
        value = None if len(c.text) == self.silent_at else min(1.0, len(c.text) / 6)
        return Judgement(make_id("judgement", judge=self.name, of=c.id), self.name, c.id, None, "", "", 0, value)


class FakeLearner:
    """Hashes the old weights and the training rows to new weights, and writes nothing to disk."""

    def anchor(self, rnd: Round) -> Checkpoint:
        return rnd.policy

    def references(self, rnd: Round) -> list[Checkpoint]:
        return [rnd.reference]

    def score(self, checkpoint: Checkpoint, rows: Any) -> Iterator[list[LogProb]]:
        weights = checkpoint.weights_sha256
        for row in rows.to_pylist():
            for answer, tokens, known in zip(row["completion_ids"], row["token_ids"], row["reference"][0], strict=True):
                if known is None:
                    logprob_id, n = make_id("logprob", weights=weights, completion=answer), len(tokens)
                    yield [LogProb(logprob_id, answer, weights, -float(n), n, [-1.0] * n)]

    def diverge(self, policy: Checkpoint, reference: Checkpoint, rows: Any) -> Iterator[list[Divergence]]:
        weights = policy.weights_sha256, reference.weights_sha256
        for row in (row for row in rows.to_pylist() if row["divergence"] is None):
            (answer,), (tokens,) = row["completion_ids"], row["token_ids"]
            yield [Divergence.make(answer, *weights, len(tokens) / 2, len(tokens))]

    def learn(self, rnd: Round, training_rows: Any) -> tuple[Checkpoint, Update, list[UpdateStep]]:
        seen = digest([rnd.policy.weights_sha256, training_rows.select(["row_id", "reference"]).to_pylist()])
        weights = hashlib.sha256(seen.encode()).hexdigest()
        cause = {"run": rnd.run, "round": rnd.index, "policy": rnd.policy.id}
        candidate = Checkpoint(make_id("checkpoint", **cause), rnd.run, f"/nowhere/{seen}", rnd.policy.id, weights)
        update_id = make_id("update", **cause)
        metrics = {"loss": 0.5, "accuracy": 1.0}
        names = (rnd.run, rnd.index, "fake", rnd.policy.id, candidate.id)
        update = Update(update_id, *names, training_rows.num_rows, 0.0, metrics, [rnd.reference.id])
        return candidate, update, [UpdateStep(make_id("update_step", update=update_id, step=1), update_id, 1, metrics)]
