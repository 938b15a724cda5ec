"""Conversations in the forms that files have: messages, JSON of messages, plain texts, texts in HH's form."""

import json
import re
from collections.abc import Mapping
from typing import Any

Turns = list[dict[str, str]]
TEXTS = ("content", "response", "text")  # the names that the text of an answer has in an object


def turns_of(value: Any, speaker: str) -> Turns:
    """The turns of a text, a message, or a list of messages, also as JSON. Empty for anything else.

    The role and content of a message are read. A text is one turn of `speaker`.
    """
    if isinstance(value, str):
        return _from_json(value) or [{"role": speaker, "content": value}]
    messages = [value] if isinstance(value, Mapping) else value
    if not isinstance(messages, list) or not all(map(_well_formed, messages)):
        return []
    return [{"role": m["role"], "content": m["content"]} for m in messages]


def _from_json(text: str) -> Turns:
    if not re.match(r"\s*\[\s*\{\s*\"", text):
        return []
    try:
        return turns_of(json.loads(text), "")
    except json.JSONDecodeError:  # a text that begins like JSON
        return []


def _well_formed(message: Any) -> bool:
    return isinstance(message, Mapping) and all(isinstance(message.get(key), str) for key in ("role", "content"))


def prompt_of(value: Any) -> Turns:
    """The turns of a prompt. A text in HH's form ends with the name of the role that answers."""
    if isinstance(value, str) and value.rstrip().endswith("\n\nAssistant:") and (turns := transcript(value)):
        return turns[:-1]
    return turns_of(value, "user")


def transcript(text: str) -> Turns:
    """The turns of a text in HH's form, "\\n\\nHuman: ...\\n\\nAssistant: ...". Empty for any other text."""
    parts = re.split(r"(?:\A\s*|\n\n)(Human|Assistant):", text)
    if parts[0] or len(parts) < 5 or parts[1] != "Human":
        return []
    roles = ["user" if name == "Human" else "assistant" for name in parts[1::2]]
    return [
        {"role": role, "content": content.removeprefix(" ")} for role, content in zip(roles, parts[2::2], strict=True)
    ]


def text_of(answer: Any) -> str | None:
    """The text of an answer, which may be a text, a turn, or an object such as UltraFeedback's."""
    if isinstance(answer, Mapping):
        text = next((answer[key] for key in TEXTS if answer.get(key) is not None), None)
        return text if isinstance(text, str) else None
    turns = turns_of(answer, "assistant")
    return turns[0]["content"] if len(turns) == 1 else None
