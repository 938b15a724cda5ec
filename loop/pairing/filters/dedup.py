"""A filter for near-duplicates, which compares the tokens of answers."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from math import ceil

from sparring.loop.pairing.filters.simple import choice_of
from sparring.loop.pairing.types import Dropped, Row
from sparring.loop.pairing.values import number
from sparring.loop.traits import filter
from sparring.loop.types import Completion

Element = tuple[int, int]  # a token id, and how often its answer has had it so far: turns a multiset into a set


@filter(pairs=True, whole="drops answers that are nearly equal")
def dedup(rows: Sequence[Row], *, at: float = 0.9) -> list[Row | Dropped]:
    """Drop pairs of two nearly equal answers, and pairs whose chosen answer nearly equals that of an earlier pair.

    Answers are nearly equal if their similarity is `at` or more: difflib's ratio of their token ids, 1 for equal ones.
    The first of several near-duplicates in the round is kept. A chosen answer that is in several pairs is not a
    duplicate of itself.
    """
    number("at", at, 1e-6, 1)
    alike = [_alike(row, at) for row in rows]
    chosen = {
        c.id: c for c in (choice_of(row).chosen.completion for row, no in zip(rows, alike, strict=True) if not no)
    }
    repeats = _repeats(list(chosen.values()), at)
    return [no or repeats.get(choice_of(row).chosen.completion.id) or row for row, no in zip(rows, alike, strict=True)]


def similarity(a: Completion, b: Completion, at: float = 0.0) -> float:
    """2 M / T for M tokens in matching blocks and T tokens in all (difflib); 0 if it cannot reach `at`.

    Matching costs the product of the lengths. Counting the common tokens costs their sum and bounds M.
    """
    common = (Counter(a.token_ids) & Counter(b.token_ids)).total()
    if 2 * common < at * (len(a.token_ids) + len(b.token_ids)):
        return 0.0
    return SequenceMatcher(None, a.token_ids, b.token_ids, autojunk=False).ratio()


def _alike(row: Row, at: float) -> Dropped | None:
    choice = choice_of(row)
    ratio = similarity(choice.chosen.completion, choice.rejected.completion, at)
    return Dropped(f"similarity of its answers {ratio:.4g}, expected less than {at:g}") if ratio >= at else None


def _repeats(completions: Sequence[Completion], at: float) -> dict[str, Dropped]:
    """The completions, by id, that nearly equal an earlier one that is kept.

    Only answers that share one of their rarest tokens are compared. Of two answers with ratio `at` or more, a share
    of at / (2 - at) of the tokens of each is in the other, so both have one of the shared tokens among their rarest
    (1 - share): the prefix filter of set-similarity joins. It finds all near-duplicates and compares few other answers.
    """
    repeats: dict[str, Dropped] = {}
    kept_by: dict[int, list[int]] = defaultdict(list)
    ranked = _ranked(completions)
    tokens = list(map(frozenset, ranked))
    for i, completion in enumerate(completions):
        rarest = ranked[i][: len(ranked[i]) - ceil(at / (2 - at) * len(ranked[i]) - 1e-9) + 1]
        met = sorted({k for element in rarest for k in kept_by[element]})
        near = (k for k in met if 2 * len(tokens[k] & tokens[i]) >= at * (len(tokens[k]) + len(tokens[i])))
        ratios = (similarity(completions[k], completion, at) for k in near)
        twin = next((ratio for ratio in ratios if ratio >= at), None)
        if twin is not None:
            why = f"similarity of chosen to an earlier one {twin:.4g}, expected less than {at:g}"
            repeats[completion.id] = Dropped(why)
            continue
        for element in rarest:
            kept_by[element].append(i)
    return repeats


def _ranked(completions: Iterable[Completion]) -> list[list[int]]:
    """The tokens of every completion as ranks, 0 the rarest in the round; each repeat of a token has its own rank."""
    elements = [list(_elements(c.token_ids)) for c in completions]
    often = Counter(element for each in elements for element in each)
    rank = {element: n for n, element in enumerate(sorted(often, key=lambda e: (often[e], e)))}
    return [sorted(rank[element] for element in each) for each in elements]


def _elements(token_ids: Iterable[int]) -> Iterator[Element]:
    seen: Counter[int] = Counter()
    for token in token_ids:
        seen[token] += 1
        yield token, seen[token]
