"""Where a run stands: how many rounds are done, what is missing, and what it waits for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparring.store.db import rows
from sparring.store.store import DuckStore

Row = Mapping[str, Any]

# The columns of round_summary that a step fills, in the order of the steps.
FILLS = {"sampling": "completions", "judging": "judged", "pairing": "paired", "learning": "loss"}


@dataclass(frozen=True)
class Standing:
    """Where a loop stands. `decided` is the last decision about its last finished round."""

    done: int  # finished rounds, each evaluated or ended by a decision; round 0 does not count
    planned: int  # rounds of the config, or `done` when more were played
    under_way: bool  # a round has begun and is not finished
    missing: str | None
    stop: str | None  # the message of the rule that stopped the run
    waiting: str | None  # the decision that the run waits for
    decided: Row | None


def standing(
    run_id: str, config: Row, rounds: Sequence[Row], decisions: Sequence[Row], stops: Sequence[Row]
) -> Standing:
    """Where a loop stands by its rows, a pure function: rounds in order, decisions and stops oldest first."""
    decided = {row["round"]: row for row in decisions}
    finished = {row["round"] for row in rounds if row["accepted"] is not None or row["round"] in decided}
    done, planned = max(finished, default=0), config["rounds"]
    under_way = bool(rounds) and rounds[-1]["round"] not in finished
    undecided = done > 0 and not under_way and done not in decided
    stop = next((row["message"] for row in reversed(stops) if row["round"] == done), None) if undecided else None
    waiting = waits(run_id, done) if undecided and config.get("approve") else None
    missing = _missing(rounds, finished, done, planned)
    return Standing(done, max(planned, done), under_way, missing, stop, waiting, decided.get(done))


def waits(run: str, round: int) -> str:
    return f"round {round} of {run} awaits a decision: spar approve {run}, or spar reject {run}"


def _missing(rounds: Sequence[Row], finished: set[int], done: int, planned: int) -> str | None:
    if 0 not in finished and not done:
        return "round 0 has yet to measure the initial policy"
    last = rounds[-1]
    if last["round"] not in finished:
        steps = [f"no {step}" for step, column in FILLS.items() if column in last and last[column] is None]
        return f"round {last['round']} is not finished" + (f": it has {', '.join(steps)}" if steps else "")
    return f"round {done + 1} has yet to start" if done < planned else None


def summaries(store: DuckStore, run: str) -> list[dict[str, Any]]:
    """The rows of round_summary of a run, in order."""
    with store.db.read() as con:
        return rows(con, "SELECT * FROM round_summary WHERE run_id = ? ORDER BY round", [run])


def decisions_and_stops(store: DuckStore, run: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What people decided about a run's rounds, and the rules that stopped it, oldest first."""
    with store.db.read() as con:
        decisions = rows(
            con,
            """SELECT * EXCLUDE (run_id) REPLACE (decided_at::VARCHAR AS decided_at) FROM decisions
            WHERE run_id = ? ORDER BY round, number""",
            [run],
        )
        stops = rows(con, "SELECT round, message FROM stops WHERE run_id = ? ORDER BY round, stopped_at", [run])
    return decisions, stops
