"""Where a run stands, as a report shows it: pure functions of a run's rows."""

from typing import Any

from sparring.flows.run.standing import standing

Row = dict[str, Any]


def status(run: Row) -> Row:
    """`state` (a word or two), `says` (one sentence), `rounds_done`, `rounds_wanted`."""
    if run["kind"] != "self-play":
        return _measured_once(run)
    at = standing(run["run_id"], run["config"], run["rounds"], run["decisions"], run["stops"])
    if at.under_way:
        state, says = "under way", at.missing
    elif at.decided and at.decided["kind"] == "rollback":
        state, says = "rolled back", f"it continues from {policy_name(at.decided['policy_round'])}"
    elif at.stop:
        state, says = "stopped", at.stop
    elif at.waiting:
        state, says = "awaiting approval", at.waiting
    else:
        state, says = ("not finished" if at.missing else "complete"), at.missing
    return _state(state, says or "", at.done, at.planned)


def _measured_once(run: Row) -> Row:
    """The training of a reward model, or an evaluation."""
    word, rows = ("trained", run["updates"]) if run["kind"] == "reward" else ("measured", run["metrics"])
    return _state(word if rows else "not finished", "", int(bool(rows)), 1)


def _state(state: str, says: str, done: int, planned: int) -> Row:
    return {"state": state, "says": says, "rounds_done": done, "rounds_wanted": planned}


def policy_now(run: Row) -> Row | None:
    """The policy that the next round would start from, `{"policy_id", "round"}`: as decided, else as the gate said."""
    if run["kind"] != "self-play" or not run["rounds"]:
        return None
    row = run["rounds"][-1]
    decided = next((each for each in reversed(run["decisions"]) if each["round"] == row["round"]), None)
    if decided:
        return {"policy_id": decided["policy_id"], "round": decided["policy_round"]}
    if row["accepted"]:
        return {"policy_id": row["candidate_id"], "round": row["round"]}
    return {"policy_id": row["policy_id"], "round": row["from_round"]}


def policy_name(round: int) -> str:
    return "the initial policy" if round == 0 else f"the policy of round {round}"
