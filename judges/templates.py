"""Prompts of judges: files rendered in a sandbox, with the answers quoted so that they cannot instruct the judge."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sparring.loop.errors import ConfigError
from sparring.loop.types import Message, digest

FOLDER = Path(__file__).parent / "prompts"

# Texts that a tokenizer may read as a special token: <|im_end|>, </s>, <start_of_turn>, <<SYS>>, [INST], [gMASK], ...
# The first character is written as its escape, which means the same in JSON and is a special token to no tokenizer.
SPECIAL = re.compile(r"[<\uff1c](?=[|\uff5c]|/?[^\s<>]{1,64}>)|\[(?=/?[A-Za-z_]*[A-Z_]{3,}\])")
# Characters that JSON does not escape, though they end a line, change its direction, are invisible or are half ones.
UNSEEN = re.compile(
    "[\x7f-\x9f\u200b\u2028\u2029\u202a-\u202e\u2060\u2066-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)


def quote(value: Any) -> str:
    """The value as one line of JSON that no text in it can end and in which no text is a special token."""
    literal = SPECIAL.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))
    return UNSEEN.sub(lambda found: json.dumps(found[0])[1:-1], literal)


def quoted(messages: Sequence[Message], **answers: str) -> dict[str, Any]:
    """The variables of a prompt for a conversation and its answers, each quoted.

    `nonce` marks where they begin and end. It is a digest of all of them, so none of them can contain it.
    """
    conversation = [quote(dict(message)) for message in messages]
    shown = {name: quote(text) for name, text in answers.items()}
    return {"conversation": conversation, "nonce": digest([conversation, shown], 6), **shown}


def read_yaml(what: str, path: Path) -> Any:
    """Raises ConfigError for a file that cannot be read, or holds no YAML."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{what} in {path} cannot be read: {error}; give a YAML file") from error


class PromptFile:
    """A Jinja template, by the name of a shipped one or a path. It must use the variables `shows`.

    It is rendered in jinja2's sandbox: it cannot read other files or private attributes, and an undefined variable is
    an error. Raises ConfigError for a file that is missing, is not a template, or leaves out a variable of `shows`.
    """

    def __init__(self, name: str, shows: Sequence[str]) -> None:
        from jinja2 import StrictUndefined, TemplateError, meta
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        self.path = FOLDER / f"{name}.jinja" if (FOLDER / f"{name}.jinja").exists() else Path(name).expanduser()
        try:
            source = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            ours = ", ".join(sorted(path.stem for path in FOLDER.glob("*.jinja")))
            raise ConfigError(f"prompt {name!r} cannot be read ({error}); give a file, or one of {ours}") from error
        self.digest = digest(source)
        environment = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True
        )
        try:
            used = meta.find_undeclared_variables(environment.parse(source))
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise ConfigError(f"{self.path} is not a Jinja template: {error}; correct it") from error
        if unused := sorted(set(shows) - used):
            raise ConfigError(f"{self.path} never shows {', '.join(unused)}; add {{{{ {unused[0]} }}}} to it")

    def render(self, variables: Mapping[str, Any]) -> str:
        """The text for these variables. Raises ConfigError if the template uses another variable, or fails."""
        from jinja2 import TemplateError

        try:
            return self._template.render(variables).strip()
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise ConfigError(
                f"{self.path} cannot be rendered: {error}; it may use {', '.join(sorted(variables))}"
            ) from error
