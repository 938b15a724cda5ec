"""Prefect artifacts of a round: a table of the run, a text on the round, and a link to the report.

An artifact's key names the run, so Prefect keeps one history per run. The numbers come from the store. An artifact that
cannot be created causes a warning in the run's log and never fails the round.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparring.flows.run.standing import summaries
from sparring.loop.formatting import decimals, interval, percent
from sparring.loop.types import Evaluation, RunInfo
from sparring.store.store import DuckStore

Row = Mapping[str, Any]
WriteReport = Callable[[DuckStore, Sequence[str], Path], Path]  # writes a page about these runs; returns its path
COLUMNS = (
    *("round", "accepted", "prompts", "completions", "judged", "pairs", "ties", "identical", "abstained", "failed"),
    *("examples", "filtered"),
    *("loss", "accuracy", "pass_rate", "pass_low", "pass_high", "win_rate", "win_low", "win_high", "kl", "eval_tokens"),
)
NEWEST = 50  # rounds in the table, whose size counts in Prefect's API and database


def publish_round(store: DuckStore, info: RunInfo, index: int) -> None:
    """Create the artifacts of a finished round; call it within a flow run."""
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    with _or_warn(f"the artifacts of round {index}"):
        rounds = summaries(store, info.id)
        table = [{name: _short(row[name]) for name in COLUMNS} for row in rounds[-NEWEST:]]
        create_table_artifact(table, key=key(info.id, "rounds"), description=f"Rounds of {info.id} (95 % intervals)")
        row = next(row for row in rounds if row["round"] == index)
        create_markdown_artifact(in_words(row), key=key(info.id, "round"), description=f"Round {index} of {info.id}")


def publish_report(store: DuckStore, info: RunInfo, write: WriteReport) -> None:
    """Write the report of the run so far to its folder, and create a link to it."""
    from prefect.artifacts import create_link_artifact

    with _or_warn("the report"):
        page = write(store, [info.id], store.db.path.parent / "runs" / info.id / "report.html")
        what = f"Report of {info.id}, on the machine that played it"
        create_link_artifact(page.resolve().as_uri(), key=key(info.id, "report"), description=what)


def publish_note(info: RunInfo, title: str, message: str) -> None:
    """Create a note on why a run does not continue: a person must decide, or a rule stopped it."""
    from prefect.artifacts import create_markdown_artifact

    with _or_warn("the note"):
        create_markdown_artifact(f"# {title}\n\n{message}\n", key=key(info.id, "note"), description=title)


def publish_metrics(results: Sequence[Evaluation]) -> None:
    """Create a table of the results of a measurement."""
    from prefect.artifacts import create_table_artifact

    with _or_warn("the table of metrics"):
        names = ("metric", "value", "low", "high", "n")
        table = [{name: _short(getattr(e, name)) for name in names} for e in results]
        what = f"{results[0].candidate_id} against {results[0].rival_id}"
        create_table_artifact(table, key=key(results[0].run, "metrics"), description=f"{what} (95 % intervals)")


@contextmanager
def _or_warn(what: str) -> Iterator[None]:
    from prefect.logging import get_run_logger

    try:
        yield
    except Exception as error:  # whatever it is, the round is in the store, and the run continues
        get_run_logger().warning(f"{what} could not be created ({type(error).__name__}: {error})", exc_info=True)


def key(run: str, what: str) -> str:
    """An artifact key, for which Prefect allows lower-case letters, digits and dashes."""
    return f"{re.sub('[^a-z0-9]+', '-', run.lower()).strip('-')}-{what}"


def in_words(row: Row) -> str:
    """A row of round_summary as Markdown."""
    lines = [f"# {row['run_id']}, round {row['round']}", "", *_made(row), "", *_measured(row), "", _gate(row)]
    return "\n".join(lines) + "\n"


def _made(row: Row) -> Sequence[str]:
    if row["round"] == 0:
        return ["The initial policy was measured on held-out prompts; nothing was learned."]
    why = f"{row['ties']} ties + {row['identical']} identical + {row['abstained']} abstained + {row['failed']} failed"
    why += f" + {row['filtered']} filtered" if row["filtered"] else ""
    return [
        f"- {row['prompts']} prompts = {row['paired']} paired + {why}",
        f"- {row['completions']} completions, {row['judged']} judged, mean score {decimals(row['mean_score'])}, "
        f"mean length {decimals(row['mean_tokens'], 1)} tokens, {percent(row['truncated'])} cut off",
        f"- {_learned_from(row)} learned from: loss {decimals(row['loss'])}, accuracy {decimals(row['accuracy'], 2)}",
    ]


def _learned_from(row: Row) -> str:
    return f"{row['examples']} answers" if row["examples"] else f"{row['pairs'] or 0} pairs"


def _measured(row: Row) -> Sequence[str]:
    return [
        "| on held-out prompts | with a 95 % interval |",
        "|---|---|",
        f"| pass rate | {interval(row['pass_rate'], row['pass_low'], row['pass_high'])} |",
        f"| win rate | {interval(row['win_rate'], row['win_low'], row['win_high'])} |",
        f"| KL from the initial policy at temperature 1, nats per answer | {decimals(row['kl'])} |",
        f"| mean tokens | {decimals(row['eval_tokens'], 1)} |",
    ]


def _gate(row: Row) -> str:
    if row["round"] == 0:
        return f"The policy is `{row['policy_id']}`."
    if row["accepted"]:
        return f"The candidate `{row['candidate_id']}` was accepted and is now the policy."
    return f"The candidate `{row['candidate_id']}` was rejected; the policy is still `{row['policy_id']}`."


def _short(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
