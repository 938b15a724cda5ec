"""What operating a run leaves behind: what it was started with, what was decided, stopped, removed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sparring.loop.types.records import Evaluation

Layout = Literal["shared", "separate"]  # of completions, see loop.learning.batches
Head = Literal["positions", "all"]  # see loop.learning.forward
RunKind = Literal["loop", "reward", "evaluate", "import"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided after a round: the run goes on from `policy_id`. The highest number of a round counts."""

    id: str
    run: str
    round: int
    number: int  # 0, 1, ...: a decision may be revised until the next round starts
    kind: Literal["approve", "reject", "rollback"]
    policy_id: str
    reason: str
    decided_by: str


@dataclass(frozen=True, slots=True)
class Stop:
    """A stop rule that ended a run after a round: what it found, and its bound."""

    id: str
    run: str
    round: int
    rule: str
    found: float
    bound: float
    message: str


@dataclass(frozen=True, slots=True)
class Removal:
    """A checkpoint whose files were removed from disk; its id and its hash stay."""

    id: str  # of the checkpoint
    run: str
    reason: str


@dataclass(frozen=True, slots=True)
class QueryInfo:
    """SQL that a run was played with in the place of a part: `plug` is its key in the config."""

    id: str
    run: str
    plug: str
    sql: str
    sql_sha256: str


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What a run was started with; its id is `name` and the first digits of the hash of everything that shapes it."""

    id: str
    name: str
    seed: int
    config: Mapping[str, Any]
    config_sha256: str
    versions: Mapping[str, str]
    kind: RunKind = "loop"


@dataclass(frozen=True, slots=True)
class RunModel:
    """How a run's policy is computed, see loop.learning.forward_choice; `id` is the run's."""

    id: str
    architecture: str
    config_sha256: str
    attention: str
    layout: Layout
    head: Head
    engine: str  # where it samples: this process, a process of its own, or transformers
    date: str  # what chat templates take for today


@dataclass(frozen=True, slots=True)
class Facts:
    """What a stop rule sees of a round. `chosen_ratios`: each step's mean log(policy / reference) of chosen answers."""

    measured: Mapping[str, Evaluation]  # of the candidate, by metric
    initial: Mapping[str, Evaluation]  # of the initial policy
    abstained: float = 0.0  # share of the round's train prompts that the judge left without an answer
    chosen_ratios: Sequence[float] = ()
