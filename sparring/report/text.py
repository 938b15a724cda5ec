"""Texts as a page shows them: captions, intervals, and visible codes for characters that a browser or XML rejects."""

import re
from collections.abc import Mapping
from typing import Any

from sparring.loop import formatting
from sparring.loop.formatting import PERCENT, percent, significant

# C0 and C1 controls except tab and newline, the byte order mark, and noncharacters. XML forbids most of them, and HTML
# does not show them.
HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ufdd0-\ufdef\ufffe\uffff]")

NONE = "\N{EN DASH}"


def visible(text: str) -> str:
    """The text with control characters as codes, ⟨U+0007⟩, and without carriage returns before newlines."""
    return HIDDEN.sub(_code, text.replace("\r\n", "\n"))


def interval(row: Mapping[str, Any] | None, unit: str = "number") -> str:
    """The value of a row with its 95 % interval: 62.5 % [47.0, 75.8]."""
    if row is None or row["value"] is None:
        return NONE
    return formatting.interval(row["value"], row["low"], row["high"], percent if unit == "percent" else significant)


def counted(numbers: list[int], what: str) -> str:
    """n = 480 answers, or n = 460 to 480 answers."""
    low, high = min(numbers), max(numbers)
    return f"n = {low} {what}" if low == high else f"n = {low} to {high} {what}"


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def unbroken(caption: str) -> str:
    """The caption with spaces that do not break beside its numbers."""
    return caption.replace(" %", PERCENT).replace("n = ", "n\u00a0=\u00a0")


def _code(match: re.Match[str]) -> str:
    return f"⟨U+{ord(match.group()):04X}⟩"
