"""Single reward models against ensembles under label noise: best-of-n by a proxy, measured by a gold model.

After Coste et al. (2310.02743): the gold model, trained on all pairs as they are labelled, labels the proxies' training
pairs (--labels data keeps the labels of the data), a share of which is turned round; the proxies know only prompts that
have no candidates. A prompt's best of n by a proxy is then scored by the gold model, exactly in expectation over the n
that are drawn from its N candidates. Gold scores are in standard deviations of all candidates. Gold and proxies read
the same frozen features, so the figures show what label noise and few pairs do, not a weaker backbone.

A line is one ensemble: for each way to one score, for each n, the mean over prompts with its 95 % interval, and the
lead over a single member (the mean of the members' own curves) on the same prompts. Run through reward_heads.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.best_of_n import best_of_n, kl_best_of_n
from benchmarks.frozen import Array, Frozen, Lines
from sparring.judges.measure import accuracy
from sparring.judges.reward.encoding import Encoded
from sparring.judges.reward.features import row_key
from sparring.judges.reward.rows import PairRow, split_rows
from sparring.loop.aggregate import AGGREGATORS
from sparring.loop.evaluator import mean_interval
from sparring.loop.types import derive_seed, digest

HELD_OUT = 0.25
Pools = Mapping[str, Sequence[Encoded]]  # by prompt


def ensembles(frozen: Frozen, given: argparse.Namespace, lines: Lines) -> None:
    for path in given.pairs:
        rows = list(frozen.read(path).rows)
        gold, scored = None, dict[bytes, float]()
        for seed in given.seeds:
            pools, learned, held_out = _split(frozen, given, rows, seed)
            for flip in given.flips:
                for head in given.heads:
                    cause = _cause(frozen, given, path, rows, pools) | {"flip": flip, "head": head, "seed": seed}
                    if lines.has(**cause):
                        continue
                    if gold is None:
                        options = given.head_options.get(given.gold_head, {})
                        gold = frozen.fit(rows, given.gold_head, options, lr=_lr(given), steps=given.steps, seed=0)
                    answers = [x for row in rows for x in (row.chosen, row.rejected)]
                    wanted = {row_key(x): x for x in [*answers, *(x for pool in pools.values() for x in pool)]}
                    new = {key: x for key, x in wanted.items() if key not in scored}
                    scored |= zip(new, frozen.scores(gold, list(new.values())) if new else (), strict=True)
                    found = one(frozen, given, cause, learned, held_out, pools, scored)
                    lines.add(cause, found)
                    _say(cause, found)


def one(
    frozen: Frozen,
    given: argparse.Namespace,
    cause: Mapping[str, Any],
    learned: Sequence[PairRow],
    held_out: Sequence[PairRow],
    pools: Pools,
    gold: Mapping[bytes, float],
) -> dict[str, Any]:
    began, seed = time.monotonic(), cause["seed"]
    rows = [relabelled(row, gold) for row in learned] if given.labels == "gold" else list(learned)
    noisy = [turned(row) if _drawn(row, seed) < cause["flip"] else row for row in rows]
    options = given.head_options.get(cause["head"], {})
    members = []
    for i in range(given.members):
        lot = derive_seed("member", seed, i)
        members.append(frozen.fit(noisy, cause["head"], options, lr=_lr(given), steps=given.steps, seed=lot))
    candidates = [answer for pool in pools.values() for answer in pool]
    known = [answer for row in noisy for answer in (row.chosen, row.rejected)]
    scale = [(x.mean(), x.std()) for x in (frozen.scores(m, known) for m in members)]
    raw = [frozen.scores(m, candidates) for m in members]
    proxies = np.stack([(x - mean) / std for x, (mean, std) in zip(raw, scale, strict=True)], 1)
    truth = np.array([gold[row_key(answer)] for answer in candidates])
    truth = (truth - truth.mean()) / truth.std()
    sizes = [len(pool) for pool in pools.values()]
    return {
        "prompts": len(pools),
        "candidates": len(candidates),
        "train_pairs": len(noisy),
        "turned": sum(_drawn(row, seed) < cause["flip"] for row in rows),
        "member_agreement": float(np.corrcoef(proxies.T)[np.triu_indices(len(members), 1)].mean()),
        "held_out_accuracy": held_out_accuracy(frozen, members, held_out),
        "curves": curves(proxies, truth, sizes, given.ns),
        "seconds": round(time.monotonic() - began, 1),
    }


def curves(proxies: Array, gold: Array, sizes: Sequence[int], ns: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
    """By aggregator, a point for each n that every prompt has candidates for. `proxies` (C, k), `gold` (C,)."""
    cuts = np.cumsum(sizes)[:-1]
    golds = np.split(gold, cuts)
    ways: dict[str, list[Array]] = {f"member_{i}": np.split(column, cuts) for i, column in enumerate(proxies.T)}
    for name, aggregate in AGGREGATORS.items():
        ways[name] = np.split(np.array([aggregate(row) for row in proxies.tolist()]), cuts)
    usable = [n for n in ns if n <= min(sizes)]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ["single", *AGGREGATORS]}
    for n in usable:
        by_prompt = {
            name: np.array([best_of_n(p, g, n) for p, g in zip(scores, golds, strict=True)])
            for name, scores in ways.items()
        }
        single = np.mean([by_prompt[f"member_{i}"] for i in range(proxies.shape[1])], axis=0)
        for name in found:
            values = single if name == "single" else by_prompt[name]
            mean, low, high = mean_interval(values.tolist())
            lead, lead_low, lead_high = mean_interval((values - single).tolist())
            point = {"n": n, "kl": kl_best_of_n(n), "gold": mean, "low": low, "high": high}
            found[name].append(point | {"lead": lead, "lead_low": lead_low, "lead_high": lead_high})
    found["oracle"] = [
        {"n": n, "kl": kl_best_of_n(n), "gold": float(np.mean([best_of_n(g, g, n) for g in golds]))} for n in usable
    ]
    return found


def relabelled(row: PairRow, gold: Mapping[bytes, float]) -> PairRow:
    """The pair as the gold model has it, without doubt."""
    better = gold[row_key(row.chosen)] >= gold[row_key(row.rejected)]
    return replace(row, p=1.0) if better else turned(replace(row, p=1.0))


def turned(row: PairRow) -> PairRow:
    return replace(row, chosen=row.rejected, rejected=row.chosen)


def held_out_accuracy(frozen: Frozen, members: Sequence[Any], rows: Sequence[PairRow]) -> dict[str, Any] | None:
    """On the data's own labels: of a single member (the mean of theirs), and of the members' mean."""
    if not rows:
        return None
    p, prompts = [row.p for row in rows], [row.preference.prompt for row in rows]
    deltas = np.stack([frozen.deltas(member, rows) for member in members], 1)
    each = [accuracy(column, p, prompts).share for column in deltas.T]
    mean = accuracy((deltas / deltas.std(0)).mean(1), p, prompts).share
    if mean is None:
        return None
    single = float(np.mean([share.value for share in each if share is not None]))
    return {"single": single, "mean": mean.value, "low": mean.low, "high": mean.high, "n": mean.n}


def _split(
    frozen: Frozen, given: argparse.Namespace, rows: Sequence[PairRow], seed: int
) -> tuple[Pools, list[PairRow], list[PairRow]]:
    """(candidates of prompts that are not learned from, pairs to learn from, pairs of the held-out prompts)."""
    if given.candidates:
        pools = _sampled(frozen, Path(given.candidates))
        held_out = [row for row in rows if row.preference.prompt in pools]
        learned = [row for row in rows if row.preference.prompt not in pools]
    else:
        held_out, learned = split_rows(rows, HELD_OUT, derive_seed("held out", seed))
        pools = _pooled(held_out)
    largest = max(map(len, pools.values()))
    least = max(n for n in given.ns if n <= largest)
    # The largest n that half of the prompts have candidates for; the others are left out for every n alike.
    while sum(len(pool) >= least for pool in pools.values()) * 2 < len(pools):
        least = max(n for n in given.ns if n < least)
    return {prompt: pool for prompt, pool in pools.items() if len(pool) >= least}, learned, held_out


def _pooled(rows: Sequence[PairRow]) -> Pools:
    found: dict[str, dict[bytes, Encoded]] = defaultdict(dict)
    for row in rows:
        found[row.preference.prompt] |= {row_key(x): x for x in (row.chosen, row.rejected)}
    return {prompt: list(pool.values()) for prompt, pool in found.items()}


def _sampled(frozen: Frozen, path: Path) -> Pools:
    """Of JSON lines with messages and answers; the same answer twice is two candidates, as it is two draws."""
    found: dict[str, list[Encoded]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        given = json.loads(line)
        encoded = [frozen.encoding.encode(given["messages"], answer) for answer in given["answers"]]
        found[digest(given["messages"])] = [row for row in encoded if row is not None]
    return found


def _cause(
    frozen: Frozen, given: argparse.Namespace, path: str, rows: Sequence[PairRow], pools: Pools
) -> dict[str, Any]:
    return {
        "pairs": Path(path).stem,
        "ids": digest([[row.preference.id, row.p] for row in rows]),
        "pools": digest([[prompt, [x.ids for x in pool]] for prompt, pool in pools.items()]),
        "model": frozen.name,
        "options": frozen.options,
        "steps": given.steps,
        "lr": _lr(given),
        "members": given.members,
        "gold_head": given.gold_head,
        "labels": given.labels,
        "ns": given.ns,
        "head_options": given.head_options,
    }


def _lr(given: argparse.Namespace) -> float:
    """The middle one: there is no clean label to choose by."""
    return float(sorted(given.lrs)[len(given.lrs) // 2])


def _drawn(row: PairRow, seed: int) -> float:
    return derive_seed("flip", seed, row.preference.id) / 2**31


def _say(cause: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    last = {name: points[-1] for name, points in found["curves"].items() if points}
    told: Callable[[str], str] = lambda name: f"{name} {last[name]['gold']:.3f}"  # noqa: E731
    print(
        f"{cause['pairs']} {cause['head']} flip {cause['flip']:.0%} seed {cause['seed']}: best of {last['single']['n']}"
        f" of {found['prompts']} prompts: {', '.join(map(told, last))}; {found['seconds']} s",
        file=sys.stderr,
        flush=True,
    )
