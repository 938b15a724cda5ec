"""`spar judge label`: a judge scores the answers that are already in the store."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sparring.cli.common import Store, say
from sparring.cli.judge_trials import AsJson, JudgeFile, judge_app
from sparring.store import DEFAULT_PATH

if TYPE_CHECKING:
    from sparring.flows.run.backlog import Labelled


def register(app: typer.Typer) -> None:
    judge_app.command()(label)


def label(
    config: JudgeFile,
    run: Annotated[str | None, typer.Argument(help="Name or id of a run; every run when not given.")] = None,
    store: Store = None,
    split: Annotated[
        Literal["train", "eval", "all"], typer.Option(help="Answers to train prompts, to held-out prompts, or all.")
    ] = "all",
    round: Annotated[int | None, typer.Option(min=0, help="Only this round.")] = None,
    as_json: AsJson = False,
) -> None:
    """Judge all answers in the store that this judge has not judged; the same command resumes it."""
    from sparring.cli.progress import Bars
    from sparring.flows.run.backlog import label_backlog
    from sparring.flows.run.judge_trials import read_judge

    section = read_judge(config)
    with Bars() as bars:
        entries = label_backlog(section, store or DEFAULT_PATH, run, split=split, round=round, show=bars.show)
    if as_json:
        print(json.dumps([asdict(each) for each in entries], indent=2))
    else:
        _print(entries)


def _print(entries: "list[Labelled]") -> None:
    from sparring.cli.tables import print_rows

    rows = [_row(each) for each in entries]
    if rows:
        print_rows(rows, list(rows[0]), "table")
    judged, silent = sum(each.made for each in entries), sum(each.silent for each in entries)
    missing = sum(each.missing for each in entries)
    say(f"{missing} judgements were missing, {judged} were made, {silent} of those without an answer")


def _row(each: "Labelled") -> dict[str, Any]:
    names = {"policy_id": "policy", "rival_id": "rival", "silent": "no answer"}
    return {names.get(key, key): value for key, value in asdict(each).items()}
