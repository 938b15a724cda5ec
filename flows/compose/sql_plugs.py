"""SQL in the config: read from its file, checked before a run starts, kept with its hash, and asked of the store."""

from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from typing import Any

from sparring.flows.config import Config
from sparring.loop.errors import StepError
from sparring.loop.pairing import BUILDERS, Named
from sparring.loop.parts import Choose
from sparring.loop.stopping import Verdict
from sparring.loop.types import QueryInfo, Round, make_id
from sparring.store.plug_points import PAIRS, PROMPTS, STOP, Plug, ask_query, check_query
from sparring.store.store import DuckStore


def queries(config: Config) -> list[tuple[Plug, str]]:
    """Those that a config has."""
    pairs = config.pair.options.get("query") if BUILDERS[config.pair.kind].traits.by_query else None
    found = ((PAIRS, pairs), (PROMPTS, config.prompts.query), (STOP, config.stop.query))
    return [(plug, sql) for plug, sql in found if sql is not None]


def check_queries(config: Config) -> None:
    """Raises ConfigError for a query that cannot be asked, or gives other columns than are wanted."""
    for plug, sql in queries(config):
        check_query(sql, plug)


def query_records(config: Config, run: str) -> list[QueryInfo]:
    return [
        QueryInfo(make_id("query", run=run, plug=key, sql=sql), run, key, sql, sha256(sql.encode()).hexdigest())
        for key, sql in ((plug.key, sql) for plug, sql in queries(config))
    ]


def pairs_by(store: DuckStore, sql: str, judge: str) -> Any:
    """Names the pairs of a round: see loop.pairing.pipeline.Ask."""

    def ask(rnd: Round) -> list[Named]:
        found = ask_query(store.db, sql, PAIRS, run=rnd.run, round=rnd.index, judge=judge)
        twice = len(found) - len({(row["chosen_id"], row["rejected_id"]) for row in found})
        if twice:
            raise StepError(
                f"pair.query names {twice} of its {len(found)} pairs more than once: SELECT DISTINCT, or GROUP BY"
            )
        return [Named(**row) for row in found]

    return ask


def chooser(store: DuckStore, sql: str | None, judge: str) -> Choose | None:
    """Chooses the prompts that a round plays first."""
    return None if sql is None else partial(_choose, store, sql, judge)


def _choose(store: DuckStore, sql: str, judge: str, rnd: Round) -> Sequence[str]:
    return [r["prompt_id"] for r in ask_query(store.db, sql, PROMPTS, run=rnd.run, round=rnd.index, judge=judge)]


def broken_by_query(store: DuckStore, rnd: Round, sql: str | None) -> tuple[str, float, Verdict] | None:
    """What a stop rule in SQL says of a round, as loop.stopping.first_broken does: of several rows the first counts."""
    found = [] if sql is None else ask_query(store.db, sql, STOP, run=rnd.run, round=rnd.index, judge=rnd.judge)
    return ("query", found[0]["bound"], (found[0]["found"], found[0]["message"])) if found else None
