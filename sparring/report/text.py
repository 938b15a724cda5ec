"""Texts as a page shows them: numbers in words, and characters that a browser or XML would not take made visible."""

import re
from collections.abc import Mapping
from typing import Any

# C0 and C1 controls but tab and newline, the byte order mark, and what is no character: XML allows none of most, HTML
# shows nothing.
HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ufdd0-\ufdef\ufffe\uffff]")

NONE = "\N{EN DASH}"


def visible(text: str) -> str:
    """Control characters as their codes, ⟨U+0007⟩; a carriage return before a newline goes."""
    return HIDDEN.sub(_code, text.replace("\r\n", "\n"))


def cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f}\u00a0%"


def number(value: float | None) -> str:
    """Four significant digits, without an exponent where it is easy to read without."""
    if value is None:
        return NONE
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value)}"
    return f"{value:.4g}"


def interval(row: Mapping[str, Any] | None, unit: str = "number") -> str:
    """A value with its 95 % interval: 62.5 % [47.0, 75.8]."""
    if row is None or row["value"] is None:
        return NONE
    shown = percent if unit == "percent" else number
    if row["low"] is None or row["high"] is None:
        return shown(row["value"])
    low, high = (shown(row[bound]).removesuffix("\u00a0%") for bound in ("low", "high"))
    return f"{shown(row['value'])} [{low}, {high}]"


def seconds(value: float | None) -> str:
    if value is None:
        return NONE
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def counted(numbers: list[int], what: str) -> str:
    """n = 480 answers, or n = 460 to 480 answers."""
    low, high = min(numbers), max(numbers)
    return f"n = {low} {what}" if low == high else f"n = {low} to {high} {what}"


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def unbroken(caption: str) -> str:
    """Numbers stay on one line with what they belong to."""
    return caption.replace(" %", "\u00a0%").replace("n = ", "n\u00a0=\u00a0")


def _code(found: re.Match[str]) -> str:
    return f"⟨U+{ord(found.group()):04X}⟩"
