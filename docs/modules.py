"""Writes docs/modules.md: one phrase per module, from the module itself. Run: python docs/modules.py."""

import ast
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {
    "loop": "the domain and the learning",
    "judges": "every judge, and reward models",
    "store": "the preference store",
    "flows": "how a config becomes a loop that runs, and keeps running",
    "sparring": "what people touch",
}


def phrase(path: Path) -> str:
    """The first sentence of a module's docstring, without its full stop."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n\n")[0].replace("\n", " ").split(". ")[0].rstrip(".:")


def page() -> str:
    lines = [
        "# Modules",
        "",
        "What each module holds, in its own words. `python docs/modules.py` writes this page.",
        "",
    ]
    for room, what in ROOMS.items():
        lines += [f"## {room}/: {what}", ""]
        files = [p for p in (ROOT / room).rglob("*.py") if not any(q.is_symlink() for q in p.parents)]
        for folder, group in groupby(sorted(files, key=lambda p: (p.parent, p.name)), key=lambda p: p.parent):
            lines += ["| " + str(folder.relative_to(ROOT)) + "/ | |", "|---|---|"]
            lines += [f"| {path.name} | {phrase(path).replace('|', '&#124;')} |" for path in group if phrase(path)]
            lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    (ROOT / "docs" / "modules.md").write_text(page(), encoding="utf-8")
