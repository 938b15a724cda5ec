"""Where a run stands, in words: pure functions of a run's rows."""

from typing import Any

Row = dict[str, Any]


def status(run: Row) -> Row:
    """`state` (a word or two), `says` (one sentence), `rounds_done`, `rounds_wanted`."""
    if run["kind"] != "self-play":
        return _measured_once(run)
    done, last = rounds_done(run), last_round(run)
    wanted = max(run["config"]["rounds"], done)
    stopped = next((s for s in reversed(run["stops"]) if s["round"] == last), None)
    decided = decision(run, last)
    if _under_way(run):
        return _state("under way", f"round {run['rounds'][-1]['round']} is not finished", done, wanted)
    if decided and decided["kind"] == "rollback":
        return _state("rolled back", f"it goes on from {policy_name(decided['policy_round'])}", done, wanted)
    if stopped and not decided:
        return _state("stopped", stopped["message"], done, wanted)
    if done and run["config"].get("approve") and not decided:
        says = f"round {last} awaits a decision: spar approve {run['run_id']}, or spar reject {run['run_id']}"
        return _state("awaiting approval", says, done, wanted)
    if not run["rounds"]:
        return _state("not finished", "round 0 has yet to measure the initial policy", done, wanted)
    if done < wanted:
        return _state("not finished", f"round {last + 1} has yet to start", done, wanted)
    return _state("complete", "", done, wanted)


def _measured_once(run: Row) -> Row:
    """The training of a reward model, or an evaluation."""
    word, rows = ("trained", run["updates"]) if run["kind"] == "reward" else ("measured", run["metrics"])
    return _state(word if rows else "not finished", "", int(bool(rows)), 1)


def policy_now(run: Row) -> Row | None:
    """The policy a run would go on from, `{"policy_id", "round"}`: as decided, else as the gate said."""
    if run["kind"] != "self-play" or not run["rounds"]:
        return None
    row = run["rounds"][-1]
    if decided := decision(run, row["round"]):
        return {"policy_id": decided["policy_id"], "round": decided["policy_round"]}
    if row["accepted"]:
        return {"policy_id": row["candidate_id"], "round": row["round"]}
    return {"policy_id": row["policy_id"], "round": row["from_round"]}


def rounds_done(run: Row) -> int:
    return sum(row["round"] > 0 and _settled(run, row) for row in run["rounds"])


def last_round(run: Row) -> int:
    """The last round that is over: evaluated, or ended by a decision."""
    return max((int(row["round"]) for row in run["rounds"] if _settled(run, row)), default=0)


def decision(run: Row, round: int) -> Row | None:
    """What was decided last about a round."""
    return next((d for d in reversed(run["decisions"]) if d["round"] == round), None)


def policy_name(round: int) -> str:
    return "the initial policy" if round == 0 else f"the policy of round {round}"


def _settled(run: Row, row: Row) -> bool:
    return row["accepted"] is not None or decision(run, row["round"]) is not None


def _under_way(run: Row) -> bool:
    return bool(run["rounds"]) and not _settled(run, run["rounds"][-1])


def _state(state: str, says: str, done: int, wanted: int) -> Row:
    return {"state": state, "says": says, "rounds_done": done, "rounds_wanted": wanted}
