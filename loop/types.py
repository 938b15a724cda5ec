"""The records a loop makes, in the order a round makes them.

    Prompt -> Completion -> Judgement -> Pair -> Update -> Checkpoint -> Evaluation

Records are frozen and name their causes by id, so any row can be walked back to its prompt, and making a thing twice
gives one row. Standard library only: this module imports in milliseconds.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Message = Mapping[str, str]
Split = Literal["train", "eval"]


def digest(value: Any, size: int = 10) -> str:
    """Hex digest of a JSON value, independent of key order."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(canonical.encode(), digest_size=size).hexdigest()


def make_id(kind: str, **cause: Any) -> str:
    """Name a record by what caused it: making it twice gives one id."""
    return f"{kind}_{digest(cause)}"


def derive_seed(*cause: Any) -> int:
    """A 31-bit seed from its causes, the same in every process and on every machine."""
    return int(digest(list(cause), size=4), 16) >> 1


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked. `meta` holds the further fields of its row: reference answer, instruction ids, ..."""

    id: str
    messages: tuple[Message, ...]
    split: Split = "train"
    source: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def make(cls, messages: Sequence[Message], split: Split, source: str, meta: Mapping[str, Any]) -> "Prompt":
        # The split is part of the id, so an eval prompt can never pass for a train prompt; so is meta, because another
        # reference answer is another question to the judge.
        rows = tuple(dict(m) for m in messages)
        return cls(make_id("prompt", messages=rows, split=split, meta=meta), rows, split, source, meta)


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer, with the exact tokens and the policy's own log-probability of each (temperature 1, before top-p)."""

    id: str
    run: str
    round: int
    prompt_id: str
    policy_id: str  # the checkpoint that wrote it
    sample: int  # 0..n-1 within its group
    origin: Literal["policy", "reference", "dataset", "human"]
    text: str
    token_ids: Sequence[int]  # includes the end token when finish_reason is "stop"
    logprobs: Sequence[float]  # one a token
    finish_reason: Literal["stop", "length"]
    temperature: float
    top_p: float
    seed: int


@dataclass(frozen=True, slots=True)
class Judgement:
    """A score of one completion, or P(completion beats rival). `value` None: the judge gave no answer; it is kept."""

    id: str
    judge: str
    completion_id: str
    rival_id: str | None  # None: scored alone
    member: str  # which member of an ensemble or panel; "" for a single judge
    principle: str
    order: int  # 0: completion shown first, 1: shown second
    value: float | None
    rationale: str = ""


@dataclass(frozen=True, slots=True)
class JudgeInfo:
    """What a judge's name stands for. The weights are those of the models that it runs itself."""

    id: str  # its name
    kind: str
    options: Mapping[str, Any]
    weights_sha256: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class JudgeCall:
    """One call of a model that judges: what it cost, and what came back. A judgement may have taken several."""

    id: str
    judge: str
    judgement_id: str
    attempt: int  # 1, 2, ... within one asking
    model: str
    reply: str | None  # the raw text; None: nothing came back
    error: str  # "" when the reply could be used
    prompt_tokens: int | None
    completion_tokens: int | None
    cost: float | None  # in the currency of the config's prices; None where no price is given
    seconds: float


Outcome = Literal["paired", "tie", "identical", "abstained", "failed"]


@dataclass(frozen=True, slots=True)
class PromptOutcome:
    """What became of a prompt in a round, one each: prompts = paired + tie + identical + abstained + failed."""

    id: str
    run: str
    round: int
    prompt_id: str
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """A preference. `p_chosen` is the target probability that chosen is better, `margin` the score difference."""

    id: str
    run: str
    round: int
    prompt_id: str
    chosen_id: str
    rejected_id: str
    p_chosen: float
    margin: float
    weight: float
    builder: str
    reference_sample_id: str | None = None


@dataclass(frozen=True, slots=True)
class LogProb:
    """log P(completion | prompt) under a checkpoint, summed over its tokens: computed once, cached by content."""

    id: str
    completion_id: str
    weights_sha256: str
    value: float
    n_tokens: int


@dataclass(frozen=True, slots=True)
class Update:
    """One step of learning: from checkpoint `before_id` to checkpoint `after_id`."""

    id: str
    run: str
    round: int
    algorithm: str
    before_id: str
    after_id: str
    n_examples: int
    seconds: float
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class UpdatePair:
    """A pair that an update learned from, where that is not simply the pairs of its own run and round."""

    id: str
    update_id: str
    pair_id: str


@dataclass(frozen=True, slots=True)
class UpdateStep:
    """The metrics of one optimizer step of an update."""

    id: str
    update_id: str
    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights on disk, in safetensors, named by their hash."""

    id: str
    run: str
    path: str
    parent_id: str | None
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One metric of a candidate, measured on held-out prompts, with a 95 % interval where it has one."""

    id: str
    run: str
    round: int
    candidate_id: str
    rival_id: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int


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
class Round:
    """Where a round starts. Everything else about it is in the store."""

    run: str
    index: int  # 0 measures the initial policy; 1, 2, ... are played
    policy: Checkpoint
    opponent: Checkpoint  # the policy before this one
    reference: Checkpoint
    initial: Checkpoint
    prompt_ids: tuple[str, ...]  # the prompts it plays, in order
    split: Split = "train"

    @property
    def id(self) -> str:
        return make_id("round", run=self.run, round=self.index)


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What a run was started with; its id is `name` and the first digits of the hash of everything that shapes it."""

    id: str
    name: str
    seed: int
    config: Mapping[str, Any]
    config_sha256: str
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Group:
    """One prompt with its completions: what a judge looks at."""

    prompt: Prompt
    completions: tuple[Completion, ...]
    rivals: tuple[Completion, ...] = ()  # another policy's, which a judge of pairs compares with instead
    judged: tuple[Judgement, ...] = ()  # what this judge has said of them already


@dataclass(frozen=True, slots=True)
class Experience:
    """What a round has gathered for one policy: groups, and what the judge said of them."""

    groups: tuple[Group, ...]
    judgements: tuple[Judgement, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a stop rule sees of a round. `chosen_ratios`: each step's mean log(policy / reference) of chosen answers."""

    measured: Mapping[str, Evaluation]  # of the candidate, by metric
    initial: Mapping[str, Evaluation]  # of the initial policy
    abstained: float = 0.0  # share of the round's train prompts that the judge left without an answer
    chosen_ratios: Sequence[float] = ()


Record = (
    Prompt
    | Completion
    | Judgement
    | JudgeInfo
    | JudgeCall
    | PromptOutcome
    | Pair
    | LogProb
    | Update
    | UpdateStep
    | UpdatePair
    | Checkpoint
    | Evaluation
    | Decision
    | Stop
    | Removal
    | Round
    | RunInfo
)
