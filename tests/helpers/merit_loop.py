"""A loop of shipped fakes with a language model as its judge: its answers say their merit to the flaky server."""

from dataclasses import replace

from sparring.judges.llm import LLMJudge
from sparring.loop.evaluator import RivalEvaluator
from sparring.loop.fakes import FakeLearner, FakeSampler
from sparring.loop.pairing.pipeline import pairing
from sparring.loop.parts import Parts
from sparring.loop.types import Completion, Prompt, Round
from sparring.store.store import DuckStore
from tests.helpers.records import HELD_OUT, TRAIN


class Meritorious(FakeSampler):
    """Answers whose merit the server can tell; a trained policy's are better."""

    def _completion(self, rnd: Round, prompt: Prompt, sample: int) -> Completion:
        made = super()._completion(rnd, prompt, sample)
        bonus = 1000 if rnd.policy.id != "checkpoint_initial" else 0
        return replace(made, text=f"merit {bonus + made.seed % 997}")


def parts_of(store: DuckStore, judge: LLMJudge) -> Parts:
    return Parts(
        store, Meritorious({"train": 3, "eval": 2}), judge, pairing("best_worst", judge.read), FakeLearner(),
        RivalEvaluator(read=judge.read, compares=True), tuple(p.id for p in TRAIN), tuple(p.id for p in HELD_OUT),
        per_round=3,
    )  # fmt: skip
