"""Reward models against the longer answer and a bag of words, on labelled pairs of people: cross-validated by prompt.

Every pair is held out once: the prompts are dealt into K folds, each fold is judged by a model trained on the others.
The backbone is frozen, so its features are computed once and kept in CACHE; killed, the script goes on from them.

    python benchmarks/reward_models.py --pairs a.parquet b.parquet --out benchmarks/results/reward-models.json
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.bag_of_words import fit_words  # noqa: E402
from benchmarks.hardware import describe  # noqa: E402
from sparring.judges.bench import longer_by  # noqa: E402
from sparring.judges.measure import accuracy, length_controlled, outcomes, paired_difference  # noqa: E402
from sparring.judges.reward.encoding import Encoding  # noqa: E402
from sparring.judges.reward.folds import out_of_fold  # noqa: E402
from sparring.judges.reward.options import RewardTraining  # noqa: E402
from sparring.judges.reward.rows import encode_pairs  # noqa: E402
from sparring.loop.labelled_pairs import Preference, folds, read_preferences  # noqa: E402
from sparring.loop.models import resolve_model  # noqa: E402

OPTIONS = {"freeze": "backbone", "layer": 18, "pooling": "answer_mean", "epochs": 10, "weight_decay": 0.1}


def words_out_of_fold(preferences: Sequence[Preference], fold: Sequence[int], seed: int) -> np.ndarray:
    found = np.zeros(len(preferences))
    for k in range(max(fold) + 1):
        learned = [p for p, f in zip(preferences, fold, strict=True) if f != k]
        asked = [i for i, f in enumerate(fold) if f == k]
        found[asked] = fit_words(learned, seed=seed).predict([preferences[i] for i in asked]) - 0.5
    return found


def compare(path: str, model: str, k: int, seed: int, cache: Path, options: RewardTraining) -> dict[str, Any]:
    preferences = read_preferences(path)
    fold, p_a = folds(preferences, k, seed), np.array([p.p_a for p in preferences])
    prompts = [p.prompt for p in preferences]
    folder = resolve_model(model)
    longer = np.array(longer_by(preferences))
    delta = {
        "reward_model": out_of_fold(folder, preferences, options, k, cache, cache=cache / "features").mean(0),
        "longer_wins": longer,
        "bag_of_words": words_out_of_fold(preferences, fold, seed),
    }
    right = {name: outcomes(values, p_a) for name, values in delta.items()}
    dropped = encode_pairs(Encoding(folder), preferences).dropped
    return {
        "pairs": len(preferences),
        "prompts": len(set(prompts)),
        "dropped": dict(dropped),
        "accuracy": {name: _plain(accuracy(values, p_a, prompts).share) for name, values in delta.items()},
        "length_controlled": {n: _plain(length_controlled(v, p_a, longer, prompts)) for n, v in delta.items()},
        "lead": {
            name: _plain(paired_difference(right["reward_model"], right[name], prompts, seed=seed))
            for name in ("longer_wins", "bag_of_words")
        },
    }


def _plain(estimate: Any) -> Any:
    return estimate and {key: round(value, 4) for key, value in asdict(estimate).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", required=True, help="files of labelled pairs")
    parser.add_argument("--model", default="bundled/smollm2-135m-instruct")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], help="options of the training, e.g. layer=12")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "sparring-reward-models")
    parser.add_argument("--out", type=Path, help="JSON; printed when not given")
    given = parser.parse_args()
    changed = {key: json.loads(value) for key, value in (item.split("=", 1) for item in given.set)}
    asked: dict[str, Any] = OPTIONS | changed
    report: dict[str, Any] = {"machine": describe(ROOT), "model": given.model, "options": asked, "folds": given.folds}
    for path in given.pairs:
        options = RewardTraining(**asked, seed=given.seed)
        report[Path(path).stem] = found = compare(path, given.model, given.folds, given.seed, given.cache, options)
        print(Path(path).stem, json.dumps(found), file=sys.stderr, flush=True)
    text = json.dumps(report, indent=2)
    print(text) if given.out is None else given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
