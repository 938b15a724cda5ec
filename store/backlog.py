"""The answers that can be judged, by policy and round."""

from dataclasses import dataclass

from sparring.loop.types import Split
from sparring.store.db import Database


@dataclass(frozen=True)
class Unit:
    """A policy's answers in one round to the prompts of one split. `rival_id` is the policy they were compared with."""

    run: str
    round: int
    split: Split
    policy_id: str
    rival_id: str | None = None


WRITTEN = """SELECT DISTINCT run_id, round, split, policy_id, NULL AS rival_id
    FROM completions JOIN prompts USING (prompt_id)"""
# The run with this id, or every run but the trainings of reward models.
RUNS = "SELECT run_id, created_at FROM runs WHERE coalesce(run_id = $run, kind <> 'reward')"


def units(db: Database, run: str | None = None) -> list[Unit]:
    """All answers of a run, or of every run but reward models' trainings, in the order of runs and rounds.

    Of a round, answers to train prompts come before those to held-out prompts.
    """
    return _units(db, run, WRITTEN)


def duel_units(db: Database, run: str | None = None) -> list[Unit]:
    """The same for a judge of pairs: a policy's held-out answers, once per rival that it was measured against."""
    sql = f"""{WRITTEN} WHERE split = 'train' OR policy_id = '' UNION ALL
        SELECT DISTINCT run_id, round, 'eval', candidate_id, rival_id FROM evaluations WHERE candidate_id <> rival_id"""
    return _units(db, run, sql)


def prompts_of(db: Database, unit: Unit) -> tuple[str, ...]:
    """Ids of the prompts that the policy answered: train prompts in this round, or held-out prompts in any round."""
    sql = """SELECT DISTINCT prompt_id FROM completions c JOIN prompts p USING (prompt_id)
        WHERE c.run_id = ? AND c.policy_id = ? AND p.split = ? AND (p.split = 'eval' OR c.round = ?)
        ORDER BY prompt_id"""
    return tuple(row["prompt_id"] for row in db.rows(sql, [unit.run, unit.policy_id, unit.split, unit.round]))


def _units(db: Database, run: str | None, sql: str) -> list[Unit]:
    ordered = f"""WITH wanted AS ({RUNS}) SELECT u.* FROM ({sql}) u JOIN wanted USING (run_id)
        ORDER BY created_at, run_id, round, split DESC, policy_id, rival_id"""
    return [Unit(*row.values()) for row in db.rows(ordered, {"run": run})]
