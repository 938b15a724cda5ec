"""The state of a run: how far its rounds are, what was decided, what a stop rule sees, which files are needed."""

import json

from sparring.loop.types import Checkpoint, Decision, Evaluation, Facts, RunModel, Stop
from sparring.store.db import Database, Parameters, rows
from sparring.store.records import R, to_record


def first(db: Database, kind: type[R], sql: str, parameters: Parameters) -> R | None:
    """The first row of a query as a record. None if there is no row."""
    return next((to_record(kind, row) for row in db.rows(sql, parameters)), None)


def rounds_settled(db: Database, run: str) -> int:
    """The last round that was evaluated, or ended by a decision. -1 if round 0 was not."""
    if not db.path.exists():
        return -1
    sql = """SELECT coalesce(max(round), -1) AS n FROM (
        SELECT round FROM evaluations WHERE run_id = $run AND metric = 'accepted'
        UNION ALL SELECT round FROM decisions WHERE run_id = $run)"""
    return int(db.rows(sql, {"run": run})[0]["n"])


def decision(db: Database, run: str, round: int) -> Decision | None:
    """The latest decision about a round."""
    sql = "SELECT * EXCLUDE (decided_at) FROM decisions WHERE run_id = ? AND round = ? ORDER BY number DESC LIMIT 1"
    return first(db, Decision, sql, [run, round])


def stop(db: Database, run: str, round: int) -> Stop | None:
    """The rule that stopped the run after a round."""
    sql = "SELECT * EXCLUDE (stopped_at) FROM stops WHERE run_id = ? AND round = ? ORDER BY stopped_at DESC LIMIT 1"
    return first(db, Stop, sql, [run, round])


def run_model(db: Database, run: str) -> RunModel | None:
    """How the models of a run are computed. None for a run from before this was kept."""
    return first(db, RunModel, "SELECT * FROM run_models WHERE run_id = ?", [run])


def started_on(db: Database, run: str) -> str | None:
    """The day, in UTC, on which a run was first registered. None for a run that the store does not have."""
    sql = "SELECT strftime(created_at AT TIME ZONE 'UTC', '%Y-%m-%d') AS day FROM runs WHERE run_id = ?"
    found = db.rows(sql, [run])
    return str(found[0]["day"]) if found else None


def checkpoint(db: Database, checkpoint_id: str) -> Checkpoint | None:
    return first(db, Checkpoint, "SELECT * FROM checkpoints WHERE checkpoint_id = ?", [checkpoint_id])


def removed(db: Database, checkpoint_id: str) -> str | None:
    """Why a checkpoint's files were removed from disk. None if they were not."""
    reasons = db.rows("SELECT reason FROM removals WHERE checkpoint_id = ?", [checkpoint_id])
    return str(reasons[0]["reason"]) if reasons else None


def policy_after(db: Database, run: str, round: int) -> Checkpoint | None:
    """The policy that a round ended with, by a decision or else by the gate. None if the round is not over."""
    decided = decision(db, run, round)
    return checkpoint(db, decided.policy_id) if decided else gated(db, run, round)


def gated(db: Database, run: str, round: int) -> Checkpoint | None:
    """The candidate of a round if the gate accepted it, else the policy before it. Round 0 has the initial policy."""
    sql = """SELECT k.* FROM evaluations e LEFT JOIN rounds r USING (run_id, round)
        JOIN checkpoints k ON k.checkpoint_id = CASE WHEN e.value = 1 THEN e.candidate_id ELSE r.policy_id END
        WHERE e.run_id = ? AND e.round = ? AND e.metric = 'accepted'"""
    return first(db, Checkpoint, sql, [run, round])


ABSTAINED = """SELECT coalesce(avg((outcome = 'abstained')::INTEGER), 0) AS share FROM outcomes
    WHERE run_id = ? AND round = ?"""
STEPS = """SELECT s.metrics FROM update_steps s JOIN updates u USING (update_id)
    WHERE u.run_id = ? AND u.round = ? ORDER BY s.step"""


def facts(db: Database, run: str, round: int) -> Facts:
    """What a stop rule sees of a round."""
    with db.read() as con:
        measured = rows(con, "SELECT * FROM evaluations WHERE run_id = ? AND round IN (0, ?)", [run, round])
        ((abstained,),) = con.execute(ABSTAINED, [run, round]).fetchall()
        metrics = [json.loads(row["metrics"]) for row in rows(con, STEPS, [run, round])]
    by_round = {
        index: {row["metric"]: to_record(Evaluation, row) for row in measured if row["round"] == index}
        for index in (0, round)
    }
    ratios = tuple(step["chosen_ratio"] for step in metrics if "chosen_ratio" in step)
    return Facts(by_round[round], by_round[0], float(abstained), ratios)


UNNEEDED = """WITH updated AS (
    SELECT k.*, u.round FROM checkpoints k JOIN updates u ON u.after_id = k.checkpoint_id
    WHERE k.run_id = $run AND u.run_id = $run
),
made AS (  -- and the references that were averaged for a round
    FROM updated
    UNION ALL
    SELECT k.*, r.round FROM checkpoints k JOIN rounds r ON r.reference_id = k.checkpoint_id
    WHERE r.run_id = $run AND r.reference_id NOT IN (r.policy_id, r.initial_id)
),
needed AS (
    SELECT unnest([policy_id, initial_id, reference_id]) AS checkpoint_id
    FROM (FROM rounds WHERE run_id = $run ORDER BY round DESC LIMIT 1)
    UNION ALL
    SELECT checkpoint_id FROM (FROM updated ORDER BY round DESC LIMIT $keep)
    UNION ALL
    SELECT candidate_id FROM (
        SELECT e.candidate_id FROM evaluations e JOIN updated m ON m.checkpoint_id = e.candidate_id
        ANTI JOIN removals d ON d.checkpoint_id = e.candidate_id
        WHERE e.run_id = $run AND e.metric = 'win_rate' AND e.round > 0
        ORDER BY e.value DESC, e.round DESC LIMIT 1)
)
SELECT made.* EXCLUDE (round) FROM made ANTI JOIN needed USING (checkpoint_id) ORDER BY round"""


def unneeded(db: Database, run: str, keep: int) -> list[Checkpoint]:
    """Checkpoints that a run's next round does not need, and that are neither among the `keep` newest nor the best.

    The next round needs the initial policy and those before and after the last round. The best checkpoint has the
    highest win rate. Checkpoints that were removed before are included, because a kill may have left their files.
    """
    policy = policy_after(db, run, rounds_settled(db, run))
    checkpoints = [to_record(Checkpoint, row) for row in db.rows(UNNEEDED, {"run": run, "keep": keep})]
    return [each for each in checkpoints if policy is None or each.id != policy.id]
