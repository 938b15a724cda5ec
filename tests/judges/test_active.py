"""Active choice of duels: an explorer of members that are functions of the text, and oracles that say whom they met."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from sparring.judges.active import ActiveJudge
from sparring.judges.panel import Panel
from sparring.loop.errors import ConfigError, StepError
from sparring.loop.judgements import PATIENCE, refuse_silence, to_judge
from sparring.loop.pairing import Candidates, Unpaired
from sparring.loop.pairing.builders.ranking import best_worst
from sparring.loop.parts import Judge
from sparring.loop.types import Completion, Experience, Group, JudgeCall, Judgement, Prompt
from tests.helpers.scouts import Scouts
from tests.helpers.scripted_judges import Decider, Scorer

PROMPT = Prompt.make([{"role": "user", "content": "Say something."}], "train", "test", {})


def group(*texts: str, round: int = 1, prompt: Prompt = PROMPT) -> Group:
    return Group(
        prompt,
        tuple(
            Completion(f"{prompt.id}/{k}", "run", round, prompt.id, "policy", k, "policy", t, (), (), "stop", 1, 1, 0)
            for k, t in enumerate(texts)
        ),
    )


def scouts(**options: Any) -> Scouts:
    """The first likes a, the second likes b; both see nothing in c."""
    return Scouts(lambda t: float(t.count("a")), lambda t: float(t.count("b")), **options)


def longer(a: str, b: str) -> float:
    return 0.9 if len(a) > len(b) else 0.2


AABC = group("c", "aaa", "bb", "ccccc")  # thompson and uncertainty: aaa against bb


def records(judge: Judge, *groups: Group) -> list[Judgement | JudgeCall]:
    return [record for chunk in judge.judge(groups) for record in chunk]


def judgements(found: Sequence[Judgement | JudgeCall]) -> list[Judgement]:
    return [r for r in found if isinstance(r, Judgement)]


def judged(of: Group, found: Sequence[Judgement | JudgeCall]) -> Group:
    ids = {c.id for c in of.completions}
    return replace(of, judged=tuple(j for j in judgements(found) if j.completion_id in ids))


@pytest.mark.parametrize("choose", ["thompson", "uncertainty", "best_vs_uncertain"])
def test_all_are_scored_and_two_are_put_to_the_oracle_whose_reading_decides(choose: str) -> None:
    explorer, oracle = scouts(), Decider("oracle", longer)
    judge = ActiveJudge(explorer, oracle, choose=choose)
    found = records(judge, AABC)
    assert explorer.asked == ["c", "aaa", "bb", "ccccc"]
    assert oracle.asked == [("aaa", "bb", 0), ("aaa", "bb", 1)]
    reading = judge.read(judgements(found))
    _, a, b, _ = (c.id for c in AABC.completions)
    assert reading.duels == pytest.approx({(a, b): 0.9, (b, a): 0.1})
    assert reading.scores == pytest.approx({a: 0.9, b: 0.1})
    chosen = best_worst(Candidates(AABC.completions, reading))
    assert not isinstance(chosen, Unpaired)
    assert (chosen[0].chosen.completion.text, chosen[0].rejected.completion.text) == ("aaa", "bb")


def test_an_oracle_of_single_answers_keeps_its_scores() -> None:
    oracle = Scorer("length", lambda text: float(len(text)))
    judge = ActiveJudge(scouts(), oracle)
    reading = judge.read(judgements(records(judge, AABC)))
    assert oracle.asked == ["aaa", "bb"] and not judge.compares
    assert reading.scores == {AABC.completions[1].id: 3.0, AABC.completions[2].id: 2.0}


def test_rows_of_both_are_kept_apart_and_calls_are_counted() -> None:
    judge = ActiveJudge(scouts(), Decider("oracle", longer, member="second"))
    found = records(judge, AABC)
    rows, calls = judgements(found), [r for r in found if isinstance(r, JudgeCall)]
    assert {j.judge for j in rows} == {c.judge for c in calls} == {judge.name}
    assert sorted(j.member for j in rows) == ["explorer|0"] * 4 + ["explorer|1"] * 4 + ["oracle|second"] * 2
    assert len({j.id for j in rows}) == 10 and len({c.id for c in calls}) == 2
    assert {c.judgement_id for c in calls} == {j.id for j in rows if j.member == "oracle|second"}
    assert {(j.completion_id, j.member): j.value for j in rows if j.rival_id is None} == {
        (c.id, f"explorer|{k}"): float(c.text.count(letter)) for c in AABC.completions for k, letter in enumerate("ab")
    }


@pytest.mark.parametrize("oracle", ["pairs", "scores"])
def test_it_resumes_wherever_it_stopped(oracle: str) -> None:
    """Cut after every chunk: what is stored and what is made then are the rows of one undisturbed run, none twice."""
    other = Prompt.make([{"role": "user", "content": "And now?"}], "train", "test", {})
    groups = [AABC, group("ab", "aab", "abb", "b", prompt=other)]

    def judge() -> ActiveJudge:
        decides = Decider("d", longer) if oracle == "pairs" else Scorer("s", lambda text: float(len(text)))
        return ActiveJudge(scouts(), decides)

    whole = [list(chunk) for chunk in judge().judge(groups)]
    wanted = {j.id: j for chunk in whole for j in judgements(chunk)}
    assert len(wanted) == 8 * 2 + 2 * 2 == sum(map(judge().missing, groups))
    for cut in range(len(whole) + 1):
        before = judgements([r for chunk in whole[:cut] for r in chunk])
        again = [judged(g, before) for g in groups]
        after = judgements(records(judge(), *again))
        assert [*before, *after] == list({j.id: j for j in [*before, *after]}.values()), "nothing is made twice"
        assert {j.id: j for j in [*before, *after]} == wanted
        assert sum(map(judge().missing, again)) == len(after)


def test_what_a_dead_explorer_said_is_not_asked_again() -> None:
    oracle = Decider("oracle", longer)
    stored: list[Judgement] = []
    with pytest.raises(StepError, match="gone"):
        for chunk in ActiveJudge(scouts(dies_after=3), oracle).judge([AABC]):
            stored += judgements(chunk)
    assert len(stored) == 6 and oracle.asked == []
    second = scouts()
    records(ActiveJudge(second, oracle), judged(AABC, stored))
    assert second.asked == ["ccccc"] and len(oracle.asked) == 2


def test_an_answer_that_a_member_could_not_score_is_not_chosen() -> None:
    explorer = Scouts(lambda t: float(t.count("a")), lambda t: None if t == "bb" else float(t.count("b") + len(t)))
    oracle = Decider("oracle", longer)
    judge = ActiveJudge(explorer, oracle)
    rows = judgements(records(judge, AABC))
    assert {text for a, b, _ in oracle.asked for text in (a, b)} == {"aaa", "ccccc"}
    assert [j.value for j in rows if j.completion_id == AABC.completions[2].id] == [0.0, None]  # kept, and no number
    silent = ActiveJudge(Scouts(lambda t: None, lambda t: 1.0), oracle)
    rows = judgements(records(silent, AABC))
    assert len(rows) == 8 and silent.read(rows).scores == {} and silent.missing(judged(AABC, rows)) == 0
    found = best_worst(Candidates(AABC.completions, silent.read(rows)))
    assert isinstance(found, Unpaired) and found.outcome == "abstained"


def test_where_the_oracle_has_no_answer_there_is_none() -> None:
    judge = ActiveJudge(scouts(), Decider("oracle", lambda a, b: None))
    rows = judgements(records(judge, AABC))
    assert judge.read(rows).scores == {} and judge.missing(judged(AABC, rows)) == 0


def test_answers_of_one_text_are_one_answer() -> None:
    oracle = Decider("oracle", longer)
    same = group("b", "aaa", "aaa", "b", "aaa")
    judge = ActiveJudge(scouts(), oracle)
    rows = judgements(records(judge, same))
    assert oracle.asked == [("b", "aaa", 0), ("b", "aaa", 1)]  # the first of each text, in the order of the group
    assert judge.missing(judged(same, rows)) == 0
    agreed = group("ab", "ab", "c")  # both members' favourite comes twice: it does not meet itself
    records(judge, agreed)
    assert oracle.asked[2:] == [("ab", "c", 0), ("ab", "c", 1)]
    one = group("aaa", "aaa")
    assert judge.missing(one) == len(judgements(records(judge, one))) == 4 and len(oracle.asked) == 4


def test_a_duel_that_was_put_to_the_oracle_stands() -> None:
    """The explorer's missing score comes later, and would have chosen another duel: the oracle is not asked again."""
    blind = Scouts(lambda t: None if t == "aaa" else float(t.count("a")), lambda t: float(t.count("b")), name="s")
    oracle = Decider("oracle", longer)
    rows = judgements(records(ActiveJudge(blind, oracle), AABC))
    assert all("aaa" not in (a, b) for a, b, _ in oracle.asked)
    answered = [j for j in rows if j.value is not None]
    seeing = scouts(name="s")
    judge = ActiveJudge(seeing, oracle)
    records(judge, judged(AABC, [j for j in answered if j.completion_id != AABC.completions[1].id]))
    assert seeing.asked == ["aaa"] and len(oracle.asked) == 2


def test_the_draw_hangs_on_the_seed_the_round_and_the_prompt_alone() -> None:
    table = {"x": (3.0, 0.0, 0.0), "y": (0.0, 3.0, 0.0), "z": (0.0, 0.0, 3.0)}  # a favourite each

    def duel(seed: int, round: int = 1, content: str = "?") -> tuple[str, str]:
        random.seed(len(drawn))  # no matter
        explorer = Scouts(*(lambda t, k=k: table[t][k] for k in range(3)))  # type: ignore[misc]
        oracle = Decider("oracle", longer)
        prompt = Prompt.make([{"role": "user", "content": content}], "train", "", {})
        records(ActiveJudge(explorer, oracle, seed=seed), group("x", "y", "z", round=round, prompt=prompt))
        drawn.append(oracle.asked[0][:2])
        return drawn[-1]

    drawn: list[tuple[str, str]] = []
    assert len({duel(seed) for seed in range(20)}) == 3
    assert len({duel(0, round) for round in range(20)}) == 3
    assert len({duel(0, content=str(i)) for i in range(20)}) == 3
    assert drawn[:20] == [duel(seed) for seed in range(20)]


def test_an_oracle_that_is_silent_stops_the_round_though_the_explorer_talks() -> None:
    """Of 20 prompts: 160 scores with a value, and 40 verdicts without: a fifth of all, all that count."""
    prompts = [Prompt.make([{"role": "user", "content": str(i)}], "train", "", {}) for i in range(20)]
    groups = [group("c", "aaa", "bb", "ccccc", prompt=p) for p in prompts]
    judge = ActiveJudge(scouts(), Decider("oracle", lambda a, b: None))
    stored: list[Judgement] = []
    with pytest.raises(StepError, match=rf"no answer to {PATIENCE} of {PATIENCE} questions \(100%"):
        for chunk in refuse_silence(judge.judge(groups), [], 0.5, judge.name):
            stored += judgements(chunk)
    assert len(stored) == 160 + PATIENCE
    again = to_judge(Experience(tuple(groups), tuple(stored)), None, 0.5)
    assert sum(map(judge.missing, again)) == 40, "all of its questions are open again, and no score is"
    dumb = ActiveJudge(Scouts(lambda t: None, lambda t: None), Decider("oracle", longer))
    with pytest.raises(StepError, match="no answer to"):
        list(refuse_silence(dumb.judge(groups), [], 0.5, dumb.name))


def test_its_name_stands_for_what_shapes_a_verdict() -> None:
    def name(explorer: str = "e", oracle: str = "o", **options: object) -> str:
        scout = Scouts(lambda t: 0.0, lambda t: 1.0, name=explorer)
        return ActiveJudge(scout, Decider(oracle, longer), **options).name  # type: ignore[arg-type]

    names = [name(), name("other"), name(oracle="other"), name(choose="uncertainty"), name(seed=1)]
    assert len({*names}) == 5 and name() == names[0]


@pytest.mark.parametrize(
    ("explorer", "options", "match"),
    [
        (Scouts(lambda t: 0.0, name="lonely"), {}, "its explorer lonely has no members"),
        (Scorer("plain", lambda t: 0.0), {}, "its explorer plain has no members"),
        (Decider("pairs", longer), {}, "its explorer pairs has no members"),
        (scouts(), {"choose": "thomson"}, "did you mean 'thompson'"),
        (scouts(), {"seed": -1}, "seed is -1"),
        (scouts(), {"seed": 0.5}, "seed is 0.5"),
    ],
)
def test_what_cannot_choose_is_refused_by_name(explorer: Judge, options: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        ActiveJudge(explorer, Decider("oracle", longer), **options)  # type: ignore[arg-type]


def test_it_does_not_measure_a_policy_against_a_rival() -> None:
    judge = ActiveJudge(scouts(), Decider("oracle", longer))
    with pytest.raises(ConfigError, match=r"evaluate\.judge"):
        judge.missing(replace(AABC, rivals=AABC.completions))


def test_a_panel_can_be_its_oracle() -> None:
    """A judge inside a judge inside a judge: every row finds its way back."""
    judge = ActiveJudge(scouts(), Panel([Decider("one", longer), Scorer("two", lambda t: float(len(t)))]))
    rows = judgements(records(judge, AABC))
    assert {j.member for j in rows if j.rival_id} == {"oracle|one", "oracle|two"}
    _, a, b, _ = (c.id for c in AABC.completions)
    assert judge.read(rows).duels[a, b] == pytest.approx(0.95)  # the mean of 0.9 and 1
    assert judge.missing(judged(AABC, rows)) == 0
