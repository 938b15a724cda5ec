"""`spar ask`: named questions, each a view of the store."""

from typing import Annotated

import typer

from sparring.cli.common import Format, OfRun, Store, find_run, open_store, say
from sparring.cli.tables import print_rows
from sparring.loop.errors import ConfigError
from sparring.loop.options import nearest


def complete_question(incomplete: str) -> list[str]:
    from sparring.store.questions import QUESTIONS

    return [name for name in QUESTIONS if name.startswith(incomplete)]


Question = Annotated[
    str | None,
    typer.Argument(help="Name of the question; lists all questions when not given.", autocompletion=complete_question),
]


def ask(
    question: Question = None,
    run: OfRun = None,
    limit: Annotated[int, typer.Option(min=0, help="Maximum number of rows; 0 for all.")] = 50,
    store: Store = None,
    format: Annotated[
        Format, typer.Option(help="A table has the usual columns, the other formats have all.")
    ] = "table",
) -> None:
    """Answer a named question: results, lengths, judges, pairs, prompts, costs, signs of reward hacking."""
    from sparring.store.questions import QUESTIONS, answer

    if question is None:
        print_rows([{"question": each.name, "asks": each.asks} for each in QUESTIONS.values()], format=format)
        return
    if question not in QUESTIONS:
        raise ConfigError(f"there is no question {question!r}{nearest(question, QUESTIONS)}; spar ask lists them")
    opened = open_store(store)
    run_id = None if run is None else find_run(opened, run, ConfigError).id
    with opened.db.read() as con:
        rows = answer(con, question, run=run_id, limit=limit + 1 if limit else None)
    shown = rows.slice(0, limit) if limit else rows
    if shown.num_rows < rows.num_rows:
        say(f"the first {limit} rows; --limit 0 gives all")
    columns = QUESTIONS[question].columns if format == "table" else rows.column_names
    print_rows(shown.to_pylist(), columns, format)
