"""Prompts tried on the policy's chat template and context before a run, so that a mistake is found at once."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sparring.flows.compose.checkpoints import policy_folder
from sparring.flows.compose.run_model import date_of, rendering_of
from sparring.flows.config import Config
from sparring.loop.errors import ConfigError
from sparring.loop.models import here, resolve_model
from sparring.loop.sampling.folder_facts import positions
from sparring.loop.tokens import RefusedPrompt, Template
from sparring.loop.types import Prompt

if TYPE_CHECKING:
    from sparring.flows.compose.build import Prepared


def check_prompts(template: Template, prompts: Sequence[Prompt]) -> None:
    """Refuse arguments that the template does not read, and prompts of which it takes none."""
    template.refuse_unknown_arguments()
    reasons = (_refusal(template, prompt) for prompt in prompts)
    first = next(reasons, None)
    if first is not None and all(reasons):  # stops at the first that is taken: others get an outcome when sampled
        raise ConfigError(f"all {len(prompts)} prompts are refused, the first: {first}")


def refusals(config: Config, template: Template, prompts: Sequence[Prompt]) -> dict[str, list[int]]:
    """The numbers of the rows that will fail, by reason. Raises ConfigError where all do."""
    check_prompts(template, prompts)
    room = min(config.sample.context, positions(template.folder)) - config.sample.max_tokens
    found: dict[str, list[int]] = {}
    for number, prompt in enumerate(prompts, start=1):
        if why := _refusal(template, prompt, room):
            found.setdefault(why, []).append(number)
    return found


def _refusal(template: Template, prompt: Prompt, room: int | None = None) -> str | None:
    try:
        ids = template.prompt_ids(prompt.messages)
    except RefusedPrompt as error:
        return str(error)
    return None if room is None or len(ids) <= room else f"longer than the {room} tokens that leave room for an answer"


def template_here(ready: "Prepared") -> Template | None:
    """The policy's template; None if the model is on the hub and not on this machine."""
    config, store = ready.config, ready.store
    name = policy_folder(config.policy.model, store)
    if not here(name):
        return None
    return Template.of(str(resolve_model(name)), rendering_of(config, date_of(store, ready.info.id)))
