"""Metrics of a candidate on held-out prompts, with intervals: pass rate, win rate against a rival, length and KL."""

from collections import defaultdict
from collections.abc import Sequence
from math import sqrt
from statistics import fmean, variance
from typing import Literal

from sparring.loop.judgements import Scores, mean_scores
from sparring.loop.pairing.pipeline import Read
from sparring.loop.types import Evaluation, Experience, Round, make_id

Metric = tuple[str, float, float | None, float | None, int]  # name, value, interval, number of values
Z = 1.959963984540054  # two-sided 95 %
NO_ANSWER = float("-inf")  # in place of a score: it is compared with scores, and never averaged


def wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % score interval for a share of n trials; n may be an effective (fractional) number."""
    if n <= 0:
        return 0.0, 1.0
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def effective_n(groups: Sequence[Sequence[float]]) -> float:
    """The number of independent trials that the answers are worth: n / (1 + (m - 1) rho), Kish's design effect.

    rho is the one-way ANOVA estimate of the correlation within a prompt, clipped to [0, 1]; m is the number of answers
    per prompt. Answers that always agree count as one per prompt. Independent answers each count as one.
    """
    n, k = sum(map(len, groups)), len(groups)
    m = n / k if k else 0.0
    if k < 2:
        return float(k)  # one prompt says nothing about others
    if m <= 1:
        return float(n)
    grand = sum(map(sum, groups)) / n
    between = sum(len(g) * (fmean(g) - grand) ** 2 for g in groups) / (k - 1)
    within = sum((x - fmean(g)) ** 2 for g in groups for x in g) / (n - k)
    spread = between + (m - 1) * within
    rho = 1.0 if spread == 0 else min(1.0, max(0.0, (between - within) / spread))
    return n / (1 + (m - 1) * rho)


def win_share(mine: Sequence[float], theirs: Sequence[float]) -> float:
    """P(an answer of mine beats one of theirs), over all pairs of answers to one prompt; a tie counts half."""
    wins = sum((a > b) + (a == b) / 2 for a in mine for b in theirs)
    return wins / (len(mine) * len(theirs))


def mean_interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """The mean and its normal 95 % interval; the ends are None for fewer than two values, whose spread is unknown."""
    mean = fmean(values)
    if len(values) < 2:
        return mean, None, None
    half = Z * sqrt(variance(values) / len(values))
    return mean, mean - half, mean + half


class RivalEvaluator:
    """Compares the candidate with `rival` by the judge's scores, or by its duels if the judge compares answers.

    `read` turns the judge's judgements into scores. A completion passes with a score of `pass_at` or more; with a judge
    that compares answers there is no pass rate. A completion without an answer (its thought was not closed) has not
    passed, and loses to one with an answer; the mean score leaves it out.

    The gate accepts the candidate when its win rate is at least `gate`; None accepts every candidate.
    """

    def __init__(
        self,
        rival: Literal["initial", "previous"] = "initial",
        *,
        gate: float | None = 0.5,
        pass_at: float = 1.0,
        read: Read = mean_scores,
        compares: bool = False,
    ) -> None:
        self.rival, self.gate, self.pass_at = rival, gate, pass_at
        self.read, self.compares = read, compares

    def evaluate(
        self, rnd: Round, candidate: Experience, rival: Experience, divergences: Sequence[float]
    ) -> list[Evaluation]:
        rival_id = rival.groups[0].completions[0].policy_id if rival.groups else rnd.policy.id
        rows = self._metrics(candidate, rival, divergences)
        win = next((value for metric, value, *_ in rows if metric == "win_rate"), None)
        accepted = self.gate is None or rnd.index == 0 or (win is not None and win >= self.gate)
        rows.append(("accepted", float(accepted), None, None, 1))
        cause = {"run": rnd.run, "round": rnd.index, "candidate": rnd.policy.id}
        names = (rnd.run, rnd.index, rnd.policy.id, rival_id)
        return [
            Evaluation(make_id("evaluation", **cause, metric=metric), *names, metric, value, low, high, n)
            for metric, value, low, high, n in rows
        ]

    def _metrics(self, candidate: Experience, rival: Experience, divergences: Sequence[float]) -> list[Metric]:
        reading = self.read(candidate.judgements)
        mine = _by_prompt(candidate, reading)
        if self.compares:
            wins = _duels_won(candidate, rival, reading)
        else:
            theirs = _by_prompt(rival, self.read(rival.judgements))
            wins = {p: win_share(mine[p], theirs[p]) for p in mine if p in theirs}
        completions = [c for g in candidate.groups for c in g.completions]
        rows: list[Metric] = []
        if mine and not self.compares:
            passed = [[float(s >= self.pass_at) for s in group] for group in mine.values()]
            flat = [x for group in passed for x in group]
            rows.append(("pass_rate", fmean(flat), *wilson(fmean(flat), effective_n(passed)), len(flat)))
            if scored := [answers for group in mine.values() if (answers := [s for s in group if s != NO_ANSWER])]:
                rows.append(("mean_score", *mean_interval([fmean(g) for g in scored]), sum(map(len, scored))))
        if shared := list(wins.values()):
            rows.append(("win_rate", fmean(shared), *wilson(fmean(shared), len(shared)), len(shared)))
        if completions:
            lengths = [float(len(c.token_ids)) for c in completions]
            rows.append(("mean_tokens", *mean_interval(lengths), len(lengths)))
            if any(c.thought is not None for c in completions):
                share = fmean(float(not c.answered) for c in completions)
                rows.append(("unanswered", share, *wilson(share, len(completions)), len(completions)))
            cut = fmean(float(c.finish_reason == "length") for c in completions)
            rows.append(("truncated", cut, *wilson(cut, len(completions)), len(completions)))
            silent = fmean(float(g.prompt.id not in (wins if self.compares else mine)) for g in candidate.groups)
            rows.append(("abstained", silent, *wilson(silent, len(candidate.groups)), len(candidate.groups)))
        if divergences:
            # Over the vocabulary at each token, so never negative, whatever temperature the answers were sampled at.
            mean, low, high = mean_interval(divergences)
            rows.append(("kl", mean, None if low is None else max(0.0, low), high, len(divergences)))
        return rows


def _by_prompt(experience: Experience, reading: Scores) -> dict[str, list[float]]:
    """The scores of each prompt's answers. A completion without an answer passes at no score, and loses to any."""
    groups: dict[str, list[float]] = defaultdict(list)
    for group in experience.groups:
        for completion in group.completions:
            if not completion.answered:
                groups[group.prompt.id].append(NO_ANSWER)
            elif completion.id in reading.scores:
                groups[group.prompt.id].append(reading.scores[completion.id])
    return groups


def _duels_won(candidate: Experience, rival: Experience, reading: Scores) -> dict[str, float]:
    """The mean P(win) of each prompt, over its duels with the rival's answer of the same number. Equal texts tie."""
    answers = {(c.prompt_id, c.sample): c for g in rival.groups for c in g.completions}
    won: dict[str, list[float]] = defaultdict(list)
    for c in (c for g in candidate.groups for c in g.completions):
        other = answers.get((c.prompt_id, c.sample))
        if other is not None and other.text == c.text:
            won[c.prompt_id].append(0.5)
        elif other is not None and c.answered != other.answered:
            won[c.prompt_id].append(float(c.answered))
        elif other is not None and (c.id, other.id) in reading.duels:
            won[c.prompt_id].append(reading.duels[c.id, other.id])
    return {prompt: fmean(p) for prompt, p in won.items()}
