"""Public preference data, imported and exported again: the same rows, with ties, votes and every further column."""

import json
from pathlib import Path

import pytest
from pyarrow import parquet

from sparring.loop.labelled_pairs import read_preferences
from sparring.store.exchange import Asked, Wanted, export, import_rows
from tests.helpers.kept_store import KeptStore
from tests.helpers.paths import DATA

NAMES = ("alpacaeval_derived", "alpacaeval_direct", "hh_harmless", "mtbench_llmeval2_faireval", "pandalm", "qafeedback")
ROWS = 150


@pytest.mark.parametrize("name", NAMES)
def test_shared_preferences_come_back_as_they_were(tmp_path: Path, name: str) -> None:
    found = sorted(DATA.glob(f"prefs_{name}*.parquet"))
    if not found:
        pytest.skip(f"the shared data prefs_{name} is not in {DATA}")
    whole = parquet.read_table(found[0])
    table = whole.take(list(range(0, whole.num_rows, max(1, whole.num_rows // ROWS))))
    given = tmp_path / "given.parquet"
    parquet.write_table(table, given, row_group_size=40)
    store = KeptStore(tmp_path / "s.duckdb")
    done = import_rows(store, Asked((str(given),), name, "see its README"))
    assert done.rows == table.num_rows == done.pairs + done.ties + done.identical
    to = tmp_path / "back.parquet"
    export(store, Wanted("comparisons", str(to), run=done.run_id))
    rows = parquet.read_table(to).to_pylist()
    assert [row.pop("messages") for row in rows] == [json.loads(text) for text in table["messages"].to_pylist()]
    columns = [column for column in table.column_names if column != "messages"]
    assert [{c: row[c] for c in columns} for row in rows] == table.select(columns).to_pylist()
    assert {p.id for p in read_preferences(str(to))} == {p.id for p in read_preferences(str(given))}
    store.close()
