"""`spar judge label`: a judge scores the answers that are already in the store."""

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from sparring.cli.common import AsJson, Store, print_json, say
from sparring.cli.judge_trials import JudgeFile
from sparring.cli.tables import print_rows
from sparring.store import DEFAULT_PATH

TITLES = {"policy_id": "policy", "rival_id": "rival", "silent": "no answer"}


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
    rows = [asdict(each) for each in entries]
    if as_json:
        print_json(rows)
        return
    print_rows([{TITLES.get(key, key): value for key, value in row.items()} for row in rows])
    missing, judged, silent = (sum(row[count] for row in rows) for count in ("missing", "made", "silent"))
    say(f"{missing} judgements were missing, {judged} were made, {silent} of those without an answer")
