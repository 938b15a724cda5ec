"""Records to Arrow and back: which table a record goes to, and the type of each column."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, TypeVar, cast

import numpy as np
import pyarrow as pa

from sparring.loop import types
from sparring.loop.types import Prompt, Record, Round

TEXT, INT, REAL, BIG = pa.string(), pa.int32(), pa.float64(), pa.int64()
TEXTS, TOKENS, LOGPROBS = pa.list_(TEXT), pa.list_(INT), pa.list_(pa.float32())

# By the annotation of a record's field, or else by its name. What is in neither is text.
BY_ANNOTATION: Mapping[object, pa.DataType] = {
    int: INT, int | None: INT, float: REAL, float | None: REAL,
    Sequence[int]: TOKENS, Sequence[float]: LOGPROBS, Sequence[str]: TEXTS,
}  # fmt: skip
BY_NAME = {"seed": BIG}
AS_JSON = {"config", "versions", "messages", "meta", "options", "metrics"}

Column = tuple[str, pa.DataType, Callable[[Any], Any]]
R = TypeVar("R")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _columns(kind: type, key: str) -> list[Column]:
    """The columns of a kind of record are its fields, under their names but for the id and the run."""
    names = {"id": key, "run": "run_id"}
    return [_column(names.get(f.name, f.name), f.name, f.type) for f in fields(kind)]


def _column(column: str, attribute: str, annotation: object = str) -> Column:
    get = attrgetter(attribute)
    dtype = BY_NAME.get(attribute) or BY_ANNOTATION.get(annotation, TEXT)
    return column, dtype, (lambda record: _json(get(record))) if attribute in AS_JSON else get


# The table of each kind of record, and the column of its id.
KEYS: Mapping[type, tuple[str, str]] = {
    types.RunInfo: ("runs", "run_id"),
    types.Prompt: ("prompts", "prompt_id"),
    types.Completion: ("completions", "completion_id"),
    types.PromptTokens: ("prompt_tokens", "prompt_tokens_id"),
    types.Judgement: ("judgements", "judgement_id"),
    types.JudgeInfo: ("judges", "judge"),
    types.JudgeCall: ("judge_calls", "judge_call_id"),
    types.PromptOutcome: ("outcomes", "outcome_id"),
    types.Pair: ("pairs", "pair_id"),
    types.Example: ("examples", "example_id"),
    types.LogProb: ("logprobs", "logprob_id"),
    types.Divergence: ("divergences", "divergence_id"),
    types.Update: ("updates", "update_id"),
    types.UpdateStep: ("update_steps", "update_step_id"),
    types.UpdatePair: ("update_pairs", "update_pair_id"),
    types.Checkpoint: ("checkpoints", "checkpoint_id"),
    types.Evaluation: ("evaluations", "evaluation_id"),
    types.Decision: ("decisions", "decision_id"),
    types.Stop: ("stops", "stop_id"),
    types.QueryInfo: ("queries", "query_id"),
    types.Removal: ("removals", "checkpoint_id"),
    types.RunModel: ("run_models", "run_id"),
}
ROLES = ("policy", "opponent", "reference", "initial")
ROUND = [
    _column("round_id", "id"), _column("run_id", "run"), _column("round", "index", int),
    *(_column(f"{role}_id", f"{role}.id") for role in ROLES),
    _column("prompt_ids", "prompt_ids", Sequence[str]), _column("judge", "judge"),
]  # fmt: skip
TABLES = {kind: (name, _columns(kind, key)) for kind, (name, key) in KEYS.items()} | {Round: ("rounds", ROUND)}


def to_arrow(records: Sequence[Record]) -> tuple[str, pa.Table]:
    """The table name and the Arrow table of records of one kind."""
    name, columns = TABLES[type(records[0])]
    return name, pa.table({column: _array([get(r) for r in records], dtype) for column, dtype, get in columns})


def _array(values: Sequence[Any], dtype: pa.DataType) -> pa.Array:
    """Lists of numbers become one flat buffer with offsets, without a Python object per token."""
    if dtype not in (TOKENS, LOGPROBS):
        return pa.array(values, dtype)
    flat = np.concatenate([np.asarray(v, dtype=dtype.value_type.to_pandas_dtype()) for v in values])
    return pa.ListArray.from_arrays(np.cumsum([0, *map(len, values)], dtype=np.int32), pa.array(flat))


def to_prompt(row: Mapping[str, Any]) -> Prompt:
    messages = tuple(json.loads(row["messages"]))
    return Prompt(row["prompt_id"], messages, row["split"], row["source"], json.loads(row["meta"]))


def to_record(kind: type[R], row: Mapping[str, Any]) -> R:
    """A record of `kind` from a row, for kinds whose columns are their fields: all but Prompt and Round."""
    values = (json.loads(row[column]) if column in AS_JSON else row[column] for column, _, _ in TABLES[kind][1])
    return cast(Callable[..., R], kind)(*values)
