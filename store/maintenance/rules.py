"""The rules that every store must keep, as SQL: each selects, as `id`, the rows that break it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LOST = "rows were lost, or removed by hand: spar store rebuild restores the rows of the parts; else restore a backup"
ODD = "rows were written by hand or by a defect: see them with spar sql, and restore a backup from before them"


@dataclass(frozen=True)
class Rule:
    name: str
    sql: str
    remedy: str


@dataclass(frozen=True)
class Reference:
    """`table.column`, unless it is NULL, is the `key` of a row of `target`."""

    table: str
    column: str
    target: str
    key: str
    where: str = "TRUE"

    def rule(self, id: str) -> Rule:
        return Rule(
            f"{self.table}.{self.column} -> {self.target}",
            f'SELECT a."{id}" AS id FROM {self.table} a ANTI JOIN {self.target} b ON a.{self.column} = b.{self.key} '
            f"WHERE a.{self.column} IS NOT NULL AND {self.where}",
            LOST,
        )


def _all(target: str, key: str, *columns: str) -> list[Reference]:
    return [Reference(table, column, target, key) for table, _, column in (name.partition(".") for name in columns)]


REFERENCES = [
    *_all("runs", "run_id", "rounds.run_id", "completions.run_id", "outcomes.run_id", "pairs.run_id"),
    *_all("runs", "run_id", "examples.run_id", "updates.run_id", "checkpoints.run_id", "evaluations.run_id"),
    *_all("runs", "run_id", "decisions.run_id", "stops.run_id", "removals.run_id", "queries.run_id"),
    *_all("runs", "run_id", "run_models.run_id"),
    *_all("prompts", "prompt_id", "completions.prompt_id", "outcomes.prompt_id", "pairs.prompt_id"),
    *_all("prompts", "prompt_id", "examples.prompt_id"),
    Reference("completions", "policy_id", "checkpoints", "checkpoint_id", "a.policy_id <> ''"),  # '': nobody's policy
    *_all("prompts", "prompt_id", "prompt_tokens.prompt_id"),
    *_all("prompt_tokens", "prompt_tokens_id", "completions.prompt_tokens_id"),
    *_all("completions", "completion_id", "completions.parent_id", "pairs.chosen_id", "pairs.rejected_id"),
    *_all("completions", "completion_id", "pairs.reference_sample_id", "examples.completion_id"),
    *_all("completions", "completion_id", "logprobs.completion_id", "divergences.completion_id"),
    *_all("judgements", "judgement_id", "judge_calls.judgement_id"),
    *_all("checkpoints", "checkpoint_id", "rounds.policy_id", "rounds.opponent_id", "rounds.reference_id"),
    *_all("checkpoints", "checkpoint_id", "rounds.initial_id", "updates.before_id", "updates.after_id"),
    *_all("checkpoints", "checkpoint_id", "checkpoints.parent_id", "evaluations.candidate_id"),
    *_all("checkpoints", "checkpoint_id", "evaluations.rival_id", "decisions.policy_id", "removals.checkpoint_id"),
    *_all("updates", "update_id", "update_steps.update_id", "update_pairs.update_id"),
    *_all("pairs", "pair_id", "update_pairs.pair_id", "source_rows.pair_id"),
    *_all("sources", "source_id", "source_rows.source_id"),
    *_all("runs", "run_id", "sources.run_id"),
    *_all("prompts", "prompt_id", "source_rows.prompt_id"),
    *_all("judgements", "judgement_id", "source_rows.judgement_id"),
    *_all("examples", "example_id", "source_rows.example_id"),
]

LEARNED = "SELECT run_id, round, prompt_id FROM pairs UNION SELECT run_id, round, prompt_id FROM examples"
SEEN = "models that learned from them have seen their own test: do not compare their held-out results with others"
FORGET = "forget the prompts again: spar store forget PROMPT_ID"

# Rules by name, after the remedy for rows that break them.
_BY_REMEDY: Sequence[tuple[str, Mapping[str, str]]] = (
    (LOST, {
        "rounds.prompt_ids -> prompts": """
            SELECT round_id AS id FROM (SELECT round_id, unnest(prompt_ids) AS prompt_id FROM rounds)
            ANTI JOIN prompts USING (prompt_id)""",
        "updates.reference_ids -> checkpoints": """
            SELECT update_id AS id FROM (SELECT update_id, unnest(reference_ids) AS checkpoint_id FROM updates)
            ANTI JOIN checkpoints USING (checkpoint_id)""",
        # Canaries and benches keep verdicts on answers that come from files. But no duel has one answer in the store
        # and the other not.
        "judgements of two answers -> completions": """
            SELECT judgement_id AS id FROM judgements j LEFT JOIN completions c ON c.completion_id = j.completion_id
            LEFT JOIN completions r ON r.completion_id = j.rival_id
            WHERE j.rival_id IS NOT NULL AND (c.completion_id IS NULL) <> (r.completion_id IS NULL)""",
        "one outcome for each prompt of a finished round": """
            WITH asked AS (
                SELECT r.run_id, r.round, unnest(r.prompt_ids) AS prompt_id FROM rounds r
                SEMI JOIN updates u ON u.run_id = r.run_id AND u.round = r.round
            )
            SELECT prompt_id AS id FROM asked LEFT JOIN outcomes o USING (run_id, round, prompt_id)
            GROUP BY run_id, round, prompt_id HAVING count(o.outcome_id) <> 1""",
    }),
    (ODD, {
        "outcomes are of prompts of their round": """
            SELECT outcome_id AS id FROM outcomes o JOIN rounds r USING (run_id, round)
            WHERE NOT list_contains(r.prompt_ids, o.prompt_id)""",
    }),
    (LOST, {
        "a prompt with outcome paired has pairs or examples": f"""
            SELECT outcome_id AS id FROM outcomes o ANTI JOIN ({LEARNED}) USING (run_id, round, prompt_id)
            WHERE o.outcome = 'paired'""",
    }),
    (ODD, {
        "a prompt with another outcome has none": f"""
            SELECT outcome_id AS id FROM outcomes o SEMI JOIN ({LEARNED}) USING (run_id, round, prompt_id)
            WHERE o.outcome <> 'paired'""",
    }),
    (SEEN, {
        "no eval prompt is learned from": """
            SELECT x.pair_id AS id FROM pairs x JOIN prompts p USING (prompt_id) JOIN runs r ON r.run_id = x.run_id
            WHERE p.split = 'eval' AND (r.kind = 'loop' OR EXISTS (FROM update_pairs u WHERE u.pair_id = x.pair_id))
            UNION ALL
            SELECT x.example_id FROM examples x JOIN prompts p USING (prompt_id) JOIN runs r ON r.run_id = x.run_id
            WHERE p.split = 'eval' AND r.kind = 'loop'""",
    }),
    (ODD, {
        f"pairs.{column} is of the pair's prompt": f"""
            SELECT x.pair_id AS id FROM pairs x JOIN completions c ON c.completion_id = x.{column}
            WHERE c.prompt_id <> x.prompt_id"""
        for column in ("chosen_id", "rejected_id", "reference_sample_id")
    }),
    (ODD, {
        "examples.completion_id is of the example's prompt": """
            SELECT example_id AS id FROM examples x JOIN completions c USING (completion_id)
            WHERE c.prompt_id <> x.prompt_id""",
        "both answers of a judgement are of one prompt": """
            SELECT judgement_id AS id FROM judgements j JOIN completions c ON c.completion_id = j.completion_id
            JOIN completions r ON r.completion_id = j.rival_id WHERE c.prompt_id <> r.prompt_id""",
        "completions have a log-prob for each token": """
            SELECT completion_id AS id FROM completions WHERE len(logprobs) <> len(token_ids)
            AND NOT (origin IN ('dataset', 'human') AND len(logprobs) = 0)""",
        "logprobs have a value for each token": """
            SELECT logprob_id AS id FROM logprobs l JOIN completions c USING (completion_id)
            WHERE l.n_tokens <> len(c.token_ids) OR len(l.token_logprobs) <> l.n_tokens""",
        "divergences are of all tokens of an answer and not negative": """
            SELECT divergence_id AS id FROM divergences d JOIN completions c USING (completion_id)
            WHERE d.n_tokens <> len(c.token_ids) OR d.value < 0""",
        "a duel's value is a probability":
            "SELECT judgement_id AS id FROM judgements WHERE rival_id IS NOT NULL AND NOT value BETWEEN 0 AND 1",
        "a judgement is answered where it has a value, else abstained or unreached": """
            SELECT judgement_id AS id FROM judgements WHERE status IS NULL OR CASE WHEN value IS NULL
            THEN status NOT IN ('abstained', 'unreached') ELSE status <> 'answered' END""",
        "a run is of a known kind":
            "SELECT run_id AS id FROM runs WHERE kind IS NULL OR kind NOT IN ('loop', 'reward', 'evaluate', 'import')",
        "numbers are finite": """
            SELECT judgement_id AS id FROM judgements WHERE NOT isfinite(value)
            UNION ALL SELECT pair_id FROM pairs WHERE NOT (isfinite(margin) AND isfinite(weight))
            UNION ALL SELECT example_id FROM examples WHERE NOT (isfinite(reward) AND isfinite(weight))
            UNION ALL SELECT logprob_id FROM logprobs WHERE NOT isfinite(value)
            UNION ALL SELECT divergence_id FROM divergences WHERE NOT isfinite(value)
            UNION ALL SELECT evaluation_id FROM evaluations WHERE NOT isfinite(value)""",
    }),
    (FORGET, {
        "nothing is left of what was forgotten": """
            SELECT prompt_id AS id FROM prompts SEMI JOIN forgotten USING (prompt_id)
            UNION ALL SELECT completion_id FROM completions SEMI JOIN forgotten USING (prompt_id)
            UNION ALL SELECT round_id FROM (SELECT round_id, unnest(prompt_ids) AS prompt_id FROM rounds)
                SEMI JOIN forgotten USING (prompt_id)""",
    }),
)  # fmt: skip
RULES = [Rule(name, sql, remedy) for remedy, by_name in _BY_REMEDY for name, sql in by_name.items()]
