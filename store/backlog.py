"""The answers that can be judged, by policy and round."""

from dataclasses import dataclass

from sparring.loop.types import Split
from sparring.store.db import Database, rows


@dataclass(frozen=True)
class Unit:
    """A policy's answers in one round to the prompts of one split. `rival_id` is the policy they were compared with."""

    run: str
    round: int
    split: Split
    policy_id: str
    rival_id: str | None = None


# The run with this id, or every run but the trainings of reward models.
RUNS = "SELECT run_id, created_at FROM runs WHERE coalesce(run_id = $run, kind <> 'reward')"


def units(db: Database, run: str | None = None) -> list[Unit]:
    """All answers of a run, or of every run but reward models' trainings, in the order of runs and rounds.

    Of a round, answers to train prompts come before those to held-out prompts.
    """
    return _units(
        db,
        run,
        """SELECT DISTINCT run_id, round, split, policy_id, NULL AS rival_id
        FROM completions JOIN prompts USING (prompt_id)""",
    )


def duel_units(db: Database, run: str | None = None) -> list[Unit]:
    """The same for a judge of pairs: a policy's held-out answers, once per rival that it was measured against."""
    return _units(
        db,
        run,
        """SELECT DISTINCT run_id, round, split, policy_id, NULL AS rival_id
        FROM completions JOIN prompts USING (prompt_id) WHERE split = 'train' OR policy_id = ''
        UNION ALL
        SELECT DISTINCT run_id, round, 'eval', candidate_id, rival_id FROM evaluations
        WHERE candidate_id <> rival_id""",
    )


def prompts_of(db: Database, unit: Unit) -> tuple[str, ...]:
    """Ids of the prompts that the policy answered: train prompts in this round, or held-out prompts in any round."""
    with db.read() as con:
        records = rows(
            con,
            """SELECT DISTINCT prompt_id FROM completions c JOIN prompts p USING (prompt_id)
            WHERE c.run_id = $run AND c.policy_id = $policy AND p.split = $split
            AND (p.split = 'eval' OR c.round = $round) ORDER BY prompt_id""",
            {"run": unit.run, "policy": unit.policy_id, "split": unit.split, "round": unit.round},
        )
    return tuple(row["prompt_id"] for row in records)


def _units(db: Database, run: str | None, sql: str) -> list[Unit]:
    with db.read() as con:
        records = rows(
            con,
            f"""WITH wanted AS ({RUNS}) SELECT u.* FROM ({sql}) u JOIN wanted USING (run_id)
            ORDER BY created_at, run_id, round, split DESC, policy_id, rival_id""",
            {"run": run},
        )
    return [Unit(row["run_id"], row["round"], row["split"], row["policy_id"], row["rival_id"]) for row in records]
