"""Weak supervision: rules of thumb vote on a pair, and a few labelled pairs set the worth of each vote.

Labelling functions and a label model as in arXiv:2410.20869. Its own list and model are not published; these are ours.
Rules come with their opposites if either may hold: on pairs about harm the shorter answer, or the refusal, is often the
better one. A length rule teaches a reward model length, so check its length-controlled accuracy.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log

import numpy as np

from sparring.judges.measure import Array, sigma
from sparring.judges.quality import fit_temperature
from sparring.loop.errors import DataError
from sparring.loop.labelled_pairs import Preference

Labeller = Callable[[str, str, str], int]  # (prompt, a, b) -> 1: a is better, -1: b is, 0: no opinion

CLIP = (0.51, 0.95)  # a rule below chance counts for almost nothing, and no rule is certain
REFUSAL = re.compile(
    r"\b(i'?m sorry|i am sorry|i apologi[sz]e|i can(no|')t (help|assist|do|answer|provide)|i won't|as an ai\b|"
    r"i'?m (not able|unable) to|i am (not able|unable) to)",
    re.IGNORECASE,
)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def more(feature: Callable[[str, str], float], margin: float = 0.0) -> Labeller:
    """A vote for the answer with more of a feature of (prompt, answer), by more than `margin`."""

    def vote(prompt: str, a: str, b: str) -> int:
        difference = feature(prompt, a) - feature(prompt, b)
        return int(difference > margin) - int(difference < -margin)

    return vote


def less(feature: Callable[[str, str], float], margin: float = 0.0) -> Labeller:
    return more(lambda prompt, answer: -feature(prompt, answer), margin)


def log_words(prompt: str, answer: str) -> float:
    return log(1 + len(words(answer)))


def diversity(prompt: str, answer: str) -> float:
    """Share of distinct words among the first 50. Over all words it would mostly fall with length."""
    first = words(answer)[:50]
    return len(set(first)) / len(first) if first else 0.0


def repetition(prompt: str, answer: str) -> float:
    """Share of three-word runs that occur earlier in the answer."""
    tokens = words(answer)
    runs = list(zip(tokens, tokens[1:], tokens[2:], strict=False))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def reading_ease(prompt: str, answer: str) -> float:
    """Flesch's reading ease (1948), with each run of vowels as one syllable."""
    tokens = words(answer)
    if not tokens:
        return 0.0
    sentences = max(1, len(re.findall(r"[.!?]+(?=\s|$)", answer)))
    syllables = sum(max(1, len(re.findall(r"[aeiouy]+", word))) for word in tokens)
    return 206.835 - 1.015 * len(tokens) / sentences - 84.6 * syllables / len(tokens)


def on_topic(prompt: str, answer: str) -> float:
    """Share of the prompt's words of four or more letters that are in the answer."""
    topic = {word for word in words(prompt) if len(word) > 3}
    return len(topic & set(words(answer))) / len(topic) if topic else 0.0


def finished(prompt: str, answer: str) -> float:
    return float(answer.rstrip().endswith((".", "!", "?", '"', "'", ")", "]", "}", "`", "”", "。")))


def refusal(prompt: str, answer: str) -> float:
    return float(REFUSAL.search(answer[:200]) is not None)


def structure(prompt: str, answer: str) -> float:
    """Log of 1 + the number of lines that are list items or headings."""
    return log(1 + len(re.findall(r"^\s*(?:[-*•]|\d+[.)]|#+)\s", answer, re.MULTILINE)))


LABELLERS: Mapping[str, Labeller] = {
    "longer": more(log_words, log(1.1)),
    "shorter": less(log_words, log(1.1)),
    "diverse": more(diversity, 0.05),
    "repeats_less": less(repetition, 0.05),
    "readable": more(reading_ease, 10.0),
    "demanding": less(reading_ease, 10.0),
    "on_topic": more(on_topic, 0.1),
    "finished": more(finished),
    "answers": less(refusal),
    "refuses": more(refusal),
    "structured": more(structure, 0.5),
}


@dataclass(frozen=True)
class LabelModel:
    """The trust in each rule: its clipped accuracy on the labelled pairs, and the number of them that it voted on."""

    labellers: Mapping[str, Labeller]
    accuracy: Mapping[str, float]
    votes: Mapping[str, int]
    temperature: float = 1.0

    def log_odds(self, preferences: Sequence[Preference]) -> Array:
        """Sum over rules of vote * log(accuracy / (1 - accuracy)); NaN where no rule voted. [pairs]"""
        cast = _votes(preferences, self.labellers)
        weight = np.array([log(a / (1 - a)) for a in self.accuracy.values()])
        return np.where((cast != 0).any(1), cast @ weight, np.nan)

    def probabilities(self, preferences: Sequence[Preference]) -> Array:
        """P(a is better) = sigma(log-odds / temperature); NaN where no rule voted. [pairs]"""
        return sigma(self.log_odds(preferences) / self.temperature)


def fit_label_model(seed: Sequence[Preference], labellers: Mapping[str, Labeller] = LABELLERS) -> LabelModel:
    """The trust in each rule from labelled pairs: (right + 1) / (votes + 2), so few votes give little of it.

    A label that is a share counts as that share. Rules that say the same thing count as if independent; the
    temperature, fitted on the same pairs and at least 1, corrects that overconfidence. Raises DataError without
    labelled pairs, or if the rules together do no better than chance on them.
    """
    if not seed:
        raise DataError("there are no labelled pairs to fit the trust in rules on; give some tens of them")
    cast, p_a = _votes(seed, labellers), np.array([p.p_a for p in seed])
    right = ((cast > 0) * p_a[:, None] + (cast < 0) * (1 - p_a[:, None])).sum(0)
    n = (cast != 0).sum(0)
    accuracy = np.clip((right + 1) / (n + 2), *CLIP)
    plain = LabelModel(
        labellers, dict(zip(labellers, accuracy.tolist(), strict=True)), dict(zip(labellers, n.tolist(), strict=True))
    )
    return replace(plain, temperature=max(1.0, fit_temperature(plain.log_odds(seed), p_a)))


def weak_labels(
    seed: Sequence[Preference], unlabelled: Sequence[Preference], labellers: Mapping[str, Labeller] = LABELLERS
) -> list[Preference]:
    """The unlabelled pairs with a soft label, without pairs on which no rule votes. Their p_a is not read."""
    p = fit_label_model(seed, labellers).probabilities(unlabelled)
    return [
        Preference.make(old.messages, old.a, old.b, float(label), weight=old.weight, subset=old.subset)
        for old, label in zip(unlabelled, p, strict=True)
        if not np.isnan(label)
    ]


def _votes(preferences: Sequence[Preference], labellers: Mapping[str, Labeller]) -> Array:
    """[pairs, rules]"""
    rows = [[vote(p.messages[-1]["content"], p.a, p.b) for vote in labellers.values()] for p in preferences]
    return np.array(rows, dtype=np.float64).reshape(len(preferences), len(labellers))
