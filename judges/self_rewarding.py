"""The policy as its own judge (Self-Rewarding Language Models, arXiv:2401.10020)."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from sparring.judges.inner import Inner
from sparring.judges.llm import LLMJudge
from sparring.judges.llm_client import LLMClient
from sparring.judges.templates import PromptFile
from sparring.loop import traits
from sparring.loop.judgements import Pointwise, score_id, unjudged
from sparring.loop.types import Completion, Group, JudgeCall, Judgement, digest

SCALE = (0, 5)
START = ""  # the id for the policy that a run starts from


@traits.judge(
    canaries=True,
    asks_policies=True,
    cannot_measure="a policy must not measure itself",
    cannot_join={"active": "its oracle sees two answers of a prompt, and may not see who the policy is"},
)
class SelfJudge(Pointwise):
    """Scores each completion alone: 0 to 5 additive points in JSON with a rationale, in one greedy answer.

    A completion is judged by the policy that wrote it. A completion from another source is judged by the newest policy
    that answered the prompt. If no policy answered it, there is no answer. `member` of a judgement is the checkpoint
    that judged, because the judge's name stands for its options only.

    `client_of` returns the client for a policy by its id or START. The client's model is the checkpoint's id. `prompt`
    is the path of your own template for the same scale (see judges.templates). The paper takes the mean of several
    sampled verdicts; this judge takes the greedy one. `start` is the policy that a run starts from, as a judge with its
    own name, for canary tests. Raises ConfigError for an option out of range.
    """

    def __init__(
        self, client_of: Callable[[str], LLMClient], *, prompt: str = "additive", max_tokens: int = 512
    ) -> None:
        self._client_of, self._prompt, self._max_tokens = client_of, prompt, max_tokens
        self.start = self._of(START)
        shown = PromptFile(prompt, ("conversation", "answer")).digest
        self.name = f"self-{digest([shown, SCALE, max_tokens])}"

    def judge(self, groups: Sequence[Group]) -> Iterator[list[Judgement | JudgeCall]]:
        """One policy after another."""
        by_policy: dict[str, list[Group]] = defaultdict(list)
        for group in groups:
            for completion in unjudged(group):
                policy = _who(completion, group)
                if policy is None:
                    yield [self._unasked(completion)]
                else:
                    by_policy[policy].append(replace(group, completions=(completion,)))
        for policy, own in by_policy.items():
            yield from Inner(self._of(policy), self.name, policy).ask(own)

    def _of(self, policy: str) -> LLMJudge:
        client = self._client_of(policy)
        return LLMJudge(client, form="pointwise", prompt=self._prompt, scale=SCALE, max_tokens=self._max_tokens)

    def _unasked(self, completion: Completion) -> Judgement:
        row_id = score_id(self.name, completion)
        why = "no policy answered this prompt, so there is none to judge"
        return Judgement(row_id, self.name, completion.id, None, "", "", 0, None, why)


def _who(completion: Completion, group: Group) -> str | None:
    """The id of the policy that judges a completion; None: there is none."""
    if completion.origin == "policy":
        return completion.policy_id
    policies = [c for c in group.completions if c.origin == "policy"]
    return max(policies, key=lambda c: c.round).policy_id if policies else None
