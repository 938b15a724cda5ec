"""The pairing step: turns judgements into preference pairs and examples. Pure: no model, no database.

A builder (see loop.pairing) looks at one prompt's completions. It returns pairs or examples, or the reason why there
are none. Filters then look at all of the round. Each prompt ends with exactly one outcome, and none is dropped
silently: prompts = paired + tie + identical + abstained + filtered + failed.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sparring.loop.errors import StepError
from sparring.loop.judgements import Scores, answers_in, mean_scores
from sparring.loop.pairing import BUILDERS, FILTERS, Candidates, Choice, Dropped, Named, Pick, Row, Unpaired
from sparring.loop.pairing.checks import check_pairing, options_of
from sparring.loop.parts import Pairing
from sparring.loop.registry import Part
from sparring.loop.traits import BuilderTraits
from sparring.loop.types import Example, Experience, Judgement, Outcome, Pair, PromptOutcome, Round, make_id

Read = Callable[[Sequence[Judgement]], Scores]
Ask = Callable[[Round], Sequence[Named]]  # a query to the store
Filtering = Sequence[Mapping[str, Any]]  # each entry has `kind` and the options of that filter
Drop = tuple[str, str]  # the filter, and the reason


@dataclass(frozen=True, slots=True)
class _Built:
    """The rows that a builder made from one prompt, and the number of pairs that lost the judge's own duel."""

    rows: Sequence[Row]
    lost: int


def pairing(
    kind: str, read: Read = mean_scores, ask: Ask | None = None, /, filters: Filtering = (), **options: Any
) -> Pairing:
    """The pairing step with the builder `kind`. `read` turns judgements into scores, `ask` returns named pairs.

    The `filters` run one after the other on all rows of the round. Raises ConfigError for a builder, filter or option
    that does not exist.
    """
    check_pairing(kind, {**options, "filters": filters})
    builder = BUILDERS[kind]

    def build(rnd: Round, experience: Experience) -> list[Pair | Example | PromptOutcome]:
        named = _by_answer(ask(rnd)) if ask else {}
        built = {prompt: _build(builder, seen, options) for prompt, seen in _candidates(experience, read, named)}
        if named:
            raise StepError(
                f"pair.query names {next(iter(named))}, which is not an answer in round {rnd.index} of {rnd.run}; "
                "restrict the query: WHERE run_id = $run AND round = $round"
            )
        kept, drops = _sift([row for each in built.values() if isinstance(each, _Built) for row in each.rows], filters)
        records: list[Pair | Example | PromptOutcome] = []
        for prompt, result in built.items():
            records += [_record(rnd, builder.label, row) for row in kept[prompt]]
            outcome, reason = _outcome(builder.traits, result, len(kept[prompt]), drops[prompt])
            records.append(outcome_of(rnd, prompt, outcome, reason))
        return records

    return build


def _by_answer(named: Sequence[Named]) -> dict[str, list[Named]]:
    pairs: dict[str, list[Named]] = defaultdict(list)
    for each in named:
        pairs[each.chosen_id].append(each)
    return pairs


def _candidates(experience: Experience, read: Read, named: dict[str, list[Named]]) -> Iterator[tuple[str, Candidates]]:
    """Each prompt's candidates; removes from `named` the pairs that belong to the prompt."""
    reading = read(experience.judgements)
    judgements = defaultdict(list)
    for j in experience.judgements:
        judgements[j.completion_id].append(j)
    for group in experience.groups:
        judged = tuple(j for c in group.completions for j in judgements[c.id])
        pairs = tuple(pair for c in group.completions for pair in named.pop(c.id, ()))
        answers = answers_in(group.completions)
        silent = len(group.completions) - len(answers)
        yield group.prompt.id, Candidates(answers, reading, judged, pairs, silent)


def _build(builder: Part[BuilderTraits], seen: Candidates, options: Mapping[str, Any]) -> _Built | Unpaired:
    if seen.unanswered and not any(c.origin == "policy" for c in seen.completions):
        return Unpaired("abstained", "the policy gave no answer: no thought was closed; raise sample.max_tokens")
    built = builder(seen, **options)
    if isinstance(built, Unpaired):
        return built
    items = [_settled(item, builder.traits, seen.reading) for item in built]
    rows = [Row(item, seen) for item in items if item is not None]
    if not rows:
        return Unpaired("tie", f"the judge's own duels do not prefer any of the {len(built)} pairs built on scores")
    return _Built(rows, len(items) - len(rows))


def _settled(item: Choice | Pick, builder: BuilderTraits, reading: Scores) -> Choice | Pick | None:
    """The item with p from the judge's own duel of the two answers, or None if the duel does not prefer chosen.

    Without a duel p is 1: the higher score is better. A builder that looks at no scores ignores duels.
    """
    if isinstance(item, Pick) or (builder.by_query and item.p is not None):  # the query gives p
        return item
    duel = (item.chosen.completion.id, item.rejected.completion.id)
    p = reading.duels.get(duel, 1.0) if builder.scores else 1.0
    if p <= 0.5:
        return None
    return item if item.p is not None else replace(item, p=p)


def _sift(rows: Sequence[Row], filters: Filtering) -> tuple[Mapping[str, list[Row]], Mapping[str, list[Drop]]]:
    """The rows that every filter keeps and the rows that were dropped, by prompt."""
    drops: dict[str, list[Drop]] = defaultdict(list)
    for each in filters:
        verdicts = FILTERS[each["kind"]](rows, **options_of(each))
        for row, verdict in zip(rows, verdicts, strict=True):
            if isinstance(verdict, Dropped):
                drops[row.prompt_id].append((each["kind"], verdict.why))
        rows = [verdict for verdict in verdicts if isinstance(verdict, Row)]
    kept: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        kept[row.prompt_id].append(row)
    return kept, drops


def _outcome(builder: BuilderTraits, built: _Built | Unpaired, kept: int, drops: Sequence[Drop]) -> tuple[Outcome, str]:
    if isinstance(built, Unpaired):
        return built.outcome, built.reason
    what = builder.gives
    reasons = [f"{built.lost} of {built.lost + len(built.rows)} pairs not preferred by the judge's own duels"] * (
        built.lost > 0
    )
    by_filter = Counter(filter_ for filter_, _ in drops)
    reasons += [f"{n} of {len(built.rows)} {what} dropped by {filter_}" for filter_, n in by_filter.items()]
    if kept:
        return "paired", ", ".join(reasons)
    return "filtered", f"{', '.join(reasons)} ({drops[-1][1]})"


def _record(rnd: Round, builder: str, row: Row) -> Pair | Example:
    return _example(rnd, builder, row.item) if isinstance(row.item, Pick) else _pair(rnd, builder, row.item)


def _example(rnd: Round, builder: str, pick: Pick) -> Example:
    answer = pick.completion
    cause = make_id("example", run=rnd.run, round=rnd.index, completion=answer.id)
    return Example(cause, rnd.run, rnd.index, answer.prompt_id, answer.id, pick.reward, pick.weight, builder)


def _pair(rnd: Round, builder: str, choice: Choice) -> Pair:
    chosen, rejected, sample = choice.chosen.completion, choice.rejected.completion, choice.reference_sample
    pair_id = make_id("pair", run=rnd.run, round=rnd.index, chosen=chosen.id, rejected=rejected.id)
    names = (pair_id, rnd.run, rnd.index, chosen.prompt_id, chosen.id, rejected.id)
    p = 1.0 if choice.p is None else choice.p
    return Pair(*names, p, choice.margin, choice.weight, builder, sample.id if sample else None)


def outcome_of(rnd: Round, prompt_id: str, outcome: Outcome, reason: str = "") -> PromptOutcome:
    cause = make_id("outcome", run=rnd.run, round=rnd.index, prompt=prompt_id)
    return PromptOutcome(cause, rnd.run, rnd.index, prompt_id, outcome, reason)
