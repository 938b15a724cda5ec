"""The columns that trainers read: of pairs, labels, groups and comparisons, in the styles of three libraries.

In the SQL, `p` is the prompt with its `messages`, `c` the answer or the chosen answer, `r` the rejected answer.
"""

from collections.abc import Mapping
from typing import Literal

What = Literal["pairs", "groups", "labels", "comparisons"]
Style = Literal["trl", "openrlhf", "axolotl"]
Text = Literal["chat", "plain"]


def _message(text: str) -> str:
    return f"{{'role': 'assistant', 'content': {text}}}"


TEXT, CHOSEN, REJECTED = _message("c.text"), _message("c.text"), _message("r.text")
CHAT: Mapping[tuple[What, Style], str] = {
    ("pairs", "trl"): f"p.messages AS prompt, [{CHOSEN}] AS chosen, [{REJECTED}] AS rejected",
    ("pairs", "openrlhf"): f"""list_append(p.messages, {CHOSEN}) AS chosen,
        list_append(p.messages, {REJECTED}) AS rejected""",
    ("pairs", "axolotl"): f"p.messages, {CHOSEN} AS chosen, {REJECTED} AS rejected",
    ("labels", "trl"): f"p.messages AS prompt, [{TEXT}] AS completion",
    ("labels", "openrlhf"): f"list_append(p.messages, {TEXT}) AS completion",
    ("groups", "trl"): f"p.messages AS prompt, list_transform(texts, lambda t: [{_message('t')}]) AS completions",
    ("comparisons", "trl"): "p.messages",
}
PLAIN: Mapping[What, str] = {
    "pairs": "p.messages[1].content AS prompt, c.text AS chosen, r.text AS rejected",
    "labels": "p.messages[1].content AS prompt, c.text AS completion",
    "groups": "p.messages[1].content AS prompt, texts AS completions",
    "comparisons": "p.messages[1].content AS prompt",
}


def unfit(what: What, style: Style, text: Text) -> str | None:
    """Why there is no such style, or None."""
    if text == "plain" or (what, style) in CHAT:
        return None
    have = [each for kind, each in CHAT if kind == what]
    return f"there are no {what} in the style {style} as chat; give --style {' or '.join(have)}, or --text plain"
