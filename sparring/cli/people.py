"""`spar judge people`: a page on which a person chooses the better of two answers."""

import getpass
import sys
from contextlib import suppress
from typing import Annotated, Literal

import typer

from sparring.cli.common import Store, find_run, open_store, say
from sparring.loop.errors import ConfigError

PATIENCE = 5.0  # seconds that the page waits for a busy store before it reports that and tries again


def people(
    run: Annotated[str | None, typer.Argument(help="Name or id of a run; the latest when not given.")] = None,
    store: Store = None,
    who: Annotated[str | None, typer.Option(help="Who judges; your login name by default.")] = None,
    split: Annotated[
        Literal["train", "eval"],
        typer.Option(help="train: two answers of the policy; eval: the candidate's and the rival's."),
    ] = "train",
    round: Annotated[int | None, typer.Option(min=0, help="The round; by default the last one with answers.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask only this many duels, drawn by the seed.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free port.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed that draws the duels and their order.")] = 0,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open a browser.")] = False,
) -> None:
    """Judge pairs of answers yourself, blind, on a page of this machine only. Ctrl-C ends it."""
    from sparring.judges.human import answered, people_judge
    from sparring.people.queue import agreements, groups_to_judge, questions_of
    from sparring.people.server import listen, people_server
    from sparring.people.session import Session

    judge, opened = people_judge(who or _login()), open_store(store, wait=PATIENCE)
    run_id = find_run(opened, run).id
    groups = groups_to_judge(opened, run_id, judge.id, split, round)
    asked = questions_of(opened, run_id, groups, seed, limit)
    done = answered(j for group in groups for j in group.judged)
    open_still = sum(q.both not in done for q in asked)
    if not open_still:
        say(f"{judge.id} has judged all {len(asked)}" if asked else f"{run_id}: no prompt has two different answers")
        return
    session = Session(opened, judge, asked, done)
    with listen(port) as sock:
        server, address = people_server(session, sock)
        say(f"{judge.id}: {open_still} of {len(asked)} pairs of answers to judge; open this page, Ctrl-C ends")
        print(address, flush=True)
        if sys.stdout.isatty() and not no_open:
            typer.launch(address)
        with suppress(KeyboardInterrupt):  # the ordinary end
            server.run(sockets=[sock])
    say(f"{judge.id}: {session.judged_now} judged now, {session.skipped} skipped (asked again next time)")
    for other, each in agreements(opened, judge.id, asked).items():
        kappa = "" if each.kappa is None else f", kappa {each.kappa:.2f}"
        say(f"agrees with {other} on {each.agreement:.0%} of {each.pairs}, opposed on {each.opposed:.0%}{kappa}")


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:
        raise ConfigError("this machine has no login name for you; give --who NAME") from error
