"""The edges of the lineage: the SQL that leads from rows to the rows one step away, and a short label of each row."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Edge:
    """A step from rows of one kind to rows of another, which are their `role`.

    `find` selects the columns `of` and `id` for the rows whose ids replace {ids}. The ids are constants, so that
    DuckDB uses an index. If there is a step between, `via` selects the columns `of`, `key` and whatever else `find`
    needs. In `find` its result is the table `a`, and {ids} are its keys.
    """

    kind: str
    role: str
    other: str
    find: str
    via: str | None = None
    first: bool = False  # followed from the first row of a walk only


# The table of each kind, its key, and a short label in SQL.
KINDS: dict[str, tuple[str, str, str]] = {
    "run": ("runs", "run_id", "name"),
    "round": ("rounds", "round_id", "format('round {} of {}', round, run_id)"),
    "prompt": ("prompts", "prompt_id", "messages ->> '$[#-1].content'"),
    "completion": ("completions", "completion_id", "text"),
    "prompt_tokens": ("prompt_tokens", "prompt_tokens_id", "format('{} tokens', len(token_ids))"),
    "judgement": (
        "judgements",
        "judgement_id",
        """concat_ws(', ', judge, nullif(member, ''), nullif(principle, ''),
            CASE WHEN rival_id IS NOT NULL THEN if("order" = 0, 'shown first', 'shown second') END,
            coalesce(value::VARCHAR, 'no answer'))""",
    ),
    "judge": ("judges", "judge", "kind"),
    "judge_call": ("judge_calls", "judge_call_id", "concat_ws(', ', model, nullif(error, ''))"),
    "outcome": ("outcomes", "outcome_id", "format('round {}: {}', round, outcome)"),
    "pair": ("pairs", "pair_id", "format('{}, margin {}', builder, margin)"),
    "example": ("examples", "example_id", "format('{}, reward {}', builder, reward)"),
    "logprob": ("logprobs", "logprob_id", "value::VARCHAR"),
    "divergence": ("divergences", "divergence_id", "value::VARCHAR"),
    "update": ("updates", "update_id", "format('round {}: {} on {} rows', round, algorithm, n_examples)"),
    "update_step": ("update_steps", "update_step_id", "format('step {}', step)"),
    "checkpoint": ("checkpoints", "checkpoint_id", "path"),
    "evaluation": ("evaluations", "evaluation_id", "format('round {}: {} {}', round, metric, value)"),
    "decision": ("decisions", "decision_id", "format('round {}: {} by {}', round, kind, decided_by)"),
    "stop": ("stops", "stop_id", "message"),
    "query": ("queries", "query_id", "plug"),
}


def _own(kind: str, column: str, other: str, role: str = "") -> Edge:
    """An edge to the row whose id is in this row's `column`."""
    table, key, _ = KINDS[kind]
    # The walk leaves out NULLs: a condition on them here would keep DuckDB from using the key's index.
    sql = f'SELECT {key} AS "of", {column} AS id FROM {table} WHERE {key} IN ({{ids}})'
    return Edge(kind, role or other, other, sql)


def _named_by(kind: str, other: str, column: str, role: str = "", first: bool = False) -> Edge:
    """An edge to the rows that have this row's id in their `column`."""
    table, key, _ = KINDS[other]
    sql = f'SELECT {column} AS "of", {key} AS id FROM {table} WHERE {column} IN ({{ids}})'
    return Edge(kind, role or other, other, sql, first=first)


def _of_round(kind: str, other: str) -> Edge:
    """An edge to the rows of the same run and round."""
    (table, key, _), (there, its_key, _) = KINDS[kind], KINDS[other]
    sql = f'SELECT s.{key} AS "of", t.{its_key} AS id FROM {table} s JOIN {there} t USING (run_id, round)'
    return Edge(kind, other, other, f"{sql} WHERE s.{key} IN ({{ids}})")


# The judgements of the answers in a pair or example, by the judge of its round.
_SAID = """SELECT DISTINCT a."of", t.judgement_id AS id
    FROM a JOIN (FROM judgements WHERE completion_id IN ({ids})) t ON t.completion_id = a.key AND t.judge = a.judge"""
_ANSWERS = """SELECT pair_id AS "of", unnest([chosen_id, rejected_id]) AS key, judge
    FROM pairs JOIN rounds USING (run_id, round) WHERE pair_id IN ({ids})"""
_ANSWER = """SELECT example_id AS "of", completion_id AS key, judge
    FROM examples JOIN rounds USING (run_id, round) WHERE example_id IN ({ids})"""
# The other way round.
_JUDGED = 'SELECT judgement_id AS "of", completion_id AS key, judge FROM judgements WHERE judgement_id IN ({ids})'
_IN_PAIRS = """SELECT a."of", t.pair_id AS id
    FROM a JOIN (SELECT pair_id, run_id, round, unnest([chosen_id, rejected_id]) AS key FROM pairs
                 WHERE chosen_id IN ({ids}) OR rejected_id IN ({ids})) t USING (key)
    JOIN rounds r USING (run_id, round, judge)"""
_IN_EXAMPLES = """SELECT a."of", t.example_id AS id FROM a JOIN examples t ON t.completion_id = a.key
    JOIN rounds r USING (run_id, round, judge)"""
# A reward model's training names its pairs one by one.
_LISTED = 'SELECT {of} AS "of", {id} AS id FROM update_pairs WHERE {of} IN ({ids})'

CAUSES = [
    _own("completion", "prompt_id", "prompt"),
    _own("completion", "policy_id", "checkpoint", "policy"),
    _own("completion", "parent_id", "completion", "goes on from"),
    _own("judgement", "completion_id", "completion"),
    _own("judgement", "rival_id", "completion", "rival"),
    _own("judgement", "judge", "judge"),
    Edge(
        "judgement", "policy that judged", "checkpoint",
        """SELECT judgement_id AS "of", split_part(member, '|', -1) AS id FROM judgements
        WHERE judgement_id IN ({ids}) AND member <> ''""",
    ),
    Edge(
        "judge", "model", "checkpoint",
        """SELECT judge AS "of", checkpoint_id AS id
        FROM (SELECT judge, unnest(weights_sha256) AS weights_sha256 FROM judges WHERE judge IN ({ids}))
        JOIN checkpoints USING (weights_sha256)""",
    ),
    _own("judge_call", "judgement_id", "judgement"),
    _own("outcome", "prompt_id", "prompt"),
    _own("pair", "chosen_id", "completion", "chosen"),
    _own("pair", "rejected_id", "completion", "rejected"),
    _own("pair", "reference_sample_id", "completion", "reference sample"),
    Edge("pair", "judgement", "judgement", _SAID, _ANSWERS),
    _own("example", "completion_id", "completion"),
    Edge("example", "judgement", "judgement", _SAID, _ANSWER),
    _own("logprob", "completion_id", "completion"),
    _own("divergence", "completion_id", "completion"),
    _own("update", "before_id", "checkpoint", "before"),
    Edge(
        "update", "reference", "checkpoint",
        'SELECT update_id AS "of", unnest(reference_ids) AS id FROM updates WHERE update_id IN ({ids})',
    ),
    _of_round("update", "pair"),
    Edge("update", "pair", "pair", _LISTED.format(of="update_id", id="pair_id", ids="{ids}")),
    _of_round("update", "example"),
    _own("update_step", "update_id", "update"),
    _named_by("checkpoint", "update", "after_id"),
    _own("evaluation", "candidate_id", "checkpoint", "candidate"),
    _own("evaluation", "rival_id", "checkpoint", "rival"),
    _own("decision", "policy_id", "checkpoint"),
    *(_own("round", f"{role}_id", "checkpoint", role) for role in ("policy", "opponent", "reference", "initial")),
    _own("round", "judge", "judge"),
    Edge(
        "round", "prompt", "prompt",
        'SELECT round_id AS "of", unnest(prompt_ids) AS id FROM rounds WHERE round_id IN ({ids})',
    ),
    _of_round("stop", "round"),
    _own("query", "run_id", "run"),
]  # fmt: skip

EFFECTS = [
    _named_by("run", "round", "run_id"),
    _of_round("round", "update"),
    _named_by("prompt", "completion", "prompt_id"),
    _named_by("prompt", "outcome", "prompt_id"),
    _named_by("completion", "judgement", "completion_id"),
    _named_by("completion", "judgement", "rival_id", "judgement as rival"),
    _named_by("completion", "pair", "chosen_id", "chosen in pair"),
    _named_by("completion", "pair", "rejected_id", "rejected in pair"),
    _named_by("completion", "example", "completion_id"),
    _named_by("completion", "completion", "parent_id", "goes on as"),
    _named_by("judgement", "judge_call", "judgement_id"),
    # From a completion, pairs and examples are reached directly.
    Edge("judgement", "pair", "pair", _IN_PAIRS, _JUDGED, first=True),
    Edge("judgement", "example", "example", _IN_EXAMPLES, _JUDGED, first=True),
    _named_by("judge", "judgement", "judge"),
    _of_round("pair", "update"),
    Edge("pair", "update", "update", _LISTED.format(of="pair_id", id="update_id", ids="{ids}")),
    _of_round("example", "update"),
    _own("update", "after_id", "checkpoint", "after"),
    _named_by("checkpoint", "evaluation", "candidate_id"),
    _named_by("checkpoint", "decision", "policy_id"),
    _named_by("checkpoint", "update", "before_id", "went on to", first=True),
    _named_by("checkpoint", "completion", "policy_id", "wrote", first=True),
]  # fmt: skip
