"""What a round makes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sparring.loop.types.ids import make_id

Message = Mapping[str, str]
Split = Literal["train", "eval"]
Origin = Literal["policy", "reference", "dataset", "human"]
JudgementStatus = Literal["answered", "abstained", "unreached"]


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

    @property
    def text(self) -> str:
        """The last message."""
        return self.messages[-1]["content"]


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer, with the exact tokens and the policy's own log-probability of each (temperature 1, before top-p)."""

    id: str
    run: str
    round: int
    prompt_id: str
    policy_id: str  # the checkpoint that wrote it
    sample: int  # 0..n-1 within its group
    origin: Origin
    text: str
    token_ids: Sequence[int]  # includes the end token when finish_reason is "stop"
    logprobs: Sequence[float]  # one a token
    finish_reason: Literal["stop", "length"]
    temperature: float
    top_p: float
    seed: int
    parent_id: str | None = None  # in a tree of answers: the partial answer that this one goes on from
    prompt_tokens_id: str | None = None  # the prompt as the policy was given it
    thought: str | None = None  # what the policy wrote before its answer; `text` is the answer alone

    @property
    def answered(self) -> bool:
        """Whether there is an answer: not when a thought was not closed, or nothing follows it."""
        return self.thought is None or bool(self.text.strip())


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """A prompt as the token ids that a policy was given. Another date or template argument is another rendering."""

    id: str
    prompt_id: str
    token_ids: Sequence[int]

    @classmethod
    def make(cls, prompt_id: str, token_ids: Sequence[int]) -> "PromptTokens":
        return cls(make_id("prompt_tokens", prompt=prompt_id, ids=list(token_ids)), prompt_id, token_ids)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A score of one completion, or P(completion beats rival). `value` None: the judge gave no answer; it is kept.

    `status` is answered where there is a value. Without one it is abstained, or unreached: no reply came at all, so the
    question is open and is asked again.
    """

    id: str
    judge: str
    completion_id: str
    rival_id: str | None  # None: scored alone
    member: str  # which member of an ensemble or panel; "" for a single judge
    principle: str
    order: int  # 0: completion shown first, 1: shown second
    value: float | None
    rationale: str = ""
    status: JudgementStatus = "abstained"  # given only for a judgement without a value

    def __post_init__(self) -> None:
        if (self.value is None) == (self.status == "answered"):
            object.__setattr__(self, "status", "abstained" if self.value is None else "answered")


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


Outcome = Literal["paired", "tie", "identical", "abstained", "filtered", "failed"]


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
class Example:
    """One answer to learn from where learning takes no pairs: answers of a prompt and round make a group.

    `reward` is its score, or for labelled answers 1 (desirable) or 0.
    """

    id: str
    run: str
    round: int
    prompt_id: str
    completion_id: str
    reward: float
    weight: float
    builder: str


@dataclass(frozen=True, slots=True)
class LogProb:
    """log P(completion | prompt) under a checkpoint, in nats: computed once, cached by content."""

    id: str
    completion_id: str
    weights_sha256: str
    value: float  # the sum over tokens
    n_tokens: int
    token_logprobs: Sequence[float]  # float32, one a token


@dataclass(frozen=True, slots=True)
class Divergence:
    """KL(policy || reference) along one answer at temperature 1, in nats: over the vocabulary at each of its tokens."""

    id: str
    completion_id: str
    weights_sha256: str
    reference_sha256: str
    value: float  # the sum over tokens
    n_tokens: int

    @classmethod
    def make(cls, completion_id: str, weights: str, reference: str, value: float, n_tokens: int) -> "Divergence":
        cause = make_id("divergence", completion=completion_id, weights=weights, reference=reference)
        return cls(cause, completion_id, weights, reference, value, n_tokens)


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
    reference_ids: Sequence[str] = ()  # the checkpoints it compared with, in the order of its config


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
