"""The check of a config's policy: what it is, how it is computed, and what it cannot do."""

from pathlib import Path
from typing import Any

from sparring.flows.compose.checkpoints import model_checkpoint, policy_folder
from sparring.flows.compose.run_model import decided, rendering_of
from sparring.flows.config import Config, read_config
from sparring.loop.errors import SparError
from sparring.store.maintenance.finding import Finding
from sparring.store.store import DuckStore

_ENGINES = {"this process": "vLLM in this process", "a process of its own": "vLLM in a process of its own"}
LAYOUTS = {
    "shared": "a prompt is computed once with all its completions",
    "separate": "one completion per row, because some layers do not honour a mask",
}


def examine(path: Path, changes: tuple[str, ...] = ()) -> list[Finding]:
    """Load the policy of a config and confirm how it is computed. A policy that is not supported is a finding."""
    try:
        config = read_config(path, list(changes))
        folder = _folder(config)
        return [_model(folder, config), *_tokens(folder, config)]
    except SparError as error:
        return [Finding("policy", False, str(error), "choose another policy.model, or change what the message names")]


def _folder(config: Config) -> Path:
    from sparring.loop.models import resolve_model

    return resolve_model(policy_folder(config.policy.model, DuckStore(config.store)))


def _model(folder: Path, config: Config) -> Finding:
    how = decided("", model_checkpoint("", str(folder)), config, "")
    head = "" if how.head == "positions" else "; the whole row is projected to the vocabulary"
    return Finding(
        "policy",
        True,
        f"{how.architecture} in {folder}: {how.attention} attention; {LAYOUTS[how.layout]}{head}; log-probs equal its "
        f"own forward; samples with {_ENGINES.get(how.engine, how.engine)}",
    )


def _tokens(folder: Path, config: Config) -> list[Finding]:
    from sparring.loop.sampling.folder_facts import UNLIMITED, positions, unknown_ids
    from sparring.loop.tokens import Template

    template = Template.of(str(folder), rendering_of(config, ""))
    template.refuse_unknown_arguments()
    most, room = positions(str(folder)), config.sample.context
    has = "any number" if most == UNLIMITED else str(most)
    context = f"{min(most, room)} tokens for a prompt and its answer (sample.context {room}, the model takes {has})"
    fits = config.sample.max_tokens < min(most, room)
    padded = len(unknown_ids(str(folder)))
    never = f"; {padded} ids that the tokenizer cannot read are never sampled" if padded else ""
    thinks = f"; thoughts stand between {' and '.join(template.marks)}" if template.marks else ""
    return [
        Finding("context", fits, context, f"lower sample.max_tokens ({config.sample.max_tokens}) below it"),
        Finding("tokens", True, f"an answer ends with {_names(template)}{thinks}{never}"),
    ]


def _names(template: Any) -> str:
    return ", ".join(repr(template.tokenizer.convert_ids_to_tokens(i)) for i in sorted(template.end_ids))
