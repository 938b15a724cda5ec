"""The questions for a person, from the store, and the agreement of their answers with other judges."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from sparring.judges.bench import Agreement, agreement
from sparring.judges.human import Both, Question, questions, read
from sparring.loop.errors import StoreError
from sparring.loop.judgements import to_judge
from sparring.loop.types import Answers, Group, Split
from sparring.store.db import rows
from sparring.store.store import DuckStore

# The round $round, or the last round that has answers.
TRAIN = """
SELECT k.*, r.round, r.prompt_ids FROM rounds r JOIN checkpoints k ON k.checkpoint_id = r.policy_id
WHERE r.run_id = $run AND r.round = coalesce($round, r.round) AND EXISTS (
    FROM completions c JOIN prompts p USING (prompt_id)
    WHERE c.run_id = r.run_id AND c.round = r.round AND p.split = 'train')
ORDER BY r.round DESC LIMIT 1
"""
EVAL = """
WITH measured AS (
    SELECT run_id, round, candidate_id, rival_id FROM evaluations
    WHERE run_id = $run AND round = coalesce($round, round) AND candidate_id <> rival_id
    ORDER BY round DESC LIMIT 1
)
SELECT k.*, m.round, (
    SELECT list(DISTINCT p.prompt_id ORDER BY p.prompt_id) FROM completions c JOIN prompts p USING (prompt_id)
    WHERE c.run_id = m.run_id AND c.policy_id = m.candidate_id AND p.split = 'eval') AS prompt_ids
FROM measured m JOIN checkpoints k ON k.checkpoint_id IN (m.candidate_id, m.rival_id)
ORDER BY k.checkpoint_id = m.candidate_id DESC
"""
VERDICTS = """
SELECT d.judge, w.number, avg(w.sign * (d.p_wins - 0.5)) AS delta
FROM wanted w JOIN duels d ON d.completion_id = w.one AND d.rival_id = w.other
WHERE d.p_wins IS NOT NULL AND d.judge <> $judge GROUP BY ALL
UNION ALL
SELECT a.judge, w.number, a.score - b.score
FROM wanted w JOIN scores a ON a.completion_id = w.one JOIN scores b ON b.completion_id = w.other AND b.judge = a.judge
WHERE w.sign = 1 AND a.score IS NOT NULL AND b.score IS NOT NULL
"""


def groups_to_judge(store: DuckStore, run: str, judge: str, split: Split, round: int | None) -> list[Group]:
    """The answers of a round with what this person said of them; by default the last round with answers.

    train: the policy's answers. eval: the candidate's answers with the rival's. Raises StoreError if there are none.
    """
    with store.db.read() as con:
        rounds = rows(con, TRAIN if split == "train" else EVAL, {"run": run, "round": round})
    if not rounds:
        which = "no round" if round is None else f"no round {round}"
        which += " with answers to train prompts" if split == "train" else " in which a candidate was measured"
        raise StoreError(f"{run} has {which}; see: spar status {run}, or judge another --round or --split")
    mine, *rival = (store.experience(_answers(row, split), judge) for row in rounds)
    return to_judge(mine, rival[0] if rival else None, 1.0)


def _answers(row: Mapping[str, Any], split: Split) -> Answers:
    return Answers(row["run_id"], row["round"], row["checkpoint_id"], tuple(row["prompt_ids"]), split)


def questions_of(store: DuckStore, run: str, groups: Sequence[Group], seed: int, limit: int | None) -> list[Question]:
    """The questions about these answers, or `limit` of them, drawn by the seed."""
    return questions(groups, _paired(store, run), seed)[:limit]


def _paired(store: DuckStore, run: str) -> set[Both]:
    with store.db.read() as con:
        pairs = rows(con, "SELECT chosen_id, rejected_id FROM pairs WHERE run_id = ?", [run])
    return {frozenset((row["chosen_id"], row["rejected_id"])) for row in pairs}


def agreements(store: DuckStore, judge: str, asked: Sequence[Question]) -> dict[str, Agreement]:
    """Agreement with each other judge that judged the same two answers, by its name."""
    verdicts = read(store.judged(judge, [q.completion.id for q in asked])).duels
    mine = {str(i): verdicts[q.completion.id, q.rival.id] - 0.5 for i, q in enumerate(asked) if _key(q) in verdicts}
    theirs: dict[str, dict[str, float | None]] = {}
    for row in _verdicts(store, judge, asked):
        theirs.setdefault(row["judge"], {})[str(row["number"])] = row["delta"]
    by_judge = {name: agreement(mine, theirs[name]) for name in sorted(theirs)}
    return {name: each for name, each in by_judge.items() if each.pairs}


def _key(question: Question) -> tuple[str, str]:
    return question.completion.id, question.rival.id


def _verdicts(store: DuckStore, judge: str, asked: Sequence[Question]) -> list[dict[str, Any]]:
    """Verdicts of other judges on each question, above 0 where the completion wins, in either order of the answers."""
    both = [(i, sign, ids) for i, q in enumerate(asked) for sign, ids in ((1, _key(q)), (-1, _key(q)[::-1]))]
    wanted = [{"number": i, "sign": sign, "one": one, "other": other} for i, sign, (one, other) in both]
    columns = {"number": pa.int32(), "sign": pa.int32(), "one": pa.string(), "other": pa.string()}
    with store.db.read() as con:
        con.register("wanted", pa.Table.from_pylist(wanted, pa.schema(columns)))
        return rows(con, VERDICTS, {"judge": judge})
