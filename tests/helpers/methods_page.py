"""docs/methods.md as data: its examples as configs, its tables as options and defaults."""

import re
from dataclasses import MISSING
from functools import cache
from typing import Any

import yaml

from tests.helpers.paths import ROOT

PAGE = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
Values = dict[str, Any]


def examples() -> dict[str, Values]:
    """By heading; the first is the base of the others."""
    found: dict[str, Values] = {}
    for heading, block in re.findall(r"(?m)^#+ ([^\n]+)\n(?:(?!^#).*\n)*?```yaml\n((?:.*\n)*?)```", PAGE):
        assert heading not in found, f"two examples under {heading!r}"
        found[heading] = yaml.safe_load(block)
    assert len(found) == PAGE.count("```yaml\n"), "an example without a heading of its own"
    return found


EXAMPLES = examples()
BASE = EXAMPLES.pop("Methods")
CONFIGS = {name: BASE | changed for name, changed in EXAMPLES.items()}


@cache
def table(header: str) -> dict[str, list[str]]:
    """The cells of each row of the table that begins with this cell, by the name in its first column."""
    block = re.search(rf"(?m)^\| {header} \|.*\n((?:\|.*\n)+)", PAGE)
    assert block, f"no table of {header}"
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in block[1].splitlines()[1:]]
    return {row[0].strip("`"): row[1:] for row in cells}


def options(cell: str) -> Values:
    """`beta` 0.1, `of` [a, b]: names and defaults; what is needed has none."""
    found = re.findall(r"`(\w+)` (\[[^]]*\]|[^,]+)", cell)
    assert ", ".join(f"`{name}` {value}" for name, value in found) == cell, f"cannot read {cell!r}"
    return {name: MISSING if value == "needed" else default(value) for name, value in found}


def default(text: str) -> Any:
    return None if text == "none" else yaml.safe_load(text)
