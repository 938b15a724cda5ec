import json
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest

from sparring.store.db import migrations
from tests.helpers.records import Filled
from tests.helpers.spar import CONFIG, TRAIN, Said, contents, project, python, spar_many

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Session:
    """What commands said in a folder that they may not change."""

    filled: Filled
    folder: Path
    said: dict[str, Said]
    before: dict[str, bytes]


# Name of what is tried: its folder and its arguments.
COMMANDS = {
    "init": ("new", "init"),
    "dry run of init": ("new", "run", "loop.yaml", "--dry-run"),
    "init again": ("new", "init"),
    "resume": ("done", "resume"),
    "resume by name": ("done", "resume", "tiny"),
    "run when done": ("done", "run", "loop.yaml"),
    "resume elsewhere": ("new", "resume", "--store", "../done/preferences.duckdb"),
    "edited": ("done", "run", "edited.yaml"),
    "edited, dry": ("done", "run", "edited.yaml", "--dry-run"),
    "override": ("done", "run", "loop.yaml", "--set", "sample.max_tokens=9"),
    "other name": ("done", "run", "edited.yaml", "--set", "name=other", "--dry-run"),
    "resume, other prompts": ("changed", "resume"),
    "run, other prompts": ("changed", "run", "loop.yaml"),
    "newer": ("done", "run", "loop.yaml", "--dry-run", "--store", "../newer.duckdb"),
    "misspelt": ("done", "run", "loop.yaml", "--set", "learn.lrr=1"),
    "foreign option": ("done", "run", "loop.yaml", "--set", "learn.gamma=1"),
    "no prompts": ("done", "run", "loop.yaml", "--set", "prompts.train=none.jsonl"),
    "overlap": ("done", "run", "loop.yaml", "--set", "prompts.eval=train.jsonl"),
}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    top = tmp_path_factory.mktemp("run")
    for name in ("done", "changed", "new"):
        (top / name).mkdir()
    filled = project(top / "done")
    (top / "done" / "edited.yaml").write_text(CONFIG.replace("beta: 0.1", "beta: 0.25"))
    project(top / "changed")
    rows = [*TRAIN[:-1], {"prompt": "Go on, please."}]
    (top / "changed" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with duckdb.connect(str(top / "newer.duckdb")) as con:
        con.execute("CREATE TABLE schema_version AS SELECT 99::INTEGER AS version")
    before = contents(top)
    said = spar_many(*((top / folder, *arguments) for folder, *arguments in COMMANDS.values()), cwd=top)
    return Session(filled, top, dict(zip(COMMANDS, said, strict=True)), before)


@pytest.mark.parametrize("how", ["resume", "resume by name", "run when done", "resume elsewhere"])
def test_a_finished_run_is_said_to_be_complete(session: Session, how: str) -> None:
    said = session.said[how]
    assert said.code == 0
    assert f"run {session.filled.info.id} is complete: 2 of 2 rounds; play more with --rounds N" in said.err
    assert "held-out results by round" in said.out
    assert "0.625 [0.525, 0.725]" in said.out


@pytest.mark.parametrize(
    ("how", "lines"),
    [
        ("edited", {"-learn.beta:0.1", "+learn.beta:0.25"}),
        ("edited, dry", {"-learn.beta:0.1", "+learn.beta:0.25"}),
        ("override", {"-sample.max_tokens:256", "+sample.max_tokens:9"}),
    ],
)
def test_a_changed_config_of_the_same_name_is_refused_with_a_diff(session: Session, how: str, lines: set[str]) -> None:
    assert lines <= diff_of(session.said[how])


@pytest.mark.parametrize("how", ["resume, other prompts", "run, other prompts"])
def test_changed_prompts_are_refused_with_a_diff(session: Session, how: str) -> None:
    stored = session.filled.info.config["shape"]["prompts"]["train"]
    lines = diff_of(session.said[how])
    assert f"-prompts.train:{stored}" in lines
    assert len([line for line in lines if line.startswith("+prompts.train:")]) == 1


def diff_of(said: Said) -> set[str]:
    """The lines of a refusal, without the spaces in them."""
    assert (said.code, said.out) == (2, "")
    assert "was started with another config or other prompts" in said.err
    assert "give the changed config another name" in said.err
    return {line.replace(" ", "") for line in said.err.splitlines()}


def test_another_name_is_another_run(session: Session) -> None:
    said = session.said["other name"]
    assert said.code == 0
    assert said.err.startswith("run other-")
    assert "2 rounds of 3 of 3 prompts x 8 samples, measured on 2 held-out prompts x 4" in said.err


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("newer", f"schema version 99, this sparring knows up to {migrations()[-1][0]}; install"),
        ("misspelt", "learn.lrr: unknown key (did you mean 'lr'?)"),
        ("foreign option", "loss 'sigmoid' has no option 'gamma'; it takes beta, label_smoothing"),
        ("no prompts", "there is no prompt file"),
        ("overlap", "3 eval prompts are among the train prompts"),
    ],
)
def test_a_run_that_cannot_be_is_refused(session: Session, how: str, message: str) -> None:
    said = session.said[how]
    assert (said.code, said.out) == (2, "")
    assert message in said.err
    assert "Traceback" not in said.err


def test_init_writes_what_run_accepts_and_nothing_over(session: Session) -> None:
    first, dry, again = (session.said[how] for how in ("init", "dry run of init", "init again"))
    assert (first.code, dry.code, again.code) == (0, 0, 2)
    assert "3 rounds of 16 of 16 prompts x 8 samples, measured on 8 held-out prompts x 4" in dry.err
    assert "name: my-loop" in dry.out
    assert "loop.yaml already exists" in again.err


def test_none_of_these_changed_a_file(session: Session) -> None:
    after = contents(session.folder)
    assert {name: after.get(name) for name in session.before} == session.before
    assert set(after) - set(session.before) == {"new/loop.yaml", "new/train.jsonl", "new/eval.jsonl"}


def test_resuming_a_finished_run_loads_no_model_library(session: Session) -> None:
    said = python("-X", "importtime", "-m", "sparring.cli", "resume", cwd=session.folder / "done")
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in said.err.splitlines()}
    assert {"duckdb", "sparring"} <= loaded
    assert not loaded & {"torch", "vllm", "prefect", "transformers"}
