"""Learner pairs/s beside TRL's DPOTrainer: the same pairs, model, optimizer and machine, in one run.

    python benchmarks/learner.py [--model FOLDER] [--pairs 24] [--dtype bfloat16] [--json FILE]
    python benchmarks/learner.py --store sparring.duckdb --run NAME      # the pairs of that run's last round

Both take the same batches of 8 pairs in the same order, so their losses can be compared step by step. Ours is timed
with its pass over the reference, because TRL computes reference log-probs inside its step. The first step warms up and
is left out of both; so are loading and saving. Order and batches are the learner's own plan, which puts pairs of like
length together: TRL, which shuffles, has less padding here than it would have by itself.
"""

import argparse
import gc
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.hardware import describe  # noqa: E402
from benchmarks.pairs import from_store, generated  # noqa: E402
from sparring.loop.hardware import default_token_budget, device  # noqa: E402
from sparring.loop.learning.batches import plan  # noqa: E402
from sparring.loop.learning.checkpoint import load_model, weights_sha256  # noqa: E402
from sparring.loop.learning.learner import TorchLearner  # noqa: E402
from sparring.loop.learning.losses import bind  # noqa: E402
from sparring.loop.learning.options import Optimization  # noqa: E402
from sparring.loop.learning.preference_method import Preference  # noqa: E402
from sparring.loop.learning.preference_terms import Terms  # noqa: E402
from sparring.loop.models import BUNDLED, resolve_model  # noqa: E402
from sparring.loop.tokens import Template  # noqa: E402
from sparring.loop.types import Checkpoint, Round  # noqa: E402

BATCH, LR, BETA, SEED, BUDGET = 8, 1e-6, 0.1, 0, default_token_budget()
STEPS = Optimization(lr=LR, batch_size=BATCH, warmup=0.0, schedule="constant", token_budget=BUDGET, save_seconds=1e9)


@dataclass(frozen=True)
class Turn:
    seconds: float  # of all steps but the first
    losses: list[float]  # one a step


def ours(folder: Path, pairs: pa.Table, dtype: str) -> Turn:
    policy = Checkpoint("policy", "benchmark", str(folder), None, weights_sha256(folder))
    steps: list[float] = []
    with tempfile.TemporaryDirectory() as out:
        learner = TorchLearner(
            Path(out),
            Preference(Terms(bind("sigmoid", beta=BETA), beta=BETA)),
            STEPS,
            seed=SEED,
            dtype=dtype,
            progress=lambda done, total, loss: steps.append(time.perf_counter()),
        )
        list(learner.score(policy, pairs.slice(0, 1)))  # loads the model, and is not timed
        began = time.perf_counter()
        told = {found.completion_id: list(found.token_logprobs) for c in learner.score(policy, pairs) for found in c}
        scoring = time.perf_counter() - began
        column = [[[told[i] for i in ids]] for ids in pairs["completion_ids"].to_pylist()]
        pairs = pairs.set_column(pairs.column_names.index("reference"), "reference", pa.array(column))
        rnd = Round("benchmark", 1, policy, policy, policy, policy, ())
        _, _, history = learner.learn(rnd, pairs)
    timed = (len(steps) - 1) / len(steps)  # the first step warms up, and so do its pairs under the reference
    return Turn(timed * scoring + steps[-1] - steps[0], [step.metrics["loss"] for step in history])


def theirs(folder: Path, pairs: pa.Table, dtype: str) -> Turn:
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    class Tokenised(DPOTrainer):
        """DPOTrainer on the token ids that were sampled, in place of texts that it would tokenise again."""

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    class Clock(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.steps: list[float] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.steps.append(time.perf_counter())

    template, clock = Template(str(folder)), Clock()
    rows = [
        {"prompt_ids": template.prompt_ids(row["messages"]), "chosen_ids": chosen, "rejected_ids": rejected}
        for row in pairs.to_pylist()
        for chosen, rejected in [row["token_ids"]]
    ]
    order = chain.from_iterable(chain.from_iterable(planned(folder, pairs)))
    with tempfile.TemporaryDirectory() as out:
        trainer = Tokenised(
            model=load_model(folder, device()),
            ref_model=load_model(folder, device()),
            args=DPOConfig(
                out,
                beta=BETA,
                learning_rate=LR,
                lr_scheduler_type="constant",
                per_device_train_batch_size=BATCH,
                num_train_epochs=1,
                train_sampling_strategy="sequential",
                bf16=dtype == "bfloat16",
                use_cpu=device().type == "cpu",
                gradient_checkpointing=False,
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list([rows[i] for i in order]),
            processing_class=template.tokenizer,
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return Turn(clock.steps[-1] - clock.steps[0], losses)


def planned(folder: Path, pairs: pa.Table) -> list[list[list[int]]]:
    """The batches that the learner will make."""
    template = Template.of(str(folder))
    prompts = (len(template.prompt_ids(text)) for text in pairs["messages"].to_pylist())
    lengths = [p + sum(map(len, sides)) for p, sides in zip(prompts, pairs["token_ids"].to_pylist(), strict=True)]
    return plan(lengths, batch_size=BATCH, token_budget=BUDGET, seed=SEED)


def compare(folder: Path, pairs: pa.Table, dtype: str, repeats: int) -> dict[str, Any]:
    turns: dict[str, list[Turn]] = {"sparring": [], "trl": []}
    for _ in range(repeats):
        for name, take in (("sparring", ours), ("trl", theirs)):
            turns[name].append(take(folder, pairs, dtype))
            gc.collect()  # the models of the one before the other's
    timed = len(pairs) - BATCH
    figures: dict[str, Any] = {
        name: {
            "pairs_per_second": timed / median(turn.seconds for turn in taken),
            "seconds": [turn.seconds for turn in taken],
            "losses": taken[0].losses,
        }
        for name, taken in turns.items()
    }
    mine, other = figures["sparring"], figures["trl"]
    figures["ratio"] = mine["pairs_per_second"] / other["pairs_per_second"]
    apart = [abs(a - b) for a, b in zip(mine["losses"], other["losses"], strict=True)]
    return figures | {"first_losses_apart": apart[0], "losses_apart": max(apart)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=BUNDLED, help="a folder, a hub id or the bundled model")
    parser.add_argument("--pairs", type=int, default=24, help=f"a multiple of {BATCH}, at least {2 * BATCH}")
    parser.add_argument("--store", type=Path, help="take real pairs from this store")
    parser.add_argument("--run", help="of this run (default: the last)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--repeats", type=int, default=1, help="turns each; the median counts")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    if options.pairs % BATCH or options.pairs < 2 * BATCH:
        parser.error(f"--pairs {options.pairs}: wanted a multiple of {BATCH}, at least {2 * BATCH}")

    folder, n = resolve_model(options.model), options.pairs
    pairs = from_store(options.store, options.run, n) if options.store else generated(folder, n, SEED)
    if len(pairs) < 2 * BATCH:
        raise SystemExit(f"{len(pairs)} pairs to compare on, wanted at least {2 * BATCH}")
    pairs = pairs.slice(0, len(pairs) // BATCH * BATCH)  # whole batches only
    found = compare(folder, pairs, options.dtype, options.repeats)
    print(f"{'':10}{'pairs/s':>10}{'first loss':>14}{'last loss':>14}")
    for name in ("sparring", "trl"):
        losses = found[name]["losses"]
        print(f"{name:10}{found[name]['pairs_per_second']:10.3f}{losses[0]:14.6f}{losses[-1]:14.6f}")
    print(f"ratio {found['ratio']:.2f}; losses at most {found['losses_apart']:.1e} apart in {len(losses)} steps")
    settings = {"model": options.model, "pairs": len(pairs), "batch_size": BATCH, "lr": LR, "beta": BETA}
    source = "store" if options.store else "generated"
    figures = {"settings": settings | {"dtype": options.dtype, "source": source}} | found | describe(ROOT)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    # At the first step any two are at ln 2; bfloat16 rounds by different paths from there on.
    same = found["losses_apart" if options.dtype == "float32" else "first_losses_apart"] <= 1e-3
    if not same:
        print("the losses differ by more than 1e-3: these are not the same update", file=sys.stderr)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
