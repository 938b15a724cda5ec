"""The commands of docs/people.md, in their order: from judgements to labelled pairs, and a judge measured on them."""

import io
import re
import shlex
from contextlib import chdir, redirect_stdout
from pathlib import Path

import pytest

from sparring.cli import app
from sparring.loop.errors import ConfigError, StoreError
from sparring.loop.labelled_pairs import read_preferences
from tests.helpers.paths import ROOT
from tests.helpers.people import answered_store, said, session_of
from tests.helpers.records import RUN


def commands(page: Path) -> list[list[str]]:
    blocks = re.findall(r"```\n(spar .*?)```", page.read_text(), re.DOTALL)
    return [shlex.split(block)[1:] for block in blocks]


def spar(*arguments: str) -> str:
    """What a command prints; in this process, for starting another takes longer than all of them."""
    out = io.StringIO()
    with redirect_stdout(out):
        app(list(arguments), standalone_mode=False)
    return out.getvalue()


def test_the_commands_of_the_page_on_people_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = answered_store(tmp_path / "preferences.duckdb", 4)
    (tmp_path / "judge.yaml").write_text("kind: rules\nmin_words: 1\n")
    first, second, agreement, labelled, bench = commands(ROOT / "docs/people.md")
    session = session_of(store)
    for choice in ("left", "tie", "right", "left"):
        session.answer(session.state()["question"]["name"], choice)
    with chdir(tmp_path):
        assert spar(*first, "--who", "ann") == ""
        assert "people:ann has judged all 4" in capsys.readouterr().err
        with pytest.raises(StoreError, match="has no round 2 in which a candidate was measured"):
            spar(*(RUN if word == "RUN" else word for word in second))
        assert "people:ann" in spar(*agreement)
        assert labelled[-2:] == [">", "people.jsonl"]
        Path("people.jsonl").write_text(spar(*labelled[:-2]))
        found = {(p.a, p.b): p.p_a for p in read_preferences("people.jsonl")}
        assert found == {(row["text"], row["rival_text"]): row["value"] for row in said(store)}
        assert sorted(p == 0.5 for p in found.values()) == [False, False, False, True]
        assert "accuracy" in spar(*bench)
        with pytest.raises(ConfigError, match="--who NAME"):
            spar(*first, "--who", "two words")
