"""`spar export` and `spar import` as commands: what they say, where it goes, and their exit codes."""

import json
from pathlib import Path

import pytest

from tests.helpers.pages import blocks
from tests.helpers.paths import ROOT
from tests.helpers.spar import Said, contents, project, spar_many

pytestmark = pytest.mark.slow

# The exports of the page, of the run that is here.
TEXT = (ROOT / "docs" / "exchange.md").read_text()
PAGE = [["tiny" if word == "my-loop" else word for word in words] for words in blocks(TEXT)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a run of two rounds, and files to import."""
    made = tmp_path_factory.mktemp("data")
    project(made)
    rows = [{"best": "a wren", "worst": "no", "prompt": "Name a bird, please."}]
    (made / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (made / "bad.jsonl").write_text(json.dumps({"prompt": "Go on, then.", "chosen": "a", "rejected": None}) + "\n")
    (made / "mine").mkdir()
    (made / "mine" / "notes.txt").write_text("precious")
    return made


@pytest.fixture(scope="module")
def said(folder: Path) -> dict[str, Said]:
    """All commands in one process: starting one takes longer than most of them."""
    bring = (
        "import",
        "pairs.jsonl",
        "--source",
        "birds",
        "--licence",
        "MIT",
        "--columns",
        "chosen=best,rejected=worst",
    )
    commands: dict[str, tuple[object, ...]] = {
        "pairs": ("export", "pairs", "--run", "tiny", "--to", "out"),
        "import": bring,
        "again": (*bring, "--json"),
        "imported": ("export", "pairs", "--run", "birds", "--to", "birds.jsonl", "--style", "openrlhf"),
        "labels": ("export", "labels", "--run", "tiny", "--to", "labels.jsonl", "--at", "0.75", "--text", "plain"),
        "mine": ("export", "pairs", "--to", "mine"),
        "suffix": ("export", "pairs", "--to", "pairs.xlsx"),
        "none": ("export", "pairs", "--to", "a.jsonl", "--run", "none"),
        "bad": ("import", "bad.jsonl", "--source", "bad", "--licence", "MIT"),
        "columns": ("import", "pairs.jsonl", "--source", "x", "--licence", "MIT", "--columns", "chosen"),
        **{" ".join(words): tuple(words) for words in PAGE},
        "status": ("status", "birds"),
        "resume": ("resume", "birds"),
        "latest": ("status", "--json"),
    }
    return dict(zip(commands, spar_many(*commands.values(), cwd=folder), strict=True))


def test_what_was_done_is_said_on_stderr(folder: Path, said: dict[str, Said]) -> None:
    for name, told in {
        "pairs": "2 pairs written to out",
        "import": "1 rows, 1 prompts, 2 completions, 1 pairs; 10 rows of the store are new",
        "labels": "9 labels written to labels.jsonl, 1 answers without a score were left out",
    }.items():
        assert (said[name].code, said[name].out) == (0, ""), said[name].err
        assert told in said[name].err
    assert (folder / "out" / "README.md").exists()
    row = json.loads((folder / "birds.jsonl").read_text())
    assert row["chosen"][-1] == {"role": "assistant", "content": "a wren"}


def test_the_commands_of_the_page_work(folder: Path, said: dict[str, Said]) -> None:
    assert len(PAGE) == 5
    assert [said[" ".join(words)].code for words in PAGE] == [0] * 5
    written = {words[words.index("--to") + 1] for words in PAGE}
    assert written <= {path.name for path in folder.iterdir()}


def test_the_same_import_adds_nothing_and_is_no_loop(said: dict[str, Said]) -> None:
    again = json.loads(said["again"].out)
    assert (again["added"], again["rows"], again["judge"]) == (0, 1, "import:birds")
    assert json.loads(said["latest"].out)["run_id"].startswith("tiny-")
    assert said["status"].code == 0
    assert "is an import" in said["status"].out
    assert said["resume"].code == 2
    assert "is an import" in said["resume"].err


def test_mistakes_have_their_codes_and_remedies(folder: Path, said: dict[str, Said]) -> None:
    for name, (code, told) in {
        "mine": (2, "is a folder with other content"),
        "suffix": (2, "cannot write a .xlsx file; name it .parquet or .jsonl"),
        "none": (1, "has no run 'none'"),
        "bad": (2, "bad.jsonl row 1 has no text or conversation in rejected"),
        "columns": (2, "--columns is 'chosen'; expected COLUMN=NAME"),
    }.items():
        assert said[name].code == code, said[name].err
        assert told in said[name].err
    assert contents(folder / "mine") == {"notes.txt": b"precious"}
