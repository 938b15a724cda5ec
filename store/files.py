"""Files out of the store, written to a temporary name and renamed."""

import json
import shutil
from pathlib import Path

import pyarrow as pa

from loop.errors import ConfigError, StoreError
from store.db import table
from store.store import DuckStore

SUFFIXES = (".parquet", ".jsonl", "")  # "": a folder

# Conversations in the columns that datasets and TRL read: lists of {role, content}.
PAIRS = """
SELECT x.pair_id, x.run_id, x.round,
    from_json(p.messages, '[{"role": "VARCHAR", "content": "VARCHAR"}]') AS prompt,
    [{'role': 'assistant', 'content': x.chosen}] AS chosen,
    [{'role': 'assistant', 'content': x.rejected}] AS rejected,
    x.chosen_score, x.rejected_score, x.p_chosen, x.margin
FROM pair_texts x JOIN prompts p USING (prompt_id)
WHERE $run IS NULL OR x.run_id = $run ORDER BY x.run_id, x.round, x.pair_id
"""


def export_pairs(store: DuckStore, run: str | None, to: str) -> int:
    """Write the pairs of a run (all runs when None) to .parquet, .jsonl or a dataset folder; returns how many."""
    path = Path(to).resolve()
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"cannot write a {path.suffix} file; name it .parquet or .jsonl, or give a folder")
    if path.is_dir() and any(path.iterdir()) and not (path / "dataset_info.json").exists():
        raise ConfigError(f"{path} is a folder that holds something else; give a new one, or a .parquet or .jsonl file")
    run_id = None
    if run is not None:
        info = store.run(run)
        if info is None:
            raise StoreError(f"{store.db.path} has no run {run!r}; see: spar sql 'SELECT run_id FROM runs'")
        run_id = info.id
    with store.db.read() as con:
        found = table(con, PAIRS, {"run": run_id})
    partial = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(found, path.suffix, partial)
    if path.is_dir():
        shutil.rmtree(path)
    partial.replace(path)
    return int(found.num_rows)


def _write(found: pa.Table, suffix: str, partial: Path) -> None:
    if suffix == ".parquet":
        from pyarrow import parquet

        parquet.write_table(found, partial)
    elif suffix == ".jsonl":
        with partial.open("w", encoding="utf-8") as file:
            for batch in found.to_batches(max_chunksize=1000):
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in batch.to_pylist())
    else:
        import datasets

        datasets.Dataset(found).save_to_disk(str(partial))
