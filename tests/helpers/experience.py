"""What a round gathered, from a few words: prompts with the texts and scores of their answers."""

from collections.abc import Mapping, Sequence

from sparring.loop.types import Checkpoint, Completion, Experience, Group, Judgement, Prompt, Round

POLICY = Checkpoint("checkpoint_policy", "run", "/nowhere", None, "0" * 64)
ROUND = Round("run", 3, POLICY, POLICY, POLICY, POLICY, ())


def completion(prompt: str, sample: int, text: str, policy: str = POLICY.id) -> Completion:
    """An answer of one token a letter, each at -0.5 nats; one that ends in '...' was cut off."""
    cut = text.endswith("...")
    return Completion(
        id=f"{policy}/{prompt}/{sample}",
        run="run",
        round=3,
        prompt_id=prompt,
        policy_id=policy,
        sample=sample,
        origin="policy",
        text=text,
        token_ids=[0] * len(text),
        logprobs=[-0.5] * len(text),
        finish_reason="length" if cut else "stop",
        temperature=1.0,
        top_p=1.0,
        seed=0,
    )


def judgement(of: Completion, value: float | None, principle: str = "", rival: str | None = None) -> Judgement:
    return Judgement(f"{of.id}/{principle}/{rival}", "judge", of.id, rival, "", principle, 0, value)


def experience(answers: Mapping[str, Sequence[tuple[str, float | None]]], policy: str = POLICY.id) -> Experience:
    """`answers` maps a prompt to the (text, score) of each of its completions; None: the judge gave no answer."""
    groups, judgements = [], []
    for prompt, given in answers.items():
        completions = [completion(prompt, i, text, policy) for i, (text, _) in enumerate(given)]
        groups.append(Group(Prompt(prompt, ({"role": "user", "content": prompt},)), tuple(completions)))
        judgements += [judgement(c, score) for c, (_, score) in zip(completions, given, strict=True)]
    return Experience(tuple(groups), tuple(judgements))
