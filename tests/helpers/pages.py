"""The commands on pages of the documentation."""

import re
import shlex


def blocks(page: str) -> list[list[str]]:
    """The command words of each line in a fenced block without a language."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    lines = [line for language, block in fenced if not language for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("spar ")]
