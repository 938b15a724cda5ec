"""Two answers judged by any judge outside a loop, as prompts and completions, so that verdicts are stored as usual."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sparring.judges.measure import PositionBias, position_bias
from sparring.loop.errors import StepError
from sparring.loop.judgements import PATIENCE, Scores
from sparring.loop.parts import Judge
from sparring.loop.types import Completion, Group, JudgeCall, Judgement, Prompt, Record, make_id

Said = Judgement | JudgeCall
Remember = Callable[[Sequence[Record]], object]


def forget(chunk: Sequence[Record]) -> None:
    """A `remember` that keeps nothing."""


@dataclass(frozen=True)
class Case:
    """Two answers to compare, a and b. `shown` has them in the order in which the judge gets them."""

    prompt: Prompt
    a: Completion
    b: Completion
    shown: tuple[Completion, Completion]


@dataclass(frozen=True)
class Heard:
    """All rows of a judge, from this run and from before."""

    judgements: list[Judgement]
    calls: list[JudgeCall]
    asked: int  # judgements made in this run


def answer(run: str, prompt: Prompt, text: str, sample: int = 0, role: str = "") -> Completion:
    """A completion that no policy wrote. It has no tokens; its id comes from its text and `role`."""
    id = make_id("completion", run=run, prompt=prompt.id, text=text, role=role)
    return Completion(id, run, 0, prompt.id, "", sample, "dataset", text, (), (), "stop", 1.0, 1.0, 0)


def ask(judge: Judge, cases: Sequence[Case], known: Iterable[Said] = (), remember: Remember = forget) -> Heard:
    """Judge the cases. Verdicts from before (`known`) are reused, except where no reply came.

    `remember` gets the prompts and completions, then each chunk of rows as it comes. Raises StepError when PATIENCE
    questions in a row get no reply: the judge is down.
    """
    remember(list({r.id: r for case in cases for r in (case.prompt, *case.shown)}.values()))
    rows = _of_cases(cases, known)
    heard = [r for r in rows.values() if isinstance(r, Judgement) and r.status != "unreached"]
    made_now: set[str] = set()
    unheard = 0
    for chunk in judge.judge([group for group in groups_of(judge, cases, heard) if judge.missing(group)]):
        remember(chunk)
        rows |= {r.id: r for r in chunk}
        for j in (r for r in chunk if isinstance(r, Judgement)):
            made_now.add(j.id)
            unheard = unheard + 1 if j.status == "unreached" else 0
            if unheard == PATIENCE:
                raise StepError(
                    f"judge {judge.name} gave no reply to {PATIENCE} questions in a row, the last: {j.rationale}. Make "
                    "sure that it is up and run the same command again: with a store, only open questions are asked"
                )
    judgements = [r for r in rows.values() if isinstance(r, Judgement)]
    return Heard(judgements, [r for r in rows.values() if isinstance(r, JudgeCall)], len(made_now))


def _of_cases(cases: Sequence[Case], known: Iterable[Said]) -> dict[str, Said]:
    """The known rows about these answers, with duels as they are shown here, and the calls that they took."""
    answers = {c.id for case in cases for c in case.shown}
    shown = {(case.shown[0].id, case.shown[1].id) for case in cases}
    every = list(known)
    kept: dict[str, Said] = {
        r.id: r
        for r in every
        if isinstance(r, Judgement)
        and (r.completion_id in answers if r.rival_id is None else (r.completion_id, r.rival_id) in shown)
    }
    return kept | {r.id: r for r in every if isinstance(r, JudgeCall) and r.judgement_id in kept}


def groups_of(judge: Judge, cases: Sequence[Case], known: Sequence[Judgement] = ()) -> list[Group]:
    """One group per case for a judge of pairs. One per prompt for a judge of single answers, which reads each once."""
    judged: dict[str, list[Judgement]] = defaultdict(list)
    for j in known:
        judged[j.completion_id].append(j)
    sets: dict[str, tuple[Prompt, dict[str, Completion]]] = {}
    for i, case in enumerate(cases):
        key = str(i) if judge.compares else case.prompt.id
        sets.setdefault(key, (case.prompt, {}))[1].update({c.id: c for c in case.shown})
    return [
        Group(prompt, tuple(completions.values()), (), _about(completions, judged))
        for prompt, completions in sets.values()
        if len(completions) > 1
    ]


def _about(completions: Iterable[str], judged: dict[str, list[Judgement]]) -> tuple[Judgement, ...]:
    ids = set(completions)
    return tuple(j for c in completions for j in judged.get(c, ()) if j.rival_id is None or j.rival_id in ids)


def delta(judge: Judge, reading: Scores, case: Case) -> float | None:
    """The verdict: above 0 if a wins (see judges.measure); None: no answer.

    Equal texts that a judge of pairs was not asked about (see loop.judgements.duels) are a tie.
    """
    if case.a.id == case.b.id:
        return 0.0
    if not judge.compares:
        a, b = reading.scores.get(case.a.id), reading.scores.get(case.b.id)
        return None if a is None or b is None else a - b
    p = reading.duels.get((case.a.id, case.b.id))
    if p is None:
        return 0.0 if case.a.text == case.b.text else None
    return p - 0.5


def position(judgements: Iterable[Judgement]) -> PositionBias | None:
    """The position bias over all duels, each member and principle by itself; None: there are no duels."""
    values: dict[tuple[str, str | None, str, str], dict[int, float | None]] = defaultdict(dict)
    for j in judgements:
        if j.rival_id is not None:
            values[j.completion_id, j.rival_id, j.member, j.principle][j.order] = j.value
    return position_bias([p.get(0) for p in values.values()], [p.get(1) for p in values.values()])
