"""The sources of answers to train prompts besides the policy: a reference, another model, or the prompts' dataset."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sparring.loop.errors import ConfigError, DataError
from sparring.loop.sampling.options import Source
from sparring.loop.sampling.requests import Answer, Request, completion_of
from sparring.loop.tokens import Template
from sparring.loop.types import Checkpoint, Completion, Prompt, Round, make_id

ROLES = ("reference", "initial", "opponent", "dataset")


def policy_of(source: Source, rnd: Round, models: Mapping[str, Checkpoint]) -> Checkpoint:
    """The checkpoint that answers. For a dataset its id is empty, and its path is that of the policy's tokenizer."""
    if source.of == "dataset":
        return replace(rnd.policy, id="", weights_sha256="")
    if source.of in ROLES:
        checkpoint: Checkpoint = getattr(rnd, source.of)
        return checkpoint
    if source.of not in models:
        raise ConfigError(f"sample.extra names {source.of!r}, which is not a loaded model; choose among {[*models]}")
    return models[source.of]


def source_of(rnd: Round, extra: Sequence[Source], models: Mapping[str, Checkpoint]) -> Source | None:
    """The source of the answers in a view of a round; None for its policy."""
    if rnd.origin == "policy":
        return None
    return next(s for s in extra if policy_of(s, rnd, models).id == rnd.policy.id)


def refuse_missing(prompts: Sequence[Prompt], source: Source) -> None:
    """Raise DataError if a prompt has no answer in its dataset."""
    for prompt in prompts:
        if source.of == "dataset" and not isinstance(prompt.meta.get(source.field), str):
            raise DataError(
                f"a prompt of {prompt.source} has no text in its field {source.field!r} (it has "
                f"{sorted(prompt.meta)}), from which sample.extra takes the dataset's answers; add the field, or name "
                "another one in the option field"
            )


def gold(rnd: Round, prompt: Prompt, source: Source, template: Template) -> Completion:
    """The dataset's answer to a prompt, as a completion that ends with the end token."""
    text = str(prompt.meta[source.field])
    tokens = template.answer_ids(text)
    cause = {"run": rnd.run, "round": rnd.index, "prompt": prompt.id, "origin": rnd.origin, "field": source.field}
    answer, request = Answer(text, tokens, [], "stop"), Request((), 1, 0, temperature=0.0, top_p=1.0, max_tokens=0)
    return replace(completion_of(rnd, prompt, request, 0, answer, 0), id=make_id("completion", **cause))
