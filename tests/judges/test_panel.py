"""Panels of judges that are small enough to work out by hand: each is a function of the texts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest

from sparring.judges.panel import Panel
from sparring.loop.errors import ConfigError, StepError
from sparring.loop.types import Completion, Group, JudgeCall, Judgement, Prompt
from tests.helpers.scripted_judges import Decider, Scorer


def by(table: Mapping[tuple[str, str], float | None]) -> Callable[[str, str], float | None]:
    return lambda a, b: table[a, b]


def completions(prompt: Prompt, texts: Sequence[str], policy: str = "policy") -> tuple[Completion, ...]:
    return tuple(
        Completion(f"{policy}/{k}", "run", 1, prompt.id, policy, k, "policy", text, (), (), "stop", 1.0, 1.0, 0)
        for k, text in enumerate(texts)
    )


PROMPT = Prompt.make([{"role": "user", "content": "Say something."}], "train", "test", {})
AB = Group(PROMPT, completions(PROMPT, ["aa", "b"]))
ABC = Group(PROMPT, completions(PROMPT, ["aaa", "bb", "c"]))
LENGTH = ("length", lambda text: float(len(text)))


def rows(panel: Panel, *groups: Group) -> list[Judgement]:
    return [r for chunk in panel.judge(groups) for r in chunk if isinstance(r, Judgement)]


def verdict(panel: Panel, group: Group = AB) -> float | None:
    return panel.read(rows(panel, group)).duels.get((group.completions[0].id, group.completions[1].id))


def deciders(*p: float | None) -> list[Decider]:
    return [Decider(f"d{i}", by({("aa", "b"): x})) for i, x in enumerate(p)]


# what the members say of P(aa beats b); min_agreement; what the panel says
PANELS: list[tuple[list[float | None], float, float | None]] = [
    ([0.9, 0.7], 1.0, 0.8),  # all name the first: the mean
    ([0.2, 0.4], 1.0, 0.3),
    ([0.9, 0.8, 0.4], 0.6, 0.7),  # two of three
    ([0.9, 0.8, 0.4], 0.7, 0.5),  # two of three are too few
    ([0.9, 0.8, 0.4], 2 / 3, 0.7),  # exactly enough
    ([0.9, 0.4], 0.5, 0.5),  # one against one names nobody
    ([0.9, 0.5], 0.5, 0.7),  # one and a tie: half of the members
    ([0.9, 0.5, 0.5], 0.5, 0.5),
    ([0.6, 0.6, 0.0], 0.5, 0.5),  # the mean says second, the majority first
    ([0.9, 0.7, None], 0.6, 0.8),  # one without an answer names nobody, and the mean is of the others
    ([0.9, None, None], 0.5, 0.5),
    ([None, None], 0.0, None),  # nobody answers: no answer
    ([0.5, 0.5], 0.0, 0.5),
]


@pytest.mark.parametrize(("told", "min_agreement", "wanted"), PANELS)
def test_a_verdict_stands_when_enough_agree(
    told: list[float | None], min_agreement: float, wanted: float | None
) -> None:
    found = verdict(Panel(deciders(*told), min_agreement))
    assert found == (wanted if wanted is None else pytest.approx(wanted))


def test_a_duel_is_read_in_both_directions_and_scores_are_means_over_own_duels() -> None:
    table = {("aaa", "bb"): 0.9, ("aaa", "c"): 0.7, ("bb", "c"): 0.2}
    panel = Panel([Decider("one", by(table)), Decider("two", by(table))])
    reading = panel.read(rows(panel, ABC))
    a, b, c = (x.id for x in ABC.completions)
    assert reading.duels == pytest.approx(
        {(a, b): 0.9, (b, a): 0.1, (a, c): 0.7, (c, a): 0.3, (b, c): 0.2, (c, b): 0.8}
    )
    assert reading.scores == pytest.approx({a: 0.8, b: 0.15, c: 0.55})


def test_scores_of_any_scale_count_as_one_vote() -> None:
    huge = Scorer("huge", lambda text: {"aa": 900.0, "b": -900.0}[text])
    small = Scorer("small", lambda text: {"aa": 0.1, "b": 0.2}[text])
    third = Decider("third", by({("aa", "b"): 0.4}))
    panel = Panel([huge, small, third], min_agreement=0.6)
    assert verdict(panel) == pytest.approx((1 + 0 + 0.4) / 3)
    assert verdict(Panel([huge, Scorer("even", lambda text: 3.0)], 0.5)) == 0.75
    assert verdict(Panel([huge, Scorer("mute", lambda text: None)], 0.5)) == 1.0


def test_rows_are_the_members_own_under_the_panels_name() -> None:
    panel = Panel([Scorer(*LENGTH), Decider("llm", by({("aa", "b"): 0.9}), member="rubric")])
    records = [r for chunk in panel.judge([AB]) for r in chunk]
    judgements = [r for r in records if isinstance(r, Judgement)]
    assert {r.judge for r in records if isinstance(r, Judgement | JudgeCall)} == {panel.name}
    assert [(j.completion_id, j.rival_id, j.member, j.order, j.value) for j in judgements] == [
        ("policy/0", None, "length", 0, 2.0),
        ("policy/1", None, "length", 0, 1.0),
        ("policy/0", "policy/1", "length", 0, 1.0),
        ("policy/0", "policy/1", "length", 1, 1.0),
        ("policy/0", "policy/1", "llm|rubric", 0, 0.9),
        ("policy/0", "policy/1", "llm|rubric", 1, 0.9),
    ]
    assert judgements[2].rationale == "2 against 1"
    calls = [r for r in records if isinstance(r, JudgeCall)]
    assert [c.judgement_id for c in calls] == [j.id for j in judgements[4:]]
    assert len({r.id for r in records}) == len(records)
    # Another panel's rows are other rows.
    other = Panel([Scorer(*LENGTH), Decider("llm", by({("aa", "b"): 0.9}), member="rubric")], min_agreement=0.9)
    assert {j.id for j in rows(other, AB)} & {j.id for j in judgements} == set()


def test_panels_within_panels_keep_their_members_apart() -> None:
    inner = Panel(deciders(0.9, 0.7))
    outer = Panel([inner, Scorer(*LENGTH)])
    found = rows(outer, AB)
    assert {j.member for j in found} == {f"{inner.name}|d0", f"{inner.name}|d1", "length"}
    assert verdict(outer) == pytest.approx((0.8 + 1) / 2)
    assert outer.missing(replace(AB, judged=tuple(found))) == 0


def test_a_rivals_answers_are_met_one_by_one() -> None:
    group = replace(AB, rivals=completions(PROMPT, ["a", "bbb"], policy="rival"))
    scorer = Scorer(*LENGTH)
    panel = Panel([scorer, Decider("llm", by({("aa", "a"): 0.9, ("b", "bbb"): 0.2}))])
    reading = panel.read(rows(panel, group))
    assert scorer.asked == ["aa", "a", "b", "bbb"]
    assert reading.duels == pytest.approx(
        {
            ("policy/0", "rival/0"): 0.95,
            ("rival/0", "policy/0"): 0.05,
            ("policy/1", "rival/1"): 0.1,
            ("rival/1", "policy/1"): 0.9,
        }
    )


def test_answers_of_one_text_are_not_asked_about() -> None:
    scorer = Scorer(*LENGTH)
    panel = Panel([scorer, Decider("llm", by({}))])
    same = Group(PROMPT, completions(PROMPT, ["a", "a"]))
    assert panel.missing(same) == 0
    assert rows(panel, same) == []
    assert scorer.asked == []


def panel_of(dies_after: int | None = None) -> tuple[Panel, Decider, Scorer]:
    decider = Decider("llm", lambda a, b: 0.9 if len(a) > len(b) else 0.1)
    scorer = Scorer(*LENGTH, dies_after)
    return Panel([decider, scorer]), decider, scorer


def test_however_far_it_got_it_asks_only_what_is_missing() -> None:
    whole, decider, scorer = panel_of()
    chunks = [list(chunk) for chunk in whole.judge([ABC])]
    everything = {r.id: r for chunk in chunks for r in chunk if isinstance(r, Judgement)}
    assert (len(decider.asked), len(scorer.asked), len(everything)) == (6, 3, 6 + 3 + 6)
    for n in range(len(chunks) + 1):
        known = tuple(r for chunk in chunks[:n] for r in chunk if isinstance(r, Judgement))
        group = replace(ABC, judged=known)
        again, decider, scorer = panel_of()
        assert again.missing(group) == len(everything) - len(known)
        rest = rows(again, group)
        assert {j.id: j for j in (*known, *rest)} == everything
        assert len(rest) == len(everything) - len(known)
        assert len(decider.asked) == 6 - sum(j.member == "llm" for j in known)
        assert len(scorer.asked) == 3 - sum(j.rival_id is None for j in known)
    assert list(whole.judge([replace(ABC, judged=tuple(everything.values()))])) == []


def test_scores_that_are_there_without_their_duels_need_no_asking() -> None:
    panel, _, _ = panel_of()
    found = rows(panel, ABC)
    known = tuple(j for j in found if j.member == "llm" or j.rival_id is None or (j.rival_id == "policy/1"))
    again, decider, scorer = panel_of()
    group = replace(ABC, judged=known)
    assert again.missing(group) == 4
    rest = rows(again, group)
    assert {j.id: j for j in (*known, *rest)} == {j.id: j for j in found}
    assert len(rest) == 4
    assert decider.asked == []
    assert scorer.asked == []


def test_an_answer_without_a_score_is_not_asked_for_again() -> None:
    def panel() -> Panel:
        return Panel([Scorer("shy", lambda text: None if text == "bb" else 1.0), Scorer(*LENGTH)])

    done = replace(ABC, judged=tuple(rows(panel(), ABC)))
    assert panel().missing(done) == 0
    assert rows(panel(), done) == []


def test_a_member_that_fails_costs_no_row_that_was_made() -> None:
    panel, _, _ = panel_of(dies_after=2)
    kept: list[Judgement] = []
    with pytest.raises(StepError, match="endpoint"):
        for chunk in panel.judge([ABC]):
            kept += [r for r in chunk if isinstance(r, Judgement)]
    assert (len([j for j in kept if j.member == "llm"]), len([j for j in kept if j.member == "length"])) == (6, 2)
    back, decider, scorer = panel_of()
    rest = rows(back, replace(ABC, judged=tuple(kept)))
    assert decider.asked == []
    assert scorer.asked == ["c"]
    assert len(kept) + len(rest) == 15


def test_the_name_tells_members_and_agreement_apart_but_not_their_order() -> None:
    one, two, three = deciders(0.9, 0.9, 0.9)
    assert Panel([one, two]).name == Panel([two, one]).name
    assert len({Panel([one, two]).name, Panel([one, three]).name, Panel([one, two], 0.9).name}) == 3


def test_its_weights_are_its_members() -> None:
    class Heavy(Scorer):
        @property
        def weights(self) -> Sequence[str]:
            return ("w1",)

    class Heavier(Decider):
        @property
        def weights(self) -> Sequence[str]:
            return ("w2", "w3")

    one, two = Heavy(*LENGTH), Heavier("d", by({("aa", "b"): 0.9}))
    assert Panel([one, two]).weights == ("w1", "w2", "w3")


@pytest.mark.parametrize(
    ("judges", "min_agreement"),
    [
        (deciders(0.9), 0.5),
        ([*deciders(0.9), *deciders(0.1)], 0.5),
        (deciders(0.9, 0.9), 1.5),
        ([*deciders(0.9), Decider("a|b", by({}))], 0.5),
    ],
)
def test_what_makes_no_panel_is_refused(judges: list[Decider], min_agreement: float) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Panel(judges, min_agreement)
