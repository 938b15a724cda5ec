"""Controlled sentiment (arXiv:2305.18290, section 6.1), small: reward against KL for several methods.

    python benchmarks/sentiment.py --imdb FILE --sst-train FILE --sst-test FILE --folder /tmp/sentiment [--only ppo]

The policy goes on from the first words of a film review; the judge is a sentiment classifier trained on SST-2. Each
method plays the same loop with the same prompts, samples and judge; every round is a point: KL from the initial policy
and mean score on held-out prompts. Runs are kept in one store: call it again to go on. `--summary` only draws.

Sized for two CPU cores: SmolLM2-135M, answers of 24 tokens, LoRA, few rounds. Files have rows of `prefix` (IMDb), and
of `text` and `label` (SST-2): Parquet, JSONL, or a hub dataset's id.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.hardware import describe  # noqa: E402
from benchmarks.sentiment_judge import SentimentJudge, train_judge  # noqa: E402

TRAIN, HELD_OUT = 192, 72
PAIRS: dict[str, Any] = {"pair": {"kind": "best_worst", "per_prompt": 2}}
GROUPS: dict[str, Any] = {"pair": {"kind": "group"}}
# What differs between points. `reference: initial` throughout: KL is measured from the initial policy.
METHODS: dict[str, list[dict[str, Any]]] = {
    "dpo": [PAIRS | {"learn": {"loss": "sigmoid", "beta": b}} for b in (0.05, 0.2)],
    "ppo": [GROUPS | {"learn": {"algorithm": "ppo", "kl_coef": b, "missing_eos": None}} for b in (0.05, 0.2)],
    "rloo": [GROUPS | {"learn": {"algorithm": "rloo", "kl_coef": b}} for b in (0.05, 0.2)],
    "ipo": [PAIRS | {"learn": {"loss": "ipo", "beta": b}} for b in (0.05, 0.2)],
    "simpo": [PAIRS | {"learn": {"loss": "simpo", "beta": b, "reference": "none"}} for b in (1.0, 2.5)],
    # DPO's first rounds go several times as far as PPO's. Is what it loses lost to steps that are too long?
    "dpo-slow": [PAIRS | {"learn": {"loss": "sigmoid", "beta": 0.05, "lr": 5e-5}}],
    "preferred-sft": [  # of the pair's loss nothing, of the chosen answer's log-prob everything
        PAIRS
        | {
            "learn": {
                "loss": [{"kind": "sigmoid", "weight": 0}],
                "regularisers": [{"kind": "nll_chosen", "weight": 1}],
            }
        }
    ],
}
BASE: dict[str, Any] = {
    "rounds": 3,
    "seed": 0,
    "sample": {"n": 4, "max_tokens": 24, "context": 128, "chunk": 72, "max_seqs": 128},
    "judge": {"kind": "rules"},  # replaced by the sentiment judge
    "learn": {"lr": 2e-4, "batch_size": 8, "reference": "initial", "lora": {"r": 32, "alpha": 64}},
    "evaluate": {"n": 2, "gate": None, "pass_at": 0.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--imdb", default="stanfordnlp/imdb:train")
    parser.add_argument("--sst-train", default="stanfordnlp/sst2:train")
    parser.add_argument("--sst-test", default="stanfordnlp/sst2:validation")
    parser.add_argument("--folder", type=Path, default=Path("sentiment"))
    parser.add_argument("--model", default="bundled/smollm2-135m-instruct")
    parser.add_argument("--only", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--rounds", type=int, default=BASE["rounds"])
    parser.add_argument("--seed", type=int, default=BASE["seed"], help="whose draws the methods get")
    parser.add_argument("--engine", choices=("vllm", "transformers"), default="vllm")
    parser.add_argument("--summary", action="store_true", help="only draw what is there")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if not options.summary:
        judge = prepare(options, folder)
        # Every method once before any twice: a run that is stopped early compares them all.
        for points_of in zip_longest(*([(m, p) for p in METHODS[m]] for m in options.only)):
            for method, point in filter(None, points_of):
                play(point_config(method, point, options, folder), judge)
    summarise(folder, options.results)


def prepare(options: argparse.Namespace, folder: Path) -> SentimentJudge:
    """Prompts, a policy that goes on from plain text, and the judge."""
    from sparring.loop.models import resolve_model
    from sparring.loop.prompts import read_rows

    source = resolve_model(options.model)
    policy = folder / "policy"
    if not policy.exists():
        shutil.copytree(source, folder / "copying")
        # A review is no chat: the prompt is the text as it stands.
        (folder / "copying" / "chat_template.jinja").write_text("{{ messages[-1]['content'] }}")
        (folder / "copying").rename(policy)
    prefixes = sorted({row.get("prefix") or " ".join(row["text"].split()[:6]) for row in read_rows(options.imdb)})
    chosen = [p for p in prefixes if 12 <= len(p) <= 60 and "<" not in p][: TRAIN + HELD_OUT]
    for name, part in (("eval", chosen[:HELD_OUT]), ("train", chosen[HELD_OUT:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"prompt": p}) + "\n" for p in part))
    # Enough for a linear map; on two cores features are made at a few dozen texts a second.
    rows = ([*read_rows(options.sst_train)][:2000], [*read_rows(options.sst_test)][:400])
    return train_judge(source, *rows, folder / "features.safetensors")


def point_config(method: str, point: dict[str, Any], options: argparse.Namespace, folder: Path) -> Any:
    from sparring.flows.config import parse_config

    learn = BASE["learn"] | point["learn"]
    if learn.get("algorithm"):
        learn |= {"epochs": 1}
    strength = point["learn"].get("beta", point["learn"].get("kl_coef"))
    name = method if strength is None else f"{method}-{strength:g}"
    if options.seed:
        name += f"_seed{options.seed}"
    values = BASE | point | {
        "learn": learn,
        "sample": BASE["sample"] | {"engine": options.engine},
        "name": name,
        "seed": options.seed,
        "rounds": options.rounds,
        "store": str(folder / "sentiment.duckdb"),
        "policy": {"model": str(folder / "policy")},
        "prompts": {"train": str(folder / "train.jsonl"), "eval": str(folder / "eval.jsonl"), "per_round": 64},
    }  # fmt: skip
    return parse_config(values, method)


def play(config: Any, judge: SentimentJudge) -> None:
    """The loop as `spar run` plays it, with the sentiment judge in the place of the config's."""
    from sparring.flows.compose.build import build, prepare
    from sparring.flows.run.rounds import operate
    from sparring.loop.pairing.pipeline import pairing
    from sparring.store.store import DuckStore

    store = DuckStore(config.store)
    known = store.run(config.name) if store.db.path.exists() else None
    if known and store.complete(known.id, config.rounds):
        print(f"{config.name}: complete", flush=True)
        return
    began = time.monotonic()
    loop = build(prepare(config))
    options = {**config.pair.options}
    parts = replace(loop.parts, judge=judge, eval_judge=judge, pairing=pairing(config.pair.kind, judge.read, **options))
    try:
        operate(replace(loop, parts=parts), config.rounds)
    finally:
        loop.close()
    print(f"{config.name}: {time.monotonic() - began:.0f} s", flush=True)


def points(folder: Path) -> Iterator[dict[str, Any]]:
    from sparring.store.db import Database, rows

    with Database(folder / "sentiment.duckdb").read() as con:
        yield from rows(
            con,
            """SELECT r.name, e.round, max(value) FILTER (metric = 'kl') AS kl,
                max(low) FILTER (metric = 'kl') AS kl_low,
                max(high) FILTER (metric = 'kl') AS kl_high, max(value) FILTER (metric = 'mean_score') AS score,
                max(low) FILTER (metric = 'mean_score') AS low, max(high) FILTER (metric = 'mean_score') AS high,
                max(value) FILTER (metric = 'pass_rate') AS positive, max(u.seconds) AS seconds
            FROM evaluations e JOIN runs r USING (run_id) LEFT JOIN updates u USING (run_id, round)
            GROUP BY r.name, e.round ORDER BY r.name, e.round""",
        )


def summarise(folder: Path, results: Path) -> None:
    """The table on stdout, and table and plot in `results`."""
    found = [*points(folder)]
    played = {p["name"] for p in found if p["kl"] is not None}
    found = [p for p in found if p["name"] in played]  # not those that were only measured before they learned
    for p in found:
        kl = f"{p['kl']:8.2f}" if p["kl"] is not None else "       -"
        print(f"{p['name']:24} round {p['round']}  KL {kl}  reward {p['score']:6.2f} [{p['low']:.2f}, {p['high']:.2f}]")
    frontiers = {"dpo": ["dpo"], "dpo at either rate": ["dpo", "dpo-slow"]}
    compared = {name: list(beside(found, series, "ppo")) for name, series in frontiers.items()}
    for name, rows in compared.items():
        for c in rows:
            ppo = f"{c['name']:15} {c['score']:6.2f} [{c['low']:.2f}, {c['high']:.2f}]"
            below = " (below the interval)" if c["frontier"] < c["low"] else ""
            print(f"KL {c['kl']:5.2f}: {ppo}, frontier of {name} {c['frontier']:6.2f}{below}")
    made = {"made": describe(ROOT), "points": found, "ppo_beside": compared}
    results.mkdir(parents=True, exist_ok=True)
    (results / "sentiment.json").write_text(json.dumps(made, indent=1) + "\n")
    draw(found, results / "sentiment.svg")


def beside(found: list[dict[str, Any]], some: list[str], other: str) -> Iterator[dict[str, Any]]:
    """Each point of `other`, and what `some` get at its KL with the same seed: between points of their upper hull."""
    import numpy as np

    def of(methods: list[str], seed: int) -> list[dict[str, Any]]:
        mine = [p for p in found if p["name"].rpartition("-")[0] in methods and _seed(p) == seed]
        return [p for p in mine if p["kl"] is not None]

    for seed in sorted({_seed(p) for p in found}):
        hull = _hull([(0.0, p["score"]) for p in found if p["kl"] is None and _seed(p) == seed][:1], of(some, seed))
        for p in sorted(of([other], seed), key=lambda p: p["kl"]):
            if p["kl"] <= hull[-1][0]:
                yield p | {"frontier": float(np.interp(p["kl"], *zip(*hull, strict=True)))}


def _seed(point: dict[str, Any]) -> int:
    return int(point["name"].partition("_seed")[2] or BASE["seed"])


def _hull(start: list[tuple[float, float]], points: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """The upper hull of KL and score, from the start on."""
    hull: list[tuple[float, float]] = []
    for x, y in sorted(start + [(p["kl"], p["score"]) for p in points]):
        while len(hull) > 1 and _above((x, y), hull[-2], hull[-1]):
            hull.pop()
        hull.append((x, y))
    return hull


def _above(point: tuple[float, float], first: tuple[float, float], last: tuple[float, float]) -> bool:
    """Whether a point lies above the line through two others."""
    slope = (last[1] - first[1]) / (last[0] - first[0])
    return point[1] > first[1] + slope * (point[0] - first[0])


def draw(found: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
    methods = list(METHODS)
    for name in sorted({p["name"] for p in found}):
        method = next(m for m in sorted(methods, key=len, reverse=True) if name.startswith(m))
        mine = [p for p in found if p["name"] == name and p["score"] is not None]
        strengths = sorted({p["name"].partition("_")[0] for p in found if p["name"].startswith(method)})
        line = ("-", "--", ":")[strengths.index(name.partition("_")[0])]
        style: dict[str, Any] = {
            "color": f"C{methods.index(method)}",
            "linestyle": line,
            "marker": "os^v"[_seed(mine[0]) % 4],
        }
        x = [p["kl"] or 0.0 for p in mine]
        y = [p["score"] for p in mine]
        spread = [[p["score"] - p["low"] for p in mine], [p["high"] - p["score"] for p in mine]]
        axis.errorbar(x, y, spread, markersize=3, linewidth=1, elinewidth=0.5, label=name, **style)
    axis.set_xlabel("KL from the initial policy (nats)")
    axis.set_ylabel("mean log-odds of positive sentiment")
    axis.legend(fontsize=7, ncols=2)
    figure.savefig(path)


if __name__ == "__main__":
    main()
