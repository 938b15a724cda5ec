"""Step-level pairs from a tree of answers: siblings continue one partial answer and differ in their next step."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from sparring.loop.pairing.types import Candidates, Choice, Scored, Unpaired
from sparring.loop.pairing.values import number, switch
from sparring.loop.traits import builder
from sparring.loop.types import Completion


@dataclass(frozen=True, slots=True)
class Node:
    """An answer in the tree, full or partial; `leaves` are the scores of the full answers that it leads to."""

    completion: Completion
    leaves: Sequence[float]

    @property
    def scored(self) -> Scored:
        return Scored(fmean(self.leaves), self.completion)


@builder(partial=True)
def siblings(
    candidates: Candidates, *, min_margin: float = 0.0, smooth_by_visits: bool = False
) -> Sequence[Choice] | Unpaired:
    """Pair the best next step with the worst at every node: MCTS-DPO, arXiv:2405.00451.

    The value of a step is the mean score of the policy's full answers below it, and its visits are their number. The
    search's own estimate is not used: the judge's scores of full answers replace it. With `smooth_by_visits` the pair
    has p = 1 - min(1 - conf, 1/2), conf = 1 / (1 + N_l / max(1, N_w)) for the visits of loser and winner, as in the
    authors' training code. Steps without a scored answer below them are left out. First steps continue the prompt.
    """
    number("min_margin", min_margin, 0)
    switch("smooth_by_visits", smooth_by_visits)
    families = [nodes for nodes in _families(candidates).values() if len(nodes) > 1]
    if not families:
        full = [c for c in candidates.full if c.origin == "policy"]
        n = sum(c.id in candidates.reading.scores for c in full)
        return Unpaired("abstained", f"no two siblings are scored: the judge scored {n} of {len(full)} full answers")
    different = [nodes for nodes in families if len({n.completion.text for n in nodes}) > 1]
    if not different:
        return Unpaired("identical", f"in all {len(families)} families the siblings have the same text")
    choices = [_best_worst(nodes, min_margin, smooth_by_visits) for nodes in different]
    return [c for c in choices if c] or Unpaired(
        "tie", f"{len(different)} families, none above min_margin {min_margin:g}"
    )


def _families(candidates: Candidates) -> Mapping[str | None, list[Node]]:
    """The steps of the policy's tree with scored leaves, by the partial answer that they continue."""
    tree = [c for c in candidates.completions if c.origin == "policy"]
    leaves = _leaves(tree, candidates.reading.scores)
    families: dict[str | None, list[Node]] = defaultdict(list)
    for c in tree:
        if leaves[c.id]:
            families[c.parent_id].append(Node(c, leaves[c.id]))
    return families


def _leaves(tree: Sequence[Completion], scores: Mapping[str, float]) -> Mapping[str, list[float]]:
    """The scores of the full answers below each step, in sample order; a full answer has its own score."""
    nodes = {c.id: c for c in tree}
    partial = {c.parent_id for c in tree}
    leaves: dict[str, list[float]] = defaultdict(list)
    for leaf in tree:
        if leaf.id not in partial and leaf.id in scores:
            step: Completion | None = leaf
            while step is not None:
                leaves[step.id].append(scores[leaf.id])
                step = nodes.get(step.parent_id or "")
    return leaves


def _best_worst(nodes: Sequence[Node], min_margin: float, smooth: bool) -> Choice | None:
    best, worst = max(nodes, key=lambda n: n.scored.score), min(nodes, key=lambda n: n.scored.score)
    apart = best.scored.score - worst.scored.score > min_margin
    if not apart or best.completion.text == worst.completion.text:
        return None
    p = trust(len(best.leaves), len(worst.leaves)) if smooth else None
    return Choice(best.scored, worst.scored, p=p)


def trust(winner_visits: int, loser_visits: int) -> float:
    """The confidence in a pair, from 1/2 to 1: the fewer visits the loser had relative to the winner, the higher."""
    confidence = 1 / (1 + loser_visits / max(1, winner_visits))
    return 1 - min(1 - confidence, 0.5)
