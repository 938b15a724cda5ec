"""`spar ask`: named questions, each a view of the store."""

from typing import TYPE_CHECKING, Annotated

import typer

from sparring.cli.common import Format, Store, complete_run, say
from sparring.loop.errors import ConfigError
from sparring.loop.options import nearest
from sparring.store import DEFAULT_PATH

if TYPE_CHECKING:
    from sparring.store.store import DuckStore


def register(app: typer.Typer) -> None:
    app.command()(ask)


def complete_question(incomplete: str) -> list[str]:
    from sparring.store.questions import QUESTIONS

    return [name for name in QUESTIONS if name.startswith(incomplete)]


def ask(
    question: Annotated[
        str | None,
        typer.Argument(
            help="Name of the question; lists all questions when not given.", autocompletion=complete_question
        ),
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="Name or id of a run; every run when not given.", autocompletion=complete_run)
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Maximum number of rows; 0 for all.")] = 50,
    store: Store = None,
    format: Annotated[
        Format, typer.Option(help="A table has the usual columns, the other formats have all.")
    ] = "table",
) -> None:
    """Answer a named question: results, lengths, judges, pairs, prompts, costs, signs of reward hacking."""
    from sparring.cli.tables import print_rows
    from sparring.store.questions import QUESTIONS, answer

    if question is None:
        listed = [{"question": each.name, "asks": each.asks} for each in QUESTIONS.values()]
        print_rows(listed, ["question", "asks"], format)
        return
    if question not in QUESTIONS:
        raise ConfigError(f"there is no question {question!r}{nearest(question, QUESTIONS)}; spar ask lists them")
    from sparring.store.store import DuckStore

    opened = DuckStore(store or DEFAULT_PATH)
    run_id = None if run is None else _run_id(opened, run)
    with opened.db.read() as con:
        rows = answer(con, question, run=run_id, limit=limit + 1 if limit else None)
    shown = rows.slice(0, limit) if limit else rows
    if shown.num_rows < rows.num_rows:
        say(f"the first {limit} rows; --limit 0 gives all")
    columns = list(QUESTIONS[question].columns) if format == "table" else rows.column_names
    print_rows(shown.to_pylist(), columns, format)


def _run_id(store: "DuckStore", name: str) -> str:
    info = store.run(name)
    if info is None:
        raise ConfigError(f'{store.db.path} has no run {name!r}; see them with: spar sql "SELECT name FROM runs"')
    return info.id
