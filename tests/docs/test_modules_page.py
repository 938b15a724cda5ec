"""docs/modules.md says of every module what it holds, in the module's own words of today."""

import runpy

from tests.helpers.paths import ROOT

WRITER = runpy.run_path(str(ROOT / "docs" / "modules.py"))


def test_the_page_is_current() -> None:
    assert (ROOT / "docs" / "modules.md").read_text(encoding="utf-8") == WRITER["page"](), "run: python docs/modules.py"


def test_every_module_says_what_it_holds() -> None:
    files = [p for room in WRITER["ROOMS"] for p in (ROOT / room).rglob("*.py") if p.name != "__main__.py"]
    assert len(files) > 250
    assert [str(p) for p in files if len(WRITER["phrase"](p)) < 12] == []
