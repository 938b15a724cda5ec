"""What a step is given: not stored as such, made from the store. (A round that is played is stored, too.)"""

from dataclasses import dataclass

from sparring.loop.types.ids import make_id
from sparring.loop.types.records import Checkpoint, Completion, Judgement, Origin, Prompt, Split


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
    origin: Origin = "policy"  # which of its completions a step is about
    judge: str | None = None  # whose answers it is paired by; None until it begins, or where nobody noted it

    @property
    def id(self) -> str:
        return make_id("round", run=self.run, round=self.index)

    @property
    def policy_id(self) -> str:
        return self.policy.id


@dataclass(frozen=True, slots=True)
class Answers:
    """Which completions are asked for, where no round is played: those of a policy to the prompts of one round."""

    run: str
    index: int
    policy_id: str
    prompt_ids: tuple[str, ...]
    split: Split
    origin: Origin = "policy"


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
