"""`spar approve`, `spar reject` and `spar rollback`: what a person decides between rounds."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from sparring.cli.common import Run, Store, say
from sparring.store import DEFAULT_PATH

if TYPE_CHECKING:
    from sparring.flows.run.decisions import Kind

Reason = Annotated[str, typer.Option(help="Stored with the decision.")]


def register(app: typer.Typer) -> None:
    for command in (approve, reject, rollback):
        app.command()(command)


def approve(run: Run = None, store: Store = None, reason: Reason = "") -> None:
    """Continue a run after its last round as its gate said, also when a stop rule ended it."""
    _decide(store, run, "approve", reason)


def reject(run: Run = None, store: Store = None, reason: Reason = "") -> None:
    """Continue a run without the update of its last round."""
    _decide(store, run, "reject", reason)


def rollback(
    to: Annotated[
        int, typer.Option(min=0, help="The round whose policy becomes the policy again; 0: the initial policy.")
    ],
    run: Run = None,
    store: Store = None,
    reason: Reason = "",
) -> None:
    """Make an older checkpoint the policy again. Nothing is deleted: new rounds get new numbers."""
    _decide(store, run, "rollback", reason, to)


def _decide(store: str | None, run: str | None, kind: "Kind", reason: str, to: int | None = None) -> None:
    from sparring.flows.run.decisions import decide
    from sparring.store.store import DuckStore

    decision = decide(
        DuckStore(store or DEFAULT_PATH),
        run,
        kind,
        to=to,
        reason=reason,
        by=os.environ.get("USER", f"uid {os.getuid()}"),
    )
    print(decision.id)
    say(
        f"{decision.run} continues from {decision.policy_id} in round {decision.round + 1}: spar resume {decision.run} "
        f"--rounds {decision.round + 1}, or its next scheduled run"
    )
