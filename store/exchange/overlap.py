"""The check that no imported prompt is in the store under the other split, so that none is trained and measured on."""

from collections.abc import Sequence

import duckdb

from sparring.loop.errors import DataError
from sparring.loop.types import Split
from sparring.store.db import rows, table
from sparring.store.store import DuckStore

# Prompts of reward models' trainings alone do not count: each training holds out its own share of the same pairs.
OTHERS = """
SELECT messages FROM prompts p WHERE split <> $split AND (
    NOT EXISTS (FROM completions c WHERE c.prompt_id = p.prompt_id)
    OR EXISTS (FROM completions c JOIN runs r USING (run_id)
               WHERE c.prompt_id = p.prompt_id AND r.kind <> 'reward'))
"""
# Words, and numbers with the signs before them, as loop.prompts compares the prompts of a config.
WORDS = r"""array_to_string(list_transform(
    regexp_extract_all(lower(array_to_string(json_extract_string(messages, '$[*].content'), ' ')),
        '[-+*/\x{d7}\x{f7}<>=^%]\s*\p{N}[\p{L}\p{M}\p{N}_]*|[\p{L}\p{M}\p{N}_]+'),
    lambda word: replace(word, ' ', '')), ' ')"""


def refuse_overlap(store: DuckStore, con: duckdb.DuckDBPyConnection, paths: Sequence[str], split: Split) -> None:
    """Raise DataError if a staged prompt is in the store under the other split, whatever its case and punctuation."""
    if not store.db.path.exists():
        return
    with store.db.read() as stored:
        con.register("others", table(stored, OTHERS, {"split": split}))
    sql = f"""WITH other AS (SELECT DISTINCT {WORDS} AS words FROM others),
        staged AS (SELECT file, number, messages, {WORDS} AS words FROM given)
        SELECT file, number, messages FROM staged SEMI JOIN other USING (words) ORDER BY file, number"""
    records = rows(con, sql)
    con.unregister("others")
    if records:
        there = "train" if split == "eval" else "eval"
        first = records[0]
        raise DataError(
            f"{len(records)} rows have a prompt that is in the store as one of split {there}, the first in "
            f"{paths[first['file']]} row {first['number']}: {first['messages'][:200]}. A prompt must not be trained "
            f"and measured on: remove these rows, import them with --split {there}, or use another store"
        )
