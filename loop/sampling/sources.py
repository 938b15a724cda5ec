"""Who answers train prompts beside the policy: a reference, another model, or the dataset that they come from."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sparring.loop.errors import ConfigError, DataError
from sparring.loop.tokens import Template
from sparring.loop.types import Checkpoint, Completion, Prompt, Round, make_id

ROLES = ("reference", "initial", "opponent", "dataset")


@dataclass(frozen=True)
class Source:
    """`of`: reference (the round's), initial, opponent (the policy before), dataset, or a model's folder or hub id.

    SELM (arXiv:2405.19332) asks the reference greedily: `temperature` 0. SPIN (arXiv:2401.01335) takes the answers of
    the dataset, which stand in the prompt's further field `field`. A matrix of models is TSO's (arXiv:2409.02118).
    """

    of: str
    n: int = 1
    temperature: float | None = None  # None: as the policy
    field: str = "response"


def policy_of(source: Source, rnd: Round, models: Mapping[str, Checkpoint]) -> Checkpoint:
    """Whose answers they are. A dataset's have no policy: the id is empty, the path that of the policy's tokenizer."""
    if source.of == "dataset":
        return replace(rnd.policy, id="", weights_sha256="")
    if source.of in ROLES:
        found: Checkpoint = getattr(rnd, source.of)
        return found
    if source.of not in models:
        raise ConfigError(f"sample.extra names {source.of!r}, which is no model that was loaded; there are {[*models]}")
    return models[source.of]


def source_of(rnd: Round, extra: Sequence[Source], models: Mapping[str, Checkpoint]) -> Source | None:
    """The source that a view of a round is about; None: its policy."""
    if rnd.origin == "policy":
        return None
    return next(s for s in extra if policy_of(s, rnd, models).id == rnd.policy.id)


def from_dataset(rnd: Round, prompts: Sequence[Prompt], source: Source, chunk: int) -> Iterator[list[Completion]]:
    """The answers that the prompts came with, as completions, ended by the end token."""
    template = Template.of(rnd.policy.path)
    for start in range(0, len(prompts), chunk):
        yield [_given(rnd, prompt, source, template) for prompt in prompts[start : start + chunk]]


def refuse_missing(prompts: Sequence[Prompt], source: Source) -> None:
    """Raises DataError when a prompt has no answer of its dataset."""
    for prompt in prompts:
        if source.of == "dataset" and not isinstance(prompt.meta.get(source.field), str):
            raise DataError(
                f"a prompt of {prompt.source} has no text in its field {source.field!r} (it has "
                f"{sorted(prompt.meta)}); sample.extra takes the dataset's own answers from there: name another with "
                "field, or add it"
            )


def _given(rnd: Round, prompt: Prompt, source: Source, template: Template) -> Completion:
    text = str(prompt.meta[source.field])
    tokens = [*template.tokenizer.encode(text, add_special_tokens=False), template.tokenizer.eos_token_id]
    cause = {"run": rnd.run, "round": rnd.index, "prompt": prompt.id, "origin": rnd.origin, "field": source.field}
    return Completion(
        id=make_id("completion", **cause),
        run=rnd.run,
        round=rnd.index,
        prompt_id=prompt.id,
        policy_id="",
        sample=0,
        origin=rnd.origin,
        text=text,
        token_ids=array("i", tokens),
        logprobs=array("f"),
        finish_reason="stop",
        temperature=0.0,
        top_p=1.0,
        seed=0,
    )
