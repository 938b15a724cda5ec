"""A builder whose pairs are named by a query to the store."""

from collections.abc import Sequence
from math import isnan, nan

from sparring.loop.errors import ConfigError, StepError
from sparring.loop.judgements import Scores
from sparring.loop.pairing.builders.ranking import rankable
from sparring.loop.pairing.types import Candidates, Choice, Named, Scored, Unpaired
from sparring.loop.traits import builder
from sparring.loop.types import Completion


@builder(by_query=True)
def sql(candidates: Candidates, *, query: str) -> Sequence[Choice] | Unpaired:
    """The pairs that `query` names (see store.plug_points.PAIRS).

    Margins and probabilities that the query leaves out are the judge's. A prompt without a named pair is filtered,
    unless there was nothing to pair. Raises StepError for a pair with answers that are not this prompt's.
    """
    if not isinstance(query, str) or not query.strip():
        raise ConfigError(f"query is {query!r}; expected SQL, or the name of a .sql file")
    if not candidates.named:
        scored = rankable(candidates)
        return scored if isinstance(scored, Unpaired) else Unpaired("filtered", "the query names none of its pairs")
    answers = {c.id: c for c in candidates.full}
    return [_choice(named, answers, candidates.reading) for named in candidates.named]


def _choice(named: Named, answers: dict[str, Completion], reading: Scores) -> Choice:
    chosen, rejected = (_answer(id, answers) for id in (named.chosen_id, named.rejected_id))
    if chosen.text == rejected.text:
        raise StepError(
            f"pair.query prefers {chosen.id} to {rejected.id}, which have the same text; exclude such pairs with WHERE"
        )
    sample = None if named.reference_sample_id is None else _answer(named.reference_sample_id, answers)
    high, low = (Scored(_score(c, named, reading), c) for c in (chosen, rejected))
    weight = 1.0 if named.weight is None else named.weight
    return Choice(high, low, sample, named.p_chosen, weight, named.margin)


def _score(answer: Completion, named: Named, reading: Scores) -> float:
    score = reading.scores.get(answer.id, nan)
    if isnan(score) and named.margin is None:
        raise StepError(
            f"pair.query names {answer.id}, which has no score from the judge, and gives no margin; exclude such "
            "answers, or return a margin for them"
        )
    return score


def _answer(id: str, answers: dict[str, Completion]) -> Completion:
    if id not in answers:
        raise StepError(
            f"pair.query names {id} in a pair of a prompt whose answers are {', '.join(answers)}; name two full "
            "answers to one prompt in the current round: WHERE run_id = $run AND round = $round"
        )
    return answers[id]
