"""Canaries against judges with one known fault each."""

import pytest

from sparring.judges.canary import BLANK, CONSTANT, INJECTIONS, CanaryReport, canaries, read_bank, run_canaries
from sparring.judges.rules import RulesJudge
from sparring.loop.fakes import FakeJudge
from sparring.loop.parts import Judge
from tests.helpers.scripted_judges import DuelJudge, ScoreJudge

GOOD = {good for _, good in read_bank()}


def fair(text: str) -> float:
    """How good a text is, as one who knows the bank sees it."""
    return 1.0 if text.strip() in GOOD else 0.0


def fair_duel(first: str, second: str) -> float:
    return 0.5 + 0.4 * (fair(first) - fair(second))


def by_kind(report: CanaryReport) -> dict[str, tuple[int, int, int, int]]:
    return {f"{r.strategy} {r.form}".strip(): (r.won, r.tied, r.lost, r.abstained) for r in report.rows}


def test_the_bank_is_ours_and_varied() -> None:
    bank = read_bank()
    assert len(bank) == len({prompt for prompt, _ in bank}) == len(GOOD) == 16
    lengths = sorted(len(good) for good in GOOD)
    assert lengths[0] < 20 and lengths[-1] > 400
    # The constant and the injections are longer than some good answers and shorter than others: length cannot decide.
    assert all(lengths[4] < len(text) < lengths[-1] for text in (CONSTANT, *INJECTIONS.values()))


def test_every_prompt_meets_every_strategy_and_both_places() -> None:
    birds = canaries(read_bank())
    assert len(birds) == 64
    assert {b.case.a.text for b in birds if b.strategy == "empty"} == set(BLANK)
    assert {b.case.a.text for b in birds if b.strategy == "constant"} == {CONSTANT}
    assert {b.case.a.text for b in birds if b.strategy == "injecting"} == set(INJECTIONS.values())
    shown_first = sum(b.case.shown[0] is b.case.a for b in birds)
    assert 16 < shown_first < 48


@pytest.mark.parametrize("judge", [DuelJudge(fair_duel), ScoreJudge(lambda prompt, text: fair(text))])
def test_a_fair_judge_passes(judge: Judge) -> None:
    report = run_canaries(judge)
    assert report.passed and not report.not_applicable
    assert by_kind(report) == {
        "empty": (0, 0, 16, 0),
        "constant": (0, 0, 16, 0),
        **{f"injecting {form}": (0, 0, 4, 0) for form in INJECTIONS},
        "identical same text": (0, 8, 0, 0),
        "identical newline": (0, 8, 0, 0),
    }


def test_its_calls_and_cost_are_counted() -> None:
    judge = DuelJudge(fair_duel)
    report = run_canaries(judge)
    assert judge.asked == 2 * (64 - 8)  # both orders; equal texts are no question
    assert (report.calls, report.cost) == (112, 28.0)
    assert run_canaries(ScoreJudge(lambda prompt, text: fair(text))).cost is None


@pytest.mark.parametrize("disagreement", ["tie", "abstain"])
def test_the_judge_that_always_says_a_decides_nothing(disagreement: str) -> None:
    report = run_canaries(DuelJudge(lambda first, second: 1.0, disagreement=disagreement))  # type: ignore[arg-type]
    assert len(report.failures) == 1
    assert "undecided" in report.failures[0] and "in 100% of duels its winner changes" in report.failures[0]
    assert sum(row.won + row.lost for row in report.rows) == 0


def test_the_judge_that_scores_all_alike_decides_nothing() -> None:
    report = run_canaries(ScoreJudge(lambda prompt, text: 7.0))
    assert len(report.failures) == 1
    assert report.failures[0].startswith("undecided: of 48 comparisons of good with bad answers 48 are ties")
    assert "order" not in report.failures[0]


def test_a_judge_that_likes_silence_fails() -> None:
    report = run_canaries(ScoreJudge(lambda prompt, text: -float(len(text))))
    assert (
        report.failures[1] == "empty: wins 100% against good answers (16 won, 0 tied, 0 lost); expected less than half"
    )
    assert "constant" in report.failures[0] and len(report.failures) > 2  # some good answers are longer than it


def test_a_judge_that_a_constant_pleases_fails() -> None:
    report = run_canaries(ScoreJudge(lambda prompt, text: 2.0 if "each of them matters" in text else fair(text)))
    assert [f.split(":")[0] for f in report.failures] == ["constant"]


@pytest.mark.parametrize("form", list(INJECTIONS))
def test_a_judge_that_obeys_one_kind_of_order_fails(form: str) -> None:
    def gullible(first: str, second: str) -> float:
        for text, p in ((first, 0.99), (second, 0.01)):
            if text == INJECTIONS[form]:
                return p
        return fair_duel(first, second)

    report = run_canaries(DuelJudge(gullible))
    assert [f.split(":")[0] for f in report.failures] == [f"injecting ({form})"]


def test_a_judge_that_is_told_to_say_a_fails_though_it_only_ties() -> None:
    # "The verdict is A": in one order that is the injecting answer, in the other the good one.
    def obedient(first: str, second: str) -> float:
        return 1.0 if INJECTIONS["verdict"] in (first, second) else fair_duel(first, second)

    report = run_canaries(DuelJudge(obedient))
    assert report.failures == (
        "injecting (verdict): wins 50% against good answers (0 won, 4 tied, 0 lost); expected less than half",
    )


def test_losing_more_than_half_passes_and_half_does_not() -> None:
    bank = read_bank()
    asked = [prompt for prompt, _ in bank]

    def wins(n: int) -> ScoreJudge:
        easy = set(asked[:n])
        return ScoreJudge(lambda prompt, text: 2.0 if text == CONSTANT and prompt in easy else fair(text))

    assert run_canaries(wins(7)).passed
    assert not run_canaries(wins(8)).passed


def test_answers_that_differ_in_nothing_must_tie() -> None:
    def moody(prompt: str, text: str) -> float:
        return fair(text) + 0.6 * text.endswith("\n")

    report = run_canaries(ScoreJudge(moody))
    assert report.failures == ("identical (newline): 8 of 8 comparisons of an answer with itself are not ties",)

    def picky(prompt: str, text: str) -> float:
        return fair(text) + 0.1 * text.endswith("\n")  # a tenth of what good is worth: not worth a word

    assert run_canaries(ScoreJudge(picky)).passed


def test_a_judge_that_is_not_one_function_of_the_text_fails() -> None:
    counted = {"n": 0}

    def drifting(prompt: str, text: str) -> float:
        counted["n"] += 1
        return fair(text) * 10 + counted["n"] * 3.0

    report = run_canaries(ScoreJudge(drifting))
    assert any(f.startswith("identical (same text)") for f in report.failures)


def test_a_judge_without_rules_is_not_applicable() -> None:
    report = run_canaries(RulesJudge())
    assert report.passed
    assert report.not_applicable.startswith("it has no answer to any of these prompts: no rule")


def test_a_judge_of_models_that_never_answers_fails() -> None:
    report = run_canaries(DuelJudge(lambda first, second: None, why="HTTP 500"))
    assert report.failures == ("no answer to any of 112 questions: HTTP 500",)
    assert not report.not_applicable


def test_abstentions_are_counted_apart() -> None:
    # Silent on blank answers: never preferred, so no fault.
    report = run_canaries(ScoreJudge(lambda prompt, text: fair(text) if text.strip() else None))
    assert report.passed
    assert by_kind(report)["empty"] == (0, 0, 0, 16)
    assert next(row for row in report.rows if row.strategy == "empty").share is None


def test_the_shipped_fake_fails_for_it_only_counts_letters() -> None:
    failed = run_canaries(FakeJudge()).failures
    assert [f.split(":")[0] for f in failed] == ["constant", *(f"injecting ({form})" for form in sorted(INJECTIONS))]
