"""Turn judgements into preference pairs and examples. Pure: no model, no database.

A builder (see loop.pairing) looks at one prompt's completions. It returns what to learn from, or the reason why there
is nothing; filters then look at all of the round. So each prompt ends with exactly one outcome and none is dropped in
silence: prompts = paired + tie + identical + abstained + filtered + failed.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sparring.loop.errors import StepError
from sparring.loop.judgements import Scores, mean_scores
from sparring.loop.pairing import BUILDERS, FILTERS, Candidates, Choice, Dropped, Named, Pick, Row, Unpaired
from sparring.loop.pairing.checks import check_pairing, options_of
from sparring.loop.parts import Pairing
from sparring.loop.registry import Part
from sparring.loop.traits import BuilderTraits
from sparring.loop.types import Example, Experience, Judgement, Outcome, Pair, PromptOutcome, Round, make_id

Read = Callable[[Sequence[Judgement]], Scores]
Ask = Callable[[Round], Sequence[Named]]  # a query to the store
Filtering = Sequence[Mapping[str, Any]]  # each with `kind`, and beside it the options of that filter
Drop = tuple[str, str]  # the filter, and why


@dataclass(frozen=True, slots=True)
class _Built:
    """What a builder made of one prompt, without the pairs that lost the judge's own duel."""

    rows: Sequence[Row]
    lost: int


def pairing(
    kind: str, read: Read = mean_scores, ask: Ask | None = None, /, filters: Filtering = (), **options: Any
) -> Pairing:
    """The pairing step for a builder by name; `read` is the judge's way to read its judgements, `ask` names pairs.

    `filters` then look at what the builder made of the round, one after the other. Raises ConfigError for a builder,
    filter or option that does not exist.
    """
    check_pairing(kind, {**options, "filters": filters})
    builder = BUILDERS[kind]

    def build(rnd: Round, experience: Experience) -> list[Pair | Example | PromptOutcome]:
        named = _by_answer(ask(rnd)) if ask else {}
        built = {prompt: _build(builder, seen, options) for prompt, seen in _candidates(experience, read, named)}
        if named:
            raise StepError(
                f"pair.query names {next(iter(named))}, which is no answer of round {rnd.index} of {rnd.run}; ask for "
                "no others: WHERE run_id = $run AND round = $round"
            )
        kept, drops = _sift([row for made in built.values() if isinstance(made, _Built) for row in made.rows], filters)
        records: list[Pair | Example | PromptOutcome] = []
        for prompt, made in built.items():
            records += [_record(rnd, builder.label, row) for row in kept[prompt]]
            outcome, reason = _became(builder.traits, made, len(kept[prompt]), drops[prompt])
            records.append(outcome_of(rnd, prompt, outcome, reason))
        return records

    return build


def _by_answer(named: Sequence[Named]) -> dict[str, list[Named]]:
    found: dict[str, list[Named]] = defaultdict(list)
    for each in named:
        found[each.chosen_id].append(each)
    return found


def _candidates(experience: Experience, read: Read, named: dict[str, list[Named]]) -> Iterator[tuple[str, Candidates]]:
    """What each prompt's pairs are built of; takes out of `named` what belongs to it."""
    reading = read(experience.judgements)
    said = defaultdict(list)
    for j in experience.judgements:
        said[j.completion_id].append(j)
    for group in experience.groups:
        judged = tuple(j for c in group.completions for j in said[c.id])
        asked = tuple(pair for c in group.completions for pair in named.pop(c.id, ()))
        yield group.prompt.id, Candidates(group.completions, reading, judged, asked)


def _build(builder: Part[BuilderTraits], seen: Candidates, options: Mapping[str, Any]) -> _Built | Unpaired:
    found = builder(seen, **options)
    if isinstance(found, Unpaired):
        return found
    items = [_settled(item, builder.traits, seen.reading) for item in found]
    rows = [Row(item, seen) for item in items if item is not None]
    if not rows:
        return Unpaired("tie", f"the judge's own duels do not prefer any of the {len(found)} pairs built on scores")
    return _Built(rows, len(items) - len(rows))


def _settled(item: Choice | Pick, builder: BuilderTraits, reading: Scores) -> Choice | Pick | None:
    """With p from the judge's own duel of the two, where it compared them; None: the duel does not prefer chosen.

    Without a duel p is 1: the higher score is better. A given answer is chosen by what it is, whatever a duel says.
    """
    if isinstance(item, Pick) or (builder.by_query and item.p is not None):  # the query has said it
        return item
    duel = (item.chosen.completion.id, item.rejected.completion.id)
    p = reading.duels.get(duel, 1.0) if builder.scores else 1.0
    if p <= 0.5:
        return None
    return item if item.p is not None else replace(item, p=p)


def _sift(rows: Sequence[Row], filters: Filtering) -> tuple[Mapping[str, list[Row]], Mapping[str, list[Drop]]]:
    """By prompt: the rows that every filter keeps, and what was dropped."""
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


def _became(builder: BuilderTraits, made: _Built | Unpaired, kept: int, drops: Sequence[Drop]) -> tuple[Outcome, str]:
    if isinstance(made, Unpaired):
        return made.outcome, made.reason
    what = builder.gives
    said = [f"{made.lost} of {made.lost + len(made.rows)} pairs not preferred by the judge's own duels"] * (
        made.lost > 0
    )
    by_filter = Counter(filter_ for filter_, _ in drops)
    said += [f"{n} of {len(made.rows)} {what} dropped by {filter_}" for filter_, n in by_filter.items()]
    if kept:
        return "paired", ", ".join(said)
    return "filtered", f"{', '.join(said)} ({drops[-1][1]})"


def _record(rnd: Round, builder: str, row: Row) -> Pair | Example:
    return _example(rnd, builder, row.item) if isinstance(row.item, Pick) else _pair(rnd, builder, row.item)


def _example(rnd: Round, builder: str, pick: Pick) -> Example:
    answer = pick.completion
    cause = make_id("example", run=rnd.run, round=rnd.index, completion=answer.id)
    return Example(cause, rnd.run, rnd.index, answer.prompt_id, answer.id, pick.reward, pick.weight, builder)


def _pair(rnd: Round, builder: str, choice: Choice) -> Pair:
    chosen, rejected = choice.chosen.completion, choice.rejected.completion
    sample = choice.reference_sample
    return Pair(
        id=make_id("pair", run=rnd.run, round=rnd.index, chosen=chosen.id, rejected=rejected.id),
        run=rnd.run,
        round=rnd.index,
        prompt_id=chosen.prompt_id,
        chosen_id=chosen.id,
        rejected_id=rejected.id,
        p_chosen=1.0 if choice.p is None else choice.p,
        margin=choice.margin,
        weight=choice.weight,
        builder=builder,
        reference_sample_id=None if sample is None else sample.id,
    )


def outcome_of(rnd: Round, prompt_id: str, outcome: Outcome, reason: str = "") -> PromptOutcome:
    cause = make_id("outcome", run=rnd.run, round=rnd.index, prompt=prompt_id)
    return PromptOutcome(cause, rnd.run, rnd.index, prompt_id, outcome, reason)
