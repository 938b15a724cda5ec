"""A small sweep of a tiny model: its config, its prompts and its file."""

import json
from contextlib import chdir
from pathlib import Path

from sparring.sweeps.plan import Plan, plan_sweep

CONFIG = """\
name: tiny
rounds: 1
policy: {model: ./model}
prompts: {train: train.jsonl, eval: eval.jsonl}
sample: {n: 4, max_tokens: 6, context: 128, dtype: float32, engine: transformers}
learn: {lr: 1.0e-3, batch_size: 2, dtype: float32}
evaluate: {n: 1, gate: null, judge: {kind: rules}}
"""
SWEEP = """\
first:
  sft:
    sample.n: 0
    sample.extra: [{of: dataset}]
    pair: {kind: dataset}
    learn.loss: sft
    learn.reference: none
grid:
  start:
    copied: {policy.model: ./copied}
    sft: {policy.model: run:sft}
  loss:
    dpo: {learn.loss: sigmoid}
    kto: {learn.loss: kto_unpaired, pair: {kind: threshold, at: 1.0}}
"""
NAMES = ["sft", "tiny-copied-dpo", "tiny-copied-kto", "tiny-sft-dpo", "tiny-sft-kto"]


def write(folder: Path, sweep: str = SWEEP, config: str = CONFIG) -> Path:
    """A config, prompts and a sweep; returns the sweep's file."""
    for split, count in (("train", 3), ("eval", 2)):
        lines = [
            {"prompt": f"{split} {i}", "regex": "[a-m]", "max_words": 1, "response": f"ok {i}"} for i in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "loop.yaml").write_text(config)
    (folder / "sweep.yaml").write_text(sweep)
    return folder / "sweep.yaml"


def planned(folder: Path, sweep: str = SWEEP, config: str = CONFIG) -> Plan:
    file = write(folder, sweep, config)
    with chdir(folder):
        return plan_sweep(folder / "loop.yaml", file)
