"""Where a run stands, by its rows alone."""

from typing import Any

from sparring.flows.run.standing import Standing, standing

CONFIG = {"rounds": 2}


def at(rounds: list[dict[str, Any]], decisions: Any = (), stops: Any = (), **config: Any) -> Standing:
    return standing("run-1", CONFIG | config, rounds, decisions, stops)


def row(round: int, accepted: bool | None = True, **columns: Any) -> dict[str, Any]:
    return {"round": round, "accepted": accepted, **columns}


def test_what_is_missing_comes_in_the_order_of_the_steps() -> None:
    assert at([]).missing == "round 0 has yet to measure the initial policy"
    assert at([row(0)]).missing == "round 1 has yet to start"
    begun = at([row(0), row(1, None, completions=8, judged=8, paired=None, loss=None)])
    assert (begun.under_way, begun.done) == (True, 0)
    assert begun.missing is not None and begun.missing.endswith("no pairing, no learning")
    whole = at([row(0), row(1), row(2)])
    assert (whole.missing, whole.done, whole.planned) == (None, 2, 2)
    assert at([row(0), row(1), row(2), row(3)]).planned == 3


def test_a_decision_finishes_a_round_and_answers_what_it_waited_for() -> None:
    rounds, stops = [row(0), row(1)], [{"round": 1, "message": "older"}, {"round": 1, "message": "KL is 9"}]
    open_ = at(rounds, stops=stops, approve=True)
    assert open_.stop == "KL is 9" and open_.waiting is not None and "spar approve run-1" in open_.waiting
    decided = at(rounds, [{"round": 1, "kind": "approve"}], stops, approve=True)
    assert (decided.stop, decided.waiting, decided.decided) == (None, None, {"round": 1, "kind": "approve"})
    given_up = at([*rounds, row(2, None)], [{"round": 2, "kind": "rollback"}])
    assert (given_up.done, given_up.under_way, given_up.missing) == (2, False, None)
