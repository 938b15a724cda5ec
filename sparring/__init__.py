"""sparring: an online self-play alignment loop for language models.

    import sparring

    config = sparring.read_config("loop.yaml")        # or sparring.Config(name=..., policy=..., prompts=..., judge=...)
    result = sparring.run(config)                      # rounds of sample, judge, pair, learn, evaluate
    result.sql("FROM round_summary").polars()          # everything that was made is rows of a store

Importing this loads nothing heavy: a name is imported when it is first used. See docs/python.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparring.api import RunResult, open_store, read_config, run
    from sparring.flows.config import Config
    from sparring.loop.errors import SparError
    from sparring.loop.fakes import FakeJudge, FakeLearner, FakeSampler
    from sparring.loop.learning.losses import Groups, Logps
    from sparring.loop.pairing import Candidates, Choice, Pick, Unpaired
    from sparring.loop.parts import Evaluator, Judge, Learner, Sampler, Store
    from sparring.loop.traits import builder, filter, judge, loss
    from sparring.loop.types import Checkpoint, Completion, Evaluation, Judgement, Pair, Prompt

_MODULES = {
    "sparring.api": ("RunResult", "open_store", "read_config", "run"),
    "sparring.flows.config": ("Config",),
    "sparring.loop.errors": ("SparError",),
    "sparring.loop.fakes": ("FakeJudge", "FakeLearner", "FakeSampler"),
    "sparring.loop.learning.losses": ("Groups", "Logps"),
    "sparring.loop.pairing": ("Candidates", "Choice", "Pick", "Unpaired"),
    "sparring.loop.parts": ("Evaluator", "Judge", "Learner", "Sampler", "Store"),
    "sparring.loop.traits": ("builder", "filter", "judge", "loss"),
    "sparring.loop.types": ("Checkpoint", "Completion", "Evaluation", "Judgement", "Pair", "Prompt"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [*_MODULE_OF]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'sparring' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
