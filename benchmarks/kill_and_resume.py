"""Kill a small real run (real vLLM, tiny model) at random moments, resume it, and compare with an undisturbed run.

    python benchmarks/kill_and_resume.py --kills 30 --folder /tmp/kills

Each trial is a fresh store: `spar run` is killed with SIGKILL at a random moment (also while it resumes, one time in
three), then `spar resume` finishes it. Rows (ids, texts, scores, pairs, log-probs, evaluations) and weights must be
those of the undisturbed run. Progress is kept in the folder: run it again to go on with the remaining trials.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

TABLES = {
    "completions": "*",
    "judgements": "*",
    "outcomes": "*",
    "pairs": "*",
    "examples": "*",
    "logprobs": "*",
    "evaluations": "*",
    "rounds": "*",
    "prompts": "*",
    "update_steps": "*",
    "updates": "* EXCLUDE (seconds)",
    "checkpoints": "* EXCLUDE (path)",
}
# By the learner's config; the policy gradient also has a critic and two optimizers to lose.
LEARN = {
    "dpo": "pair: {kind: best_worst}\n"
    "learn: {loss: sigmoid, lr: 1.0e-3, batch_size: 2, save_seconds: 0, dtype: float32}",
    "ppo": "pair: {kind: group}\n"
    "learn: {algorithm: ppo, lr: 1.0e-3, batch_size: 2, epochs: 2, save_seconds: 0, dtype: float32}",
}
CONFIG = """\
name: kills
rounds: 2
policy:   {{model: {model}}}
prompts:  {{train: {train}, eval: {eval}, per_round: 10}}
sample:   {{n: 4, max_tokens: 16, chunk: 4, context: 256, max_seqs: 16, dtype: float32, engine: {engine}}}
judge:    {{kind: rules, regex: "[a-m]", max_words: 4}}
{learn}
evaluate: {{n: 2, gate: 0.0}}
"""


def prepare(folder: Path, method: str = "dpo", engine: str = "vllm") -> Path:
    from tests.helpers.tiny import build_tiny_model

    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model"
    if not model.exists():
        build_tiny_model(model)
    for name, count in (("train", 16), ("eval", 6)):
        lines = [json.dumps({"prompt": f"{name} question {i}"}) for i in range(count)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    config = folder / "config.yaml"
    files = {split: folder / f"{split}.jsonl" for split in ("train", "eval")}
    config.write_text(CONFIG.format(model=model, **files, engine=engine, learn=LEARN[method]))
    return config


def start(*arguments: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "sparring.cli", *arguments, "--no-prefect"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(*arguments: str) -> float:
    began = time.monotonic()
    process = start(*arguments)
    _, errors = process.communicate(timeout=600)
    if process.returncode != 0:
        raise RuntimeError(f"spar {' '.join(arguments)} ended with {process.returncode}:\n{errors.decode()[-3000:]}")
    return time.monotonic() - began


def contents(store: Path) -> dict[str, list[dict[str, Any]]]:
    from sparring.store.db import Database, rows

    with Database(store).read() as con:
        return {t: rows(con, f"SELECT {columns} FROM {t} ORDER BY ALL") for t, columns in TABLES.items()}


def kill_after(seconds: float, *arguments: str) -> bool:
    """True when the process was still alive to be killed."""
    process = start(*arguments)
    try:
        process.communicate(timeout=seconds)
        return False
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return True


def trial(config: Path, folder: Path, seconds: float, again: float | None, wanted: dict[str, Any]) -> None:
    store = folder / "store.duckdb"
    arguments = ("run", str(config), "--store", str(store))
    killed = kill_after(seconds, *arguments)
    if killed and again is not None:
        kill_after(again, *arguments)
    finish(*arguments)  # the run command itself goes on; a store that the kill left empty has no run to resume
    found = contents(store)
    for table in TABLES:
        if found[table] != wanted[table]:
            raise AssertionError(f"{folder}: {table} differs from the undisturbed run after a kill at {seconds:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--folder", type=Path, default=Path("kills"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--method", choices=list(LEARN), default="dpo")
    parser.add_argument("--engine", choices=("vllm", "transformers"), default="vllm")
    options = parser.parse_args()
    folder = options.folder.resolve()
    config = prepare(folder, options.method, options.engine)
    whole = folder / "whole" / "store.duckdb"
    seconds = finish("run", str(config), "--store", str(whole))
    wanted = contents(whole)
    print(f"undisturbed: {seconds:.1f} s, " + ", ".join(f"{len(rows)} {t}" for t, rows in wanted.items()), flush=True)
    draw = random.Random(options.seed)
    for k in range(options.kills):
        at = draw.uniform(0, seconds)
        again = draw.uniform(0, seconds) if draw.random() < 1 / 3 else None
        place = folder / f"kill-{k:03d}"
        if not (place / "same").exists():
            trial(config, place, at, again, wanted)
            (place / "same").touch()
        print(
            f"kill {k + 1}/{options.kills} at {at:.2f} s{f', again at {again:.2f} s' if again else ''}: same",
            flush=True,
        )


if __name__ == "__main__":
    main()
