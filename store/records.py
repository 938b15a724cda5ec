"""Records to Arrow and back: which table a record goes to, and the type of each column."""

import json
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa

from sparring.loop.types import (
    Checkpoint,
    Completion,
    Decision,
    Evaluation,
    Example,
    JudgeCall,
    JudgeInfo,
    Judgement,
    LogProb,
    Pair,
    Prompt,
    PromptOutcome,
    QueryInfo,
    Record,
    Removal,
    Round,
    RunInfo,
    Stop,
    Update,
    UpdatePair,
    UpdateStep,
)

TEXT, INT, REAL, BIG = pa.string(), pa.int32(), pa.float64(), pa.int64()
TOKENS, LOGPROBS = pa.list_(pa.int32()), pa.list_(pa.float32())


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _lists(values: Sequence[Sequence[Any]], dtype: pa.DataType) -> pa.Array:
    """Ragged rows as one flat buffer with offsets, without a Python object per token."""
    flat = np.concatenate([np.asarray(v, dtype=dtype.value_type.to_pandas_dtype()) for v in values])
    return pa.ListArray.from_arrays(np.cumsum([0, *map(len, values)], dtype=np.int32), pa.array(flat))


Column = tuple[str, pa.DataType, Callable[[Any], Any]]


def _same(*names: str, type: pa.DataType = TEXT) -> list[Column]:
    return [_named(name, name, type) for name in names]


def _named(column: str, attribute: str, type: pa.DataType = TEXT) -> Column:
    return (column, type, lambda record: getattr(record, attribute))


def _as_json(*names: str) -> list[Column]:
    def column(name: str) -> Column:
        return (name, TEXT, lambda record: _json(getattr(record, name)))

    return [column(name) for name in names]


RUN, ROUND = _named("run_id", "run"), _named("round", "round", INT)

TABLES: dict[type, tuple[str, list[Column]]] = {
    RunInfo: (
        "runs",
        [_named("run_id", "id"), *_same("name"), *_same("seed", type=BIG), *_as_json("config", "versions")]
        + _same("config_sha256", "kind"),
    ),
    Round: (
        "rounds",
        [
            _named("round_id", "id"),
            RUN,
            _named("round", "index", INT),
            ("policy_id", TEXT, lambda r: r.policy.id),
            ("opponent_id", TEXT, lambda r: r.opponent.id),
            ("reference_id", TEXT, lambda r: r.reference.id),
            ("initial_id", TEXT, lambda r: r.initial.id),
            _named("prompt_ids", "prompt_ids", pa.list_(TEXT)),
            *_same("judge"),
        ],
    ),
    Prompt: (
        "prompts",
        [_named("prompt_id", "id"), *_as_json("messages"), *_same("split", "source"), *_as_json("meta")],
    ),
    Completion: (
        "completions",
        [_named("completion_id", "id"), RUN, ROUND, *_same("prompt_id", "policy_id"), *_same("sample", type=INT)]
        + _same("origin", "text")
        + [*_same("token_ids", type=TOKENS), *_same("logprobs", type=LOGPROBS), *_same("finish_reason")]
        + [*_same("temperature", "top_p", type=REAL), *_same("seed", type=BIG), *_same("parent_id")],
    ),
    Judgement: (
        "judgements",
        [_named("judgement_id", "id"), *_same("judge", "completion_id", "rival_id", "member", "principle")]
        + [*_same("order", type=INT), *_same("value", type=REAL), *_same("rationale", "status")],
    ),
    JudgeInfo: (
        "judges",
        [_named("judge", "id"), *_same("kind"), *_as_json("options")] + _same("weights_sha256", type=pa.list_(TEXT)),
    ),
    JudgeCall: (
        "judge_calls",
        [_named("judge_call_id", "id"), *_same("judge", "judgement_id"), *_same("attempt", type=INT)]
        + [*_same("model", "reply", "error"), *_same("prompt_tokens", "completion_tokens", type=INT)]
        + _same("cost", "seconds", type=REAL),
    ),
    PromptOutcome: ("outcomes", [_named("outcome_id", "id"), RUN, ROUND, *_same("prompt_id", "outcome", "reason")]),
    Pair: (
        "pairs",
        [_named("pair_id", "id"), RUN, ROUND, *_same("prompt_id", "chosen_id", "rejected_id")]
        + [*_same("p_chosen", "margin", "weight", type=REAL), *_same("builder", "reference_sample_id")],
    ),
    Example: (
        "examples",
        [_named("example_id", "id"), RUN, ROUND, *_same("prompt_id", "completion_id")]
        + [*_same("reward", "weight", type=REAL), *_same("builder")],
    ),
    LogProb: (
        "logprobs",
        [_named("logprob_id", "id"), *_same("completion_id", "weights_sha256"), *_same("value", type=REAL)]
        + [*_same("n_tokens", type=INT), *_same("token_logprobs", type=LOGPROBS)],
    ),
    Update: (
        "updates",
        [_named("update_id", "id"), RUN, ROUND, *_same("algorithm", "before_id", "after_id")]
        + [*_same("n_examples", type=INT), *_same("seconds", type=REAL), *_as_json("metrics")]
        + _same("reference_ids", type=pa.list_(TEXT)),
    ),
    UpdateStep: (
        "update_steps",
        [_named("update_step_id", "id"), *_same("update_id"), *_same("step", type=INT), *_as_json("metrics")],
    ),
    UpdatePair: ("update_pairs", [_named("update_pair_id", "id"), *_same("update_id", "pair_id")]),
    Checkpoint: ("checkpoints", [_named("checkpoint_id", "id"), RUN, *_same("path", "parent_id", "weights_sha256")]),
    Evaluation: (
        "evaluations",
        [_named("evaluation_id", "id"), RUN, ROUND, *_same("candidate_id", "rival_id", "metric")]
        + [*_same("value", "low", "high", type=REAL), *_same("n", type=INT)],
    ),
    Decision: (
        "decisions",
        [_named("decision_id", "id"), RUN, ROUND, *_same("number", type=INT)]
        + _same("kind", "policy_id", "reason", "decided_by"),
    ),
    Stop: (
        "stops",
        [_named("stop_id", "id"), RUN, ROUND, *_same("rule"), *_same("found", "bound", type=REAL), *_same("message")],
    ),
    QueryInfo: ("queries", [_named("query_id", "id"), RUN, *_same("plug", "sql", "sql_sha256")]),
    Removal: ("removals", [_named("checkpoint_id", "id"), RUN, *_same("reason")]),
}


def to_arrow(records: Sequence[Record]) -> tuple[str, pa.Table]:
    """The table name and the Arrow table of records of one kind."""
    name, columns = TABLES[type(records[0])]
    arrays = {
        column: _lists([get(r) for r in records], dtype)
        if dtype in (TOKENS, LOGPROBS)
        else pa.array([get(r) for r in records], dtype)
        for column, dtype, get in columns
    }
    return name, pa.table(arrays)


def to_prompt(row: dict[str, Any]) -> Prompt:
    messages = tuple(json.loads(row["messages"]))
    return Prompt(row["prompt_id"], messages, row["split"], row["source"], json.loads(row["meta"]))


def to_record(kind: type, row: dict[str, Any]) -> Any:
    """A record of `kind` from a row, for kinds whose columns are their fields: all but Prompt, Round and RunInfo."""
    _, columns = TABLES[kind]
    renamed = {f"{columns[0][0]}": "id", "run_id": "run"}
    return cast(Callable[..., Any], kind)(**{renamed.get(c, c): row[c] for c, _, _ in columns})
