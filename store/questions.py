"""Named questions. Each is a view of the same name, so that `spar ask` and SQL return the same rows."""

from dataclasses import dataclass

import duckdb
import pyarrow as pa

from sparring.loop.errors import ConfigError
from sparring.store.db import table


@dataclass(frozen=True)
class Question:
    """A view, the question that it answers, the columns that are shown first, and the order of rows in SQL."""

    name: str
    asks: str
    columns: tuple[str, ...]
    order: str


# By view: the question, the columns that are shown first, the order of rows.
_ALL = {
    "results": (
        "Did the candidates get better? Pass rate and win rate by round, with 95 % intervals.",
        "run_id, round, accepted, pass_rate, pass_low, pass_high, win_rate, win_low, win_high, win_n",
        "run_id, round, candidate_id, rival_id",
    ),
    "round_summary": (
        "What happened in each round, from prompts to the gate?",
        "run_id, round, prompts, completions, judged, pairs, mean_score, loss, pass_rate, win_rate, accepted",
        "run_id, round",
    ),
    "length_drift": (
        "Do answers get longer, and are the chosen ones the longer ones?",
        "run_id, round, mean_tokens, growth, truncated, chosen_tokens, rejected_tokens, eval_tokens, eval_growth",
        "run_id, round",
    ),
    "judge_agreement": (
        "How often do two judges name the same winner?",
        "run_id, judge, other_judge, duels, agreement, opposed",
        "run_id, agreement, judge, other_judge",
    ),
    "position_bias": (
        "Does a judge of pairs look at the place instead of the answer?",
        "run_id, judge, duels, disagree, both_first, both_second",
        "run_id, disagree DESC, judge",
    ),
    "pair_yield": (
        "What became of the prompts of each round, and does it add up?",
        "run_id, round, prompts, paired, ties, identical, abstained, filtered, failed, open, holds, found",
        "run_id, round",
    ),
    "trained_on": (
        "What did each update learn from, and with which reference?",
        "run_id, round, algorithm, prompts, pairs, examples, before_id, after_id, reference_ids, accepted",
        "run_id, round, update_id",
    ),
    "trained_rows": (
        "Which pairs and answers were they?",
        "run_id, round, kind, prompt, value, weight, id",
        "run_id, round, update_id, kind, id",
    ),
    "pair_texts": (
        "What do the pairs say?",
        "run_id, round, prompt, chosen, rejected, margin",
        "run_id, round, pair_id",
    ),
    "decided_prompts": (
        "On which prompts do answers differ most in the eyes of the judges?",
        "run_id, round, split, prompt, spread, judges, outcome, margin, against",
        "spread DESC, against NULLS LAST, run_id, round, prompt_id",
    ),
    "undecided_prompts": (
        "On which prompts can judges hardly tell answers apart?",
        "run_id, round, split, prompt, spread, judges, outcome, margin, against",
        "spread, against DESC NULLS LAST, run_id, round, prompt_id",
    ),
    "near_identical": (
        "Which answers does a run repeat, word by word or nearly?",
        "run_id, completions, identical, overlap, prompts, first_round, last_round, text",
        "completions DESC, run_id, completion_ids",
    ),
    "judge_costs": (
        "What did the judges that ask a model cost?",
        "run_id, judge, model, calls, failed, prompt_tokens, completion_tokens, cost, seconds",
        "run_id, cost DESC NULLS LAST, judge, model",
    ),
    "hacking_signs": (
        "Does the score rise while another judge, or the length, says no?",
        "run_id, round, hacking, reason, judge, score_change, other_judge, other_change, tokens_change",
        "run_id, round",
    ),
}
QUESTIONS = {
    name: Question(name, asks, tuple(columns.split(", ")), order) for name, (asks, columns, order) in _ALL.items()
}


def answer(con: duckdb.DuckDBPyConnection, name: str, *, run: str | None = None, limit: int | None = None) -> pa.Table:
    """The first `limit` rows of a question, all columns, of the run with this id or of every run.

    Raises ConfigError for an unknown question.
    """
    if name not in QUESTIONS:
        raise ConfigError(f"there is no question {name!r}; ask one of {', '.join(QUESTIONS)}")
    where = "" if run is None else "WHERE run_id = $run"
    most = "" if limit is None else f"LIMIT {int(limit)}"
    sql = f"SELECT * FROM {name} {where} ORDER BY {QUESTIONS[name].order} {most}"
    return table(con, sql, None if run is None else {"run": run})
