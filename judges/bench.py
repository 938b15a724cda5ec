"""How often a judge is right on labelled pairs, and what its verdicts cost."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sparring.judges.cases import Case, Remember, Said, answer, ask, delta, forget, position
from sparring.judges.measure import (
    Accuracy,
    Array,
    Estimate,
    PositionBias,
    accuracy,
    calibration_error,
    cohens_kappa,
    length_controlled,
    outcomes,
    paired_difference,
    sigma,
)
from sparring.loop.labelled_pairs import Preference
from sparring.loop.parts import Judge
from sparring.loop.types import Judgement, Prompt, digest


@dataclass(frozen=True)
class BenchRow:
    """The measures of one subset; "" is all pairs."""

    subset: str
    pairs: int
    accuracy: Accuracy
    longer: Accuracy  # of the judge that takes the longer answer
    difference: Estimate | None  # accuracy minus that of longer-wins, on the pairs that the judge answered
    length_controlled: Estimate | None
    calibration_error: float | None  # of P(a beats b), which is sigma(score difference) for a judge that scores
    position: PositionBias | None  # None: the judge does not compare
    labelled_ties: int
    ties_found: int  # of the labelled ties, those that the judge calls a tie


@dataclass(frozen=True)
class BenchReport:
    """`rows` has all pairs, then each subset. Calls, tokens and cost include those of known verdicts."""

    judge: str
    rows: tuple[BenchRow, ...]
    deltas: Mapping[str, float | None]  # the verdict on each pair, by its id (see judges.measure)
    judgements: int
    asked: int  # judgements made in this run
    calls: int
    failed_calls: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None  # None: no call has a price
    seconds: float  # that judging took in this run


@dataclass(frozen=True)
class Agreement:
    """Agreement of two judges on the pairs that both answered. None: there are no such pairs."""

    pairs: int
    agreement: float | None  # share with the same winner, or a tie for both
    opposed: float | None  # share with opposite winners
    kappa: float | None  # Cohen's, of a / b / tie; None also if it is not defined


def bench(
    judge: Judge,
    preferences: Sequence[Preference],
    *,
    seed: int = 0,
    run: str = "bench",
    known: Iterable[Said] = (),
    remember: Remember = forget,
) -> BenchReport:
    """Judge labelled pairs and measure the verdicts.

    A hash of the seed and the pair decides which answer is `completion` and which is `rival`. A judge of pairs sees
    both orders anyway. For `known`, `remember` and the errors raised, see judges.cases.ask.
    """
    cases, start = cases_of(preferences, run, seed), time.monotonic()
    heard = ask(judge, cases, known, remember)
    seconds = time.monotonic() - start
    reading = judge.read(heard.judgements)
    deltas = [delta(judge, reading, case) for case in cases]
    costs = [c.cost for c in heard.calls if c.cost is not None]
    return BenchReport(
        judge.name,
        tuple(_rows(judge.compares, preferences, cases, np.array(deltas, dtype=np.float64), heard.judgements)),
        {p.id: d for p, d in zip(preferences, deltas, strict=True)},
        judgements=len(heard.judgements),
        asked=heard.asked,
        calls=len(heard.calls),
        failed_calls=sum(bool(c.error) for c in heard.calls),
        prompt_tokens=sum(c.prompt_tokens or 0 for c in heard.calls),
        completion_tokens=sum(c.completion_tokens or 0 for c in heard.calls),
        cost=sum(costs) if costs else None,
        seconds=seconds,
    )


def cases_of(preferences: Sequence[Preference], run: str, seed: int) -> list[Case]:
    """The pairs as prompts and completions. An answer that is in several pairs is one completion."""
    numbers: dict[str, dict[str, int]] = {}
    cases = []
    for p in preferences:
        prompt = Prompt.make(p.messages, "eval", run, {})
        of_prompt = numbers.setdefault(prompt.id, {})
        a, b = (answer(run, prompt, text, of_prompt.setdefault(text, len(of_prompt))) for text in (p.a, p.b))
        first_is_a = int(digest([seed, p.prompt, *sorted((p.a, p.b))], 1), 16) % 2 == (p.a < p.b)
        cases.append(Case(prompt, a, b, (a, b) if first_is_a else (b, a)))
    return cases


def agreement(one: Mapping[str, float | None], other: Mapping[str, float | None]) -> Agreement:
    """How far two judges' verdicts (BenchReport.deltas) agree."""
    pairs = ((x, other.get(id)) for id, x in one.items())
    both = [(_sign(x), _sign(y)) for x, y in pairs if x is not None and y is not None]
    if not both:
        return Agreement(0, None, None, None)
    n, (mine, theirs) = len(both), zip(*both, strict=True)
    same, opposed = sum(x == y for x, y in both), sum(x * y < 0 for x, y in both)
    return Agreement(n, same / n, opposed / n, cohens_kappa(mine, theirs))


def longer_by(preferences: Sequence[Preference]) -> Array:
    """Length of a minus length of b, in characters: the delta of the judge that takes the longer answer. [pairs]"""
    return np.array([float(len(p.a) - len(p.b)) for p in preferences])


def _sign(delta: float) -> int:
    return (delta > 0) - (delta < 0)


def _rows(
    compares: bool,
    preferences: Sequence[Preference],
    cases: Sequence[Case],
    deltas: Array,
    judgements: Sequence[Judgement],
) -> Iterable[BenchRow]:
    subsets = sorted({p.subset for p in preferences} - {""})
    for subset in ["", *(subsets if len(subsets) > 1 else [])]:
        here = [i for i, p in enumerate(preferences) if subset in ("", p.subset)]
        shown = {c.id for i in here for c in cases[i].shown}
        about = [j for j in judgements if j.completion_id in shown and j.rival_id in shown]
        yield _row(subset, compares, [preferences[i] for i in here], deltas[here], about)


def _row(
    subset: str, compares: bool, preferences: Sequence[Preference], deltas: Array, duels: Sequence[Judgement]
) -> BenchRow:
    p_a, prompts = np.array([p.p_a for p in preferences]), [p.prompt for p in preferences]
    longer = longer_by(preferences)
    return BenchRow(
        subset,
        len(preferences),
        accuracy(deltas, p_a, prompts),
        accuracy(longer, p_a, prompts),
        paired_difference(outcomes(deltas, p_a), outcomes(longer, p_a), prompts),
        length_controlled(deltas, p_a, longer, prompts),
        calibration_error(deltas + 0.5 if compares else sigma(deltas), p_a),
        position(duels),
        labelled_ties=int((p_a == 0.5).sum()),
        ties_found=int(((p_a == 0.5) & (deltas == 0)).sum()),
    )
