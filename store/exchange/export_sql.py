"""The SQL of an export, over one round of a run, with the columns that TRL, OpenRLHF and axolotl read.

The columns that a trainer reads come first, then numbers, then ids. Columns that begin with an underscore are for the
writer and not for the file: whether a row is `_kept`, whether its prompt is a `_single` turn, `_prompt`, `_source`.
"""

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from sparring.store.exchange.formats import CHAT, PLAIN, Style, Text, What

ASKED = """asked AS (
    SELECT prompt_id, source, from_json(messages, '[{"role": "VARCHAR", "content": "VARCHAR"}]') AS messages
    FROM prompts WHERE split = $split
)"""
# Full answers only: a partial answer of a tree is part of the answers that continue it.
ANSWERS = """answers AS (
    SELECT c.* FROM completions c SEMI JOIN asked USING (prompt_id)
    ANTI JOIN completions k ON k.parent_id = c.completion_id WHERE c.run_id = $run AND c.round = $round
)"""
# A judge of single answers gives scores. For a judge of pairs, an answer's score is the mean over its duels.
VERDICTS = """scored AS (
    SELECT j.completion_id, j.judge, avg(j.value) AS score FROM judgements j SEMI JOIN answers USING (completion_id)
    WHERE j.rival_id IS NULL AND j.value IS NOT NULL GROUP BY ALL
),
duel AS (SELECT d.* FROM duels d SEMI JOIN answers USING (completion_id) WHERE p_wins IS NOT NULL),
won AS (SELECT completion_id, judge, p_wins FROM duel UNION ALL SELECT rival_id, judge, 1 - p_wins FROM duel),
verdict AS (
    SELECT * FROM (
        FROM scored
        UNION ALL
        SELECT w.completion_id, w.judge, avg(p_wins) FROM won w SEMI JOIN answers USING (completion_id)
        ANTI JOIN scored USING (completion_id, judge) GROUP BY ALL)
    WHERE $judge IS NULL OR judge = $judge
),
mean AS (SELECT completion_id, avg(score) AS score FROM verdict GROUP BY ALL)"""
WRITER = "len(p.messages) = 1 AND p.messages[1].role = 'user' AS _single, p.prompt_id AS _prompt, p.source AS _source"


PAIRS = f"""
WITH {ASKED},
wanted AS (
    SELECT x.*, s.source_id, s.number FROM pairs x SEMI JOIN asked USING (prompt_id)
    LEFT JOIN source_rows s USING (pair_id) WHERE x.run_id = $run AND x.round = $round
),
answers AS (SELECT chosen_id AS completion_id FROM wanted UNION SELECT rejected_id FROM wanted),
scored AS (
    SELECT completion_id, avg(score) AS score FROM (
        SELECT j.completion_id, j.judge, avg(j.value) AS score FROM judgements j SEMI JOIN answers USING (completion_id)
        WHERE j.rival_id IS NULL GROUP BY ALL)
    GROUP BY ALL
)
SELECT {{columns}}, cs.score AS chosen_score, rs.score AS rejected_score, x.p_chosen, x.margin, x.weight, x.builder,
    x.pair_id, x.run_id, x.round, x.prompt_id, p.source, true AS _kept, {WRITER}
FROM wanted x JOIN asked p USING (prompt_id)
JOIN completions c ON c.completion_id = x.chosen_id JOIN completions r ON r.completion_id = x.rejected_id
LEFT JOIN scored cs ON cs.completion_id = x.chosen_id LEFT JOIN scored rs ON rs.completion_id = x.rejected_id
ORDER BY x.source_id, x.number, x.pair_id"""

GROUPS = f"""
WITH {ASKED}, {ANSWERS}, {VERDICTS},
place AS (
    SELECT prompt_id, completion_id, text, m.score,
        [origin, policy_id, lpad(sample::VARCHAR, 9, '0'), completion_id] AS o
    FROM answers LEFT JOIN mean m USING (completion_id)
),
grouped AS (
    SELECT prompt_id, list(text ORDER BY o) AS texts, list(score ORDER BY o) AS scores,
        list(completion_id ORDER BY o) AS completion_ids
    FROM place GROUP BY prompt_id
),
asked_of AS (SELECT DISTINCT prompt_id, judge FROM verdict JOIN place USING (completion_id)),
each_judge AS (
    SELECT q.prompt_id, q.judge, list(v.score ORDER BY k.o) AS scores
    FROM asked_of q JOIN place k USING (prompt_id) LEFT JOIN verdict v USING (completion_id, judge) GROUP BY ALL
),
judged AS (
    SELECT prompt_id, list({{'judge': judge, 'scores': scores}} ORDER BY judge) AS by_judge
    FROM each_judge GROUP BY ALL
)
SELECT {{columns}}, g.scores, coalesce(j.by_judge, []) AS by_judge, g.completion_ids, $run AS run_id,
    $round::INTEGER AS round, prompt_id, p.source, true AS _kept, {WRITER}
FROM grouped g JOIN asked p USING (prompt_id) LEFT JOIN judged j USING (prompt_id) ORDER BY prompt_id"""

LABELS = f"""
WITH {ASKED}
SELECT {{columns}}, e.reward = 1 AS label, e.weight, e.builder, e.example_id, e.run_id, e.round, e.prompt_id,
    e.completion_id, p.source, true AS _kept, {WRITER}
FROM examples e JOIN asked p USING (prompt_id) JOIN completions c USING (completion_id)
LEFT JOIN source_rows s USING (example_id)
WHERE e.run_id = $run AND e.round = $round AND e.builder <> 'group' ORDER BY s.source_id, s.number, e.example_id"""

LABELS_AT = f"""
WITH {ASKED}, {ANSWERS}, {VERDICTS}
SELECT {{columns}}, m.score >= $at AS label, m.score, c.run_id, c.round, c.prompt_id, c.completion_id, p.source,
    m.score IS NOT NULL AS _kept, {WRITER}
FROM answers c JOIN asked p USING (prompt_id) LEFT JOIN mean m USING (completion_id)
ORDER BY c.prompt_id, c.origin, c.policy_id, c.sample, c.completion_id"""

# An imported file gives one comparison per row, as in the file. Rows of pairs have the chosen answer first, so they are
# put into an order that does not tell. A judge here gives one comparison per two answers, the mean over its members and
# principles.
COMPARISONS = f"""
WITH {ASKED}, {ANSWERS},
given AS (
    SELECT s.source_id, s.number, j.judge, {{fields}} AS fields,
        f.shape = 'pairs' AND right(j.judgement_id, 1) IN ('1', '3', '5', '7', '9', 'b', 'd', 'f') AS swapped,
        CASE WHEN swapped THEN j.rival_id ELSE j.completion_id END AS a_id,
        CASE WHEN swapped THEN j.completion_id ELSE j.rival_id END AS b_id,
        CASE WHEN swapped THEN 1 - j.value ELSE j.value END AS p
    FROM source_rows s JOIN sources f USING (source_id) JOIN judgements j USING (judgement_id)
    WHERE f.run_id = $run
),
made AS (
    SELECT d.judge, d.completion_id AS a_id, d.rival_id AS b_id, avg(d.p_wins) AS p
    FROM duels d SEMI JOIN answers USING (completion_id) LEFT JOIN judges k USING (judge)
    WHERE d.p_wins IS NOT NULL AND k.kind IS DISTINCT FROM 'import' GROUP BY ALL
),
compared AS (FROM given UNION ALL BY NAME FROM made)
SELECT {{columns}}, c.text AS response_a, r.text AS response_b,
    CASE WHEN x.p > 0.5 THEN 'a' WHEN x.p < 0.5 THEN 'b' ELSE 'tie' END AS label, {{p_a}} AS p_a, {{given}}{{own}},
    true AS _kept, {WRITER}
FROM compared x JOIN answers c ON c.completion_id = x.a_id JOIN completions r ON r.completion_id = x.b_id
JOIN asked p ON p.prompt_id = c.prompt_id
WHERE $judge IS NULL OR x.judge = $judge
ORDER BY x.source_id, x.number, x.judge, c.prompt_id, c.sample, r.sample, x.a_id, x.b_id"""
OWN: Mapping[str, str] = {  # of comparisons; a column of the imported file replaces the one of the same name
    "judge": "x.judge",
    "run_id": "c.run_id",
    "round": "c.round",
    "prompt_id": "c.prompt_id",
    "response_a_id": "x.a_id",
    "response_b_id": "x.b_id",
    "source": "p.source",
}

# The rounds with rows to export.
UNITS: Mapping[What, str] = {
    "pairs": "SELECT DISTINCT run_id, round FROM pairs",
    "groups": "SELECT DISTINCT run_id, round FROM completions",
    "labels": "SELECT DISTINCT run_id, round FROM examples WHERE builder <> 'group'",
    "comparisons": """SELECT DISTINCT c.run_id, c.round FROM completions c
        SEMI JOIN (FROM judgements WHERE rival_id IS NOT NULL) USING (completion_id)""",
}
UNITS_AT = UNITS["groups"]


# Columns of an imported file that comparisons have themselves.
TAKEN = frozenset({"messages", "response_a", "response_b", "label", "p_a"})


def query(what: What, style: Style, text: Text, at: float | None, structure: str) -> str:
    """The SQL for one round. `structure`: the fields of an imported file's rows, as DuckDB's json_structure gives."""
    columns = PLAIN[what] if text == "plain" else CHAT[what, style]
    if what == "comparisons":
        taken = TAKEN | ({"prompt"} if text == "plain" else set())
        return _filled(COMPARISONS, columns=columns, **_with_given(json.loads(structure), taken))
    sql = {"pairs": PAIRS, "groups": GROUPS, "labels": LABELS if at is None else LABELS_AT}[what]
    return _filled(sql, columns=columns)


def _filled(sql: str, **parts: str) -> str:
    """The SQL with each {part} filled in. Other braces are DuckDB's."""
    for name, part in parts.items():
        sql = sql.replace(f"{{{name}}}", part)
    return sql


def _with_given(structure: Mapping[str, Any], taken: AbstractSet[str]) -> dict[str, str]:
    """The parts of COMPARISONS. A column that is empty in all rows has no type, and is read as text."""
    kept = [name for name in structure if name not in taken and not name.startswith("_")]
    types = json.dumps(structure).replace('"NULL"', '"VARCHAR"').replace("'", "''")
    return {
        "fields": f"from_json(s.fields, '{types}')" if structure else "NULL",
        "p_a": "coalesce(x.fields.p_a, x.p)" if "p_a" in structure else "x.p",
        "given": "".join(f"x.fields.{_quoted(name)} AS {_quoted(name)}, " for name in kept),
        "own": ", ".join(f"{sql} AS {name}" for name, sql in OWN.items() if name not in kept),
    }


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
