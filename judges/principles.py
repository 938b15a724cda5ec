"""A judge that compares answers one principle at a time, after SALMON (arXiv:2310.05910, section 3.2).

One plain principle is easier to judge than which answer is better. A principle can also be asked for or against: a
judge that says yes to every description fails, because half of the descriptions are of faults.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from math import ceil, exp, isclose, log
from pathlib import Path
from statistics import fmean, pvariance
from typing import Any

from sparring.judges.calls import check_positive
from sparring.judges.llm import configured
from sparring.judges.llm_client import HasClient, LLMClient, Question, Reply
from sparring.judges.templates import PromptFile, quoted, read_yaml
from sparring.judges.verdicts import Verdict, label_verdict
from sparring.loop.errors import ConfigError
from sparring.loop.judgements import Duel, Pairwise, Scores, duel_id, duels, from_duels
from sparring.loop.types import Completion, Group, JudgeCall, Judgement, derive_seed, digest

OURS = Path(__file__).with_name("principles.yaml")
LABELS = ("A", "B")
RATE = 0.2  # of the geometric distribution of the number of principles per duel
FAINTEST = 1e-6  # the least probability of a label, so that one not among the likely tokens has a logit too


@dataclass(frozen=True)
class Principle:
    """`definition` describes an answer that follows the principle, `negation` one that breaks it."""

    name: str
    definition: str
    negation: str


@dataclass(frozen=True)
class _Open:
    """A judgement still to be made: of `blank`'s completion and rival, shown as `first` and `second`."""

    blank: Judgement
    group: Group
    principle: Principle
    negated: bool
    first: Completion
    second: Completion


class PrinciplesJudge(HasClient, Pairwise):
    """Asks `client` which of two answers a principle's description fits better, in both orders.

    A judgement's value is P(completion beats rival) under the principle. With probability 1/2 the negation is described
    instead: its verdict is reversed, and the rationale says "negated". (SALMON reverses the label of such a principle
    in the data of a reward model; here the judge itself sees it.)

    A duel is judged on n principles, with n from a geometric distribution with rate 0.2, truncated at `max_principles`;
    None takes all. The draw is a function of `seed`, the duel and the principle. `principles` is your own YAML file: a
    list with name, definition and negation. Raises ConfigError for an option out of range.
    """

    def __init__(
        self, client: LLMClient, *, principles: str | None = None, max_principles: int | None = 8, seed: int = 0
    ) -> None:
        check_positive("judge principles: ", int, max_principles=max_principles)
        self._principles = read_principles(Path(principles).expanduser() if principles else OURS)
        self.client, self._max_principles, self._seed = client, max_principles, seed
        self._prompt = PromptFile("principle", ("conversation", "first", "second", "description"))
        texts = [[p.name, p.definition, p.negation] for p in self._principles]
        self.name = f"principles-{digest([client.model, self._prompt.digest, texts, max_principles, seed])}"

    def missing(self, group: Group) -> int:
        return sum(1 for _ in self._open(group))

    def judge(self, groups: Sequence[Group]) -> Iterator[list[Judgement | JudgeCall]]:
        open_duels = {each.blank.id: each for group in groups for each in self._open(group)}
        questions = [self._question(each) for each in open_duels.values()]
        yield from self.ask(questions, lambda reply: [_judged(open_duels[reply.question.id], reply)])

    def read(self, judgements: Sequence[Judgement]) -> Scores:
        return strongest_principle(judgements)

    def _open(self, group: Group) -> Iterator[_Open]:
        judged = {(j.completion_id, j.rival_id, j.principle, j.order) for j in group.judged}
        for a, b in duels(group):
            drawn = draw(self._principles, a, b, self._max_principles, self._seed)
            for (principle, negated), order in product(drawn, (0, 1)):
                if (a.id, b.id, principle.name, order) not in judged:
                    row_id = duel_id(self.name, a, b, order, principle=principle.name)
                    blank = Judgement(row_id, self.name, a.id, b.id, "", principle.name, order, None)
                    yield _Open(blank, group, principle, negated, *((a, b) if order == 0 else (b, a)))

    def _question(self, of: _Open) -> Question:
        variables = quoted(of.group.prompt.messages, first=of.first.text, second=of.second.text)
        variables |= {"label_first": LABELS[0], "label_second": LABELS[1]}
        variables |= {"description": of.principle.negation if of.negated else of.principle.definition}
        messages = ({"role": "user", "content": self._prompt.render(variables)},)
        return Question(of.blank.id, self.name, messages, LABELS)


principles_judge = configured(PrinciplesJudge)


def read_principles(path: Path) -> list[Principle]:
    """The principles of a YAML file. Raises ConfigError for a file without any, or with one that lacks a text."""
    rows = read_yaml("principles", path)
    keys = {field.name for field in fields(Principle)}
    for row in rows if isinstance(rows, list) else [rows]:
        if not isinstance(row, dict) or row.keys() != keys or not all(isinstance(v, str) and v for v in row.values()):
            raise ConfigError(f"{path} has {row!r}; expected a list of principles, each with texts for {sorted(keys)}")
    principles = [Principle(**row) for row in rows]
    if not principles or len({p.name for p in principles}) < len(principles):
        names = [p.name for p in principles]
        raise ConfigError(f"{path} has principles {names}; expected one or more with different names")
    return principles


def draw(
    principles: Sequence[Principle], a: Completion, b: Completion, most: int | None, seed: int
) -> list[tuple[Principle, bool]]:
    """The principles of a duel, and whether each is negated. The order of the answers does not matter."""
    cause = [seed, *sorted((a.id, b.id))]
    order = sorted(principles, key=lambda p: digest([*cause, "order", p.name]))
    if most is not None:
        order = order[: truncated_geometric(_unit(*cause, "number"), min(most, len(order)))]
    return [(p, _unit(*cause, "negated", p.name) < 0.5) for p in order]


def truncated_geometric(u: float, most: int) -> int:
    """The number in 1..most, with P(n) proportional to (1 - RATE)^(n - 1), at quantile u of [0, 1)."""
    mass = u * (1 - (1 - RATE) ** most)
    return max(1, min(most, ceil(log(1 - mass) / log(1 - RATE))))


def strongest_principle(judgements: Iterable[Judgement]) -> Scores:
    """Each duel decided by the principle with the largest |score| on it (arXiv:2310.05910, as in the authors' code).

    A principle's score on a duel is the mean logit of its two orders if they agree in sign, else 0, divided by the
    variance of its logits over all judgements: a principle that separates everything says less about one duel. The sign
    of the largest |score| names the winner, and P is that principle's own. Score 0, or equal scores for both sides, is
    a tie. Without a variance to divide by (a single duel, or logits that are all equal) the score is the mean logit:
    the principle's scale is unknown, and a division by 0 must not make it win.
    """
    logits: dict[str, dict[Duel, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for j in judgements:
        if j.rival_id is not None and j.value is not None:
            logits[j.principle][j.completion_id, j.rival_id][j.order] = _logit(j.value)
    by_principle: dict[Duel, list[tuple[float, float]]] = defaultdict(list)
    for by_duel in logits.values():
        variance = _variance(by_duel)
        for duel, orders in by_duel.items():
            if len(orders) == 2:
                mean = fmean(orders.values()) if orders[0] * orders[1] > 0 else 0.0
                by_principle[duel].append((mean / variance, mean))
    return from_duels({duel: _decide(scores) for duel, scores in by_principle.items()})


def _variance(by_duel: Mapping[Duel, Mapping[int, float]]) -> float:
    values = [logit for orders in by_duel.values() for logit in orders.values()]
    return (pvariance(values) if len(by_duel) > 1 else 0.0) or 1.0


def _decide(scores: Sequence[tuple[float, float]]) -> float:
    """P(completion beats rival) from each principle's score and mean logit."""
    largest = max(abs(score) for score, _ in scores)
    loudest = [mean for score, mean in scores if isclose(abs(score), largest)]
    return 0.5 if min(loudest) <= 0 <= max(loudest) else 1 / (1 + exp(-fmean(loudest)))


def _logit(p: float) -> float:
    p = min(max(p, FAINTEST), 1 - FAINTEST)
    return log(p / (1 - p))


def _unit(*cause: Any) -> float:
    """A number in [0, 1) from its causes."""
    return derive_seed(*cause) / 2**31


def _judged(of: _Open, reply: Reply) -> Judgement:
    verdict = Verdict(None, reply.error)
    if reply.text is not None:
        verdict = label_verdict(LABELS, reply.logprobs, reply.text)
    value = verdict.value
    if value is not None and (of.blank.order == 1) != of.negated:
        value = 1 - value
    notes = (verdict.note, "negated" if of.negated else "")
    return replace(of.blank, value=value, rationale="; ".join(filter(None, notes)), status=reply.status)
