"""`spar approve`, `spar reject` and `spar rollback`: what a person decides between rounds."""

from typing import TYPE_CHECKING, Annotated

import typer

from sparring.cli.common import Run, Store, login, open_store, say

if TYPE_CHECKING:
    from sparring.flows.run.decisions import Kind

Reason = Annotated[str, typer.Option(help="Stored with the decision.")]
To = Annotated[int, typer.Option(min=0, help="The round whose policy becomes the policy again; 0: the initial policy.")]


def approve(run: Run = None, store: Store = None, reason: Reason = "") -> None:
    """Continue a run after its last round as its gate said, also when a stop rule ended it."""
    _decide(store, run, "approve", reason)


def reject(run: Run = None, store: Store = None, reason: Reason = "") -> None:
    """Continue a run without the update of its last round."""
    _decide(store, run, "reject", reason)


def rollback(to: To, run: Run = None, store: Store = None, reason: Reason = "") -> None:
    """Make an older checkpoint the policy again. Nothing is deleted: new rounds get new numbers."""
    _decide(store, run, "rollback", reason, to)


def _decide(store: str | None, run: str | None, kind: "Kind", reason: str, to: int | None = None) -> None:
    from sparring.flows.run.decisions import decide

    decision = decide(open_store(store), run, kind, to=to, reason=reason, by=login())
    print(decision.id)
    following = decision.round + 1
    say(
        f"{decision.run} continues from {decision.policy_id} in round {following}: spar resume {decision.run} "
        f"--rounds {following}, or its next scheduled run"
    )
