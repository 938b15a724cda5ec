"""A loop to operate: shipped fakes in a real store, checkpoints that take room on disk, answers as scripted."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sparring.flows.compose.build import Loop
from sparring.flows.config import Config, parse_config
from sparring.loop.evaluator import RivalEvaluator
from sparring.loop.fakes import FakeJudge, FakeLearner, FakeSampler
from sparring.loop.pairing.pipeline import pairing
from sparring.loop.parts import Parts
from sparring.loop.round import round_zero
from sparring.loop.types import Checkpoint, Completion, Group, Prompt, Round, RunInfo, Update, UpdateStep
from sparring.store.store import DuckStore
from tests.helpers.fake_loop import prompts

CONFIG = {"name": "night", "rounds": 3, "policy": {"model": "none"}, "prompts": {"train": "none", "eval": "none"}}
RUN = "night-00000000"
INITIAL = Checkpoint("checkpoint_0", RUN, "/", None, "0" * 64)  # a folder that is there
MEBIBYTE = 2**20

Length = Callable[[Round, int], int]


class Scripted(FakeSampler):
    """Held-out answers are as long as `length` says of the round and the prompt's number; train answers are drawn."""

    def __init__(self, length: Length | None = None) -> None:
        super().__init__({"train": 4, "eval": 1})
        self.length = length

    def sample(self, rnd: Round, prompts: Sequence[Prompt]) -> Any:
        yield [made for chunk in super().sample(rnd, prompts) for made in chunk]

    def _completion(self, rnd: Round, prompt: Prompt, sample: int) -> Completion:
        made = super()._completion(rnd, prompt, sample)
        if self.length is None or rnd.split == "train":
            return made
        text = "x" * self.length(rnd, int(prompt.messages[0]["content"].split()[-1]))
        return replace(made, text=text, token_ids=[*text.encode(), 0], logprobs=[-0.5] * (len(text) + 1))


class Dying(FakeJudge):
    """Gives no answer to `share` of the prompts from round `since` on."""

    def __init__(self, since: int = 0, share: float = 0.0) -> None:
        super().__init__()
        self.since, self.share = since, share

    def judge(self, groups: Sequence[Group]) -> Any:
        made = []
        for i, chunk in enumerate(super().judge(groups)):
            silent = groups[i].completions[0].round >= self.since and i < self.share * len(groups)
            made += [replace(j, value=None) if silent else j for j in chunk]
        yield made


class WritingLearner(FakeLearner):
    """Writes each checkpoint as a folder with a file of `size` bytes; reports how far log P(chosen) fell."""

    def __init__(self, folder: Path, size: int = 1024, fall: float = 0.0) -> None:
        self.folder, self.size, self.fall = folder, size, fall

    def score(self, checkpoint: Checkpoint, rows: Any) -> Any:
        yield [made for chunk in super().score(checkpoint, rows) for made in chunk]

    def diverge(self, policy: Checkpoint, reference: Checkpoint, rows: Any) -> Any:
        yield [made for chunk in super().diverge(policy, reference, rows) for made in chunk]

    def learn(self, rnd: Round, pairs: Any) -> tuple[Checkpoint, Update, list[UpdateStep]]:
        candidate, update, steps = super().learn(rnd, pairs)
        path = self.folder / f"round-{rnd.index:04d}"
        path.mkdir(parents=True, exist_ok=True)
        (path / "model.safetensors").write_bytes(candidate.weights_sha256.encode() * (self.size // 64))
        metrics = {"loss": 0.5, "accuracy": 1.0, "chosen_ratio": -self.fall}
        return replace(candidate, path=str(path)), update, [replace(s, metrics=metrics) for s in steps]


def config(**changes: Any) -> Config:
    return parse_config(CONFIG | changes, "test")


def make_loop(
    folder: Path,
    *,
    sampler: FakeSampler | None = None,
    judge: FakeJudge | None = None,
    learner: FakeLearner | None = None,
    gate: float | None = None,
    store: DuckStore | None = None,
    **changes: Any,
) -> Loop:
    """As flows.compose.build.build makes it, from what the store has."""
    store = store or DuckStore(folder / "preferences.duckdb")
    train, held_out = prompts("train", 6), prompts("eval", 8)
    judge = judge or Dying()
    parts = Parts(
        store,
        sampler or Scripted(),
        judge,
        pairing("best_worst", judge.read),
        learner or WritingLearner(folder / "runs" / RUN),
        RivalEvaluator(gate=gate),
        tuple(p.id for p in train),
        tuple(p.id for p in held_out),
        per_round=4,
        max_abstain=1.0,
    )
    info = RunInfo(RUN, "night", 0, config(**changes).resolved() | {"folder": str(folder)}, "", {})
    store.add([[info, INITIAL, *train, *held_out]])
    start = store.last_round(RUN) or round_zero(RUN, INITIAL)
    return Loop(info, config(**changes), parts, start, lambda: None, lambda: None)
