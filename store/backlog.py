"""What there is to judge: the answers of every policy, round by round."""

from dataclasses import dataclass

from sparring.loop.types import Split
from sparring.store.db import Database, rows


@dataclass(frozen=True)
class Unit:
    """The answers that a policy gave in a round to prompts of one split; `rival_id` is whom they were set against."""

    run: str
    round: int
    split: Split
    policy_id: str
    rival_id: str | None = None


# Runs in the order they began, rounds in theirs. Of the trainings of reward models only one that is asked for by name.
RUNS = "SELECT run_id, created_at FROM runs WHERE coalesce(run_id = $run, kind <> 'reward')"


def units(db: Database, run: str | None = None) -> list[Unit]:
    """All answers of a run, or of every loop and evaluation; those to train prompts before held-out ones."""
    return _units(
        db,
        run,
        """SELECT DISTINCT run_id, round, split, policy_id, NULL AS rival_id
        FROM completions JOIN prompts USING (prompt_id)""",
    )


def duel_units(db: Database, run: str | None = None) -> list[Unit]:
    """The same for a judge that compares: a policy's held-out answers once for each rival it was measured against."""
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
    """The prompts that the policy answered: those of the round, or the held-out ones whenever it did."""
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
