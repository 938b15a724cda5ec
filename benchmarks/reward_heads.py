"""Heads of reward models on one frozen backbone, by share of the training pairs: are prototypes worth having?

    python benchmarks/reward_heads.py --pairs a.parquet b.parquet --out heads.jsonl
    python benchmarks/reward_heads.py --pairs a.parquet --out heads.jsonl --table
    python benchmarks/reward_heads.py --pairs a.parquet --out ensembles.jsonl --ensembles     (see reward_ensembles)

For each seed a quarter of the prompts is held out, with all their pairs; a fraction is the first prompts of a seeded
order of the rest. Every head gets the same pairs and about the same number of steps; its learning rate is the one of
--lrs with the best likelihood on a quarter of the prompts of its own training pairs, and it is then trained on all of
them. --heads takes "head@pooling" too: proto_tokens reads scores at the last token, its peer is linear@last.

Killed, it goes on: features are in --cache, results in --out, a line a training. --table prints what is in --out.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.frozen import ON_POOLED, Array, Frozen, Lines, portion  # noqa: E402
from benchmarks.hardware import describe  # noqa: E402
from benchmarks.reward_ensembles import ensembles  # noqa: E402
from sparring.judges.measure import outcomes, paired_difference  # noqa: E402
from sparring.judges.reward.report import measured  # noqa: E402
from sparring.judges.reward.rows import PairRow, Pairs, split_rows  # noqa: E402
from sparring.loop.types import derive_seed, digest  # noqa: E402

HELD_OUT, INNER = 0.25, 0.25


def heads(frozen: Frozen, given: argparse.Namespace, lines: Lines) -> None:
    for path in given.pairs:
        pairs = frozen.read(path)
        ids = digest([[row.preference.id, row.p] for row in pairs.rows])
        for seed in given.seeds:
            held_out, rest = split_rows(pairs.rows, HELD_OUT, derive_seed("held out", seed))
            for fraction in given.fractions:
                part = portion(rest, fraction, seed)
                for head in given.heads:
                    cause = {
                        "pairs": Path(path).stem, "ids": ids, "model": frozen.name, "options": frozen.options,
                        "steps": given.steps, "lrs": given.lrs, "head": head,
                        "head_options": given.head_options.get(head, {}), "fraction": fraction, "seed": seed,
                    }  # fmt: skip
                    if not lines.has(**cause):
                        found = one(frozen, part, held_out, cause)
                        lines.add(cause, found | {"dropped": dict(pairs.dropped)})
                        say(cause, found)


def one(
    frozen: Frozen, part: Sequence[PairRow], held_out: Sequence[PairRow], cause: Mapping[str, Any]
) -> dict[str, Any]:
    """Choose the learning rate within the training pairs, train on all of them, measure on the held-out ones."""
    began, seed, steps = time.monotonic(), cause["seed"], cause["steps"]
    asked = cause["head"], cause["head_options"]
    inner, learned = split_rows(part, INNER, derive_seed("inner", seed))
    usable = len(cause["lrs"]) > 1 and decided(inner) and decided(learned)
    likelihood = {
        lr: mean_log_likelihood(frozen.deltas(frozen.fit(learned, *asked, lr=lr, steps=steps, seed=seed), inner), inner)
        for lr in (cause["lrs"] if usable else ())
    }
    lr = max(likelihood, key=lambda x: likelihood[x]) if likelihood else cause["lrs"][len(cause["lrs"]) // 2]
    model = frozen.fit(part, *asked, lr=lr, steps=steps, seed=seed)
    delta = frozen.deltas(model, held_out)
    metrics = measured(model, Pairs(tuple(held_out), {}), delta[:, None])
    right = outcomes(delta.tolist(), [row.p for row in held_out])
    return {
        "lr": lr,
        "likelihood": {f"{x:g}": value for x, value in likelihood.items()},
        "train_pairs": len(part),
        "train_prompts": len({row.preference.prompt for row in part}),
        "accuracy": metrics["accuracy"],
        "length_controlled": metrics.get("length_controlled"),
        "longer_wins": metrics["longer_wins"]["value"],
        "calibration_error": metrics["calibration_error"]["value"],
        "outcomes": [None if x != x else x for x in right.tolist()],
        "prompts": [row.preference.prompt[:8] for row in held_out],
        "seconds": round(time.monotonic() - began, 1),
    }


def decided(rows: Sequence[PairRow]) -> bool:
    return any(row.p > 0.5 for row in rows)


def mean_log_likelihood(delta: Array, rows: Sequence[PairRow]) -> float:
    """Of the labels under Bradley-Terry, in nats a pair."""
    p = np.array([row.p for row in rows])
    return float(np.mean(-p * np.logaddexp(0, -delta) - (1 - p) * np.logaddexp(0, delta)))


def table(lines: Lines) -> str:
    """Markdown: mean over seeds and their range, and the lead over the first head by the same held-out pairs."""
    cells: dict[tuple[str, float, str], list[dict[str, Any]]] = defaultdict(list)
    for row in (row for row in lines.rows if "fraction" in row):
        cells[row["pairs"], row["fraction"], row["head"]].append(row)
    names = list(dict.fromkeys(head for _, _, head in cells))
    text = [
        "| pairs | fraction | training pairs | head | accuracy | over seeds | length-controlled | lead over first |"
    ]
    text.append("|" + "---|" * 8)
    for (pairs, fraction, head), rows in sorted(cells.items(), key=lambda c: (c[0][0], c[0][1], names.index(c[0][2]))):
        values = [row["accuracy"]["value"] for row in rows]
        controlled = [row["length_controlled"]["value"] for row in rows if row["length_controlled"]]
        text.append(
            f"| {pairs} | {fraction:.0%} | {np.mean([row['train_pairs'] for row in rows]):.0f} | {head} "
            f"| {np.mean(values):.3f} | {min(values):.3f} to {max(values):.3f} ({len(rows)}) "
            f"| {np.mean(controlled) if controlled else float('nan'):.3f} "
            f"| {lead(rows, cells.get((pairs, fraction, names[0]), []))} |"
        )
    return "\n".join(text)


def lead(rows: Sequence[Mapping[str, Any]], first: Sequence[Mapping[str, Any]]) -> str:
    other = {row["seed"]: row for row in first}
    shared = [(row, other[row["seed"]]) for row in rows if row["seed"] in other and row is not other[row["seed"]]]
    if not shared:
        return ""
    mine, theirs = ([x for pair in shared for x in pair[side]["outcomes"]] for side in (0, 1))
    found = paired_difference(mine, theirs, [prompt for row, _ in shared for prompt in row["prompts"]])
    return "" if found is None else f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def say(cause: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    share = found["accuracy"]
    print(
        f"{cause['pairs']} {cause['head']} {cause['fraction']:.0%} seed {cause['seed']}: "
        f"{share['value']:.3f} [{share['low']:.3f}, {share['high']:.3f}] from {found['train_pairs']} pairs, "
        f"lr {found['lr']:g}, {found['seconds']} s",
        file=sys.stderr,
        flush=True,
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", required=True, help="files of labelled pairs")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--model", default="bundled/smollm2-135m-instruct")
    parser.add_argument("--fractions", nargs="+", type=float, default=[0.05, 0.1, 0.2, 1.0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--heads", nargs="+", default=["linear", "proto"])
    parser.add_argument(
        "--head-options", type=json.loads, default={}, help='JSON by head, e.g. {"proto": {"count": 6}}'
    )
    parser.add_argument("--lrs", nargs="+", type=float, default=[1e-3, 3e-3, 1e-2])
    parser.add_argument("--steps", type=int, default=600, help="optimizer steps of a training, about")
    parser.add_argument("--set", nargs="*", default=[], help="options of the training, e.g. layer=12 max_length=1024")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "sparring-reward-models")
    parser.add_argument("--table", action="store_true", help="print what is in --out, train nothing")
    many = parser.add_argument_group("ensembles, with --ensembles")
    many.add_argument("--ensembles", action="store_true")
    many.add_argument(
        "--candidates", help="JSON lines of messages and answers; else each prompt's answers in the pairs"
    )
    many.add_argument("--members", type=int, default=5)
    many.add_argument("--flips", nargs="+", type=float, default=[0.0, 0.25], help="shares of labels turned round")
    many.add_argument("--ns", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32, 64])
    many.add_argument("--gold-head", default="mlp")
    many.add_argument("--labels", choices=["gold", "data"], default="gold", help="who labels the proxies' pairs")
    return parser.parse_args()


def main() -> None:
    given = parse()
    lines = Lines(given.out)
    if not given.table:
        changed = {key: json.loads(value) for key, value in (item.split("=", 1) for item in given.set)}
        given.cache.mkdir(parents=True, exist_ok=True)
        frozen = Frozen(given.model, given.cache, ON_POOLED | changed)
        if not lines.has(machine=True):
            lines.add({"machine": True}, {"hardware": describe(ROOT)})
        (ensembles if given.ensembles else heads)(frozen, given, lines)
    if not given.ensembles:
        print(table(lines))


if __name__ == "__main__":
    main()
