"""A loop of shipped fakes that does as the files of a folder say, for tests/flows/deployment/test_scheduled.py.

`policy.model` names the folder: while a file `wait` is in it, sampling a train prompt waits, beside a child process
whose id is in the file `child`; while a file `fail` is in it, sampling raises.
"""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sparring.flows.compose.build import Loop
from sparring.flows.config import Config
from sparring.flows.supervise.run_lock import lock_run
from sparring.loop.errors import StepError
from sparring.loop.evaluator import RivalEvaluator
from sparring.loop.fakes import FakeJudge, FakeLearner, FakeSampler
from sparring.loop.pairing.pipeline import pairing
from sparring.loop.parts import Parts
from sparring.loop.round import round_zero
from sparring.loop.types import Checkpoint, Completion, Prompt, PromptOutcome, Round, RunInfo
from sparring.store.store import DuckStore
from tests.helpers.fake_loop import prompts


class ScriptedSampler(FakeSampler):
    """Waits or fails as the files of a folder say, after its first chunk of a round."""

    def __init__(self, folder: Path) -> None:
        super().__init__({"train": 4, "eval": 1})
        self.folder = folder
        self.child: subprocess.Popen[bytes] | None = None

    def sample(self, rnd: Round, prompts: Sequence[Prompt]) -> Iterator[list[Completion | PromptOutcome]]:
        for chunk in super().sample(rnd, prompts):
            yield chunk
            if rnd.split == "train":
                self._as_told()

    def _as_told(self) -> None:
        if (self.folder / "fail").exists():
            raise StepError("the sampler was told to fail; remove the file to go on")
        if (self.folder / "wait").exists():
            self.child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
            (self.folder / "child.new").write_text(str(self.child.pid))
            (self.folder / "child.new").rename(self.folder / "child")
            while (self.folder / "wait").exists():
                time.sleep(0.05)
            self.close()

    def close(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child.wait()
            self.child = None


def make(config: Config) -> Loop:
    folder = Path(config.policy.model)
    store = DuckStore(config.store)
    info = RunInfo(f"{config.name}-00000000", config.name, config.seed, config.resolved(), "", {})
    lock = lock_run(store.db.path.parent / "runs" / info.id)
    train, held_out = prompts("train", 4), prompts("eval", 2)
    sampler = ScriptedSampler(folder)
    parts = Parts(
        store,
        sampler,
        FakeJudge(),
        pairing("best_worst"),
        FakeLearner(),
        RivalEvaluator(gate=None),
        tuple(p.id for p in train),
        tuple(p.id for p in held_out),
        per_round=2,
    )
    initial = Checkpoint("checkpoint_0", info.id, "/nowhere", None, "0" * 64)
    store.add([[info, initial, *train, *held_out]])

    def close() -> None:
        sampler.close()
        lock.release()

    start = store.last_round(info.id) or round_zero(info.id, initial)
    return Loop(info, config, parts, start, lambda: None, close)


def config(name: str, folder: Path, **changes: Any) -> Config:
    values = {"name": name, "store": f"{name}.duckdb", "policy": {"model": str(folder / name)}, **changes}
    return Config.model_validate(values | {"prompts": {"train": "none", "eval": "none"}})
