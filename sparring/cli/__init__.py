"""The command line. Heavy modules load inside commands: `spar --help` imports none of torch, vllm and prefect."""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

import typer
from typer.core import TyperGroup

from sparring.cli import (
    ask,
    backlog,
    decide,
    deploy,
    evaluate,
    exchange,
    judge_trials,
    look,
    maintenance,
    people,
    play,
    report,
    reward,
    setup,
    sql,
)
from sparring.loop.errors import SparError


class Commands(TyperGroup):
    """All commands. Typer itself would end one that Ctrl-C interrupts without a word."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _say("interrupted; what was stored is kept, and the same command resumes")
            raise typer.Exit(130) from None


def _group(help: str, *commands: Callable[..., None], **options: Any) -> typer.Typer:
    group = typer.Typer(help=help, no_args_is_help=True, **options)
    for command in commands:
        group.command(command.__name__.rstrip("_"))(command)
    return group


app = _group(
    "Online self-play alignment: sample, judge, pair, learn, evaluate, and continue with the better policy.",
    play.run, play.resume, decide.approve, decide.reject, decide.rollback, look.status, look.show, look.lineage,
    exchange.export, exchange.import_, report.report, setup.init, setup.doctor, evaluate.evaluate, deploy.deploy,
    deploy.serve, sql.sql, sql.shell, ask.ask, cls=Commands, name="spar", pretty_exceptions_enable=False,
)  # fmt: skip
trials = (judge_trials.bench, judge_trials.agreement, judge_trials.canary, people.people, backlog.label)
app.add_typer(_group("Judges: measure, compare and test them before a loop learns from them.", *trials), name="judge")
app.add_typer(_group("Reward models: train one from labelled pairs.", reward.train), name="reward")
care = (
    maintenance.check, maintenance.migrate, maintenance.compact, maintenance.backup, maintenance.rebuild,
    maintenance.forget, maintenance.prune,
)  # fmt: skip
about = "Maintain the store: check, migrate, compact, back up, rebuild, forget, prune."
app.add_typer(_group(about, *care), name="store")


def main() -> None:
    """Run a command.

    Exit codes: 0 done, 1 a step failed, 2 usage or config, 3 store busy, 4 environment, 75 saved and left, 130/143.
    """
    signal.signal(signal.SIGTERM, _terminate)
    code = _run()
    sys.stdout.flush()
    sys.stderr.flush()
    if {"vllm", "sparring.loop.sampling.transformers_engine"} & sys.modules.keys():  # an engine was loaded
        # Everything is committed and closed. Destroying the objects of vLLM, torch and DuckDB one by one can take a
        # minute, and their bindings print errors about each other.
        os._exit(code)
    sys.exit(code)


def _run() -> int:
    try:
        app()
    except SystemExit as exit:
        return exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    except SparError as error:
        _say(str(error))
        return error.exit_code
    except Exception as error:
        _say(f"{type(error).__name__}: {error}\nwhat was stored is kept, and the same command resumes")
        if os.environ.get("SPARRING_TRACEBACK"):
            traceback.print_exception(error)
        else:
            _say("(for the traceback, set SPARRING_TRACEBACK=1)")
        return 1
    return 0


def _say(text: str) -> None:
    print(f"spar: {text}", file=sys.stderr)


def _terminate(number: int, frame: FrameType | None) -> None:
    _say("terminated; what was stored is kept. Resume a run with: spar resume")
    sys.exit(128 + number)
