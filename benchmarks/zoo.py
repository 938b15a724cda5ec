"""Every architecture of the tests' zoo: how it is computed, whether that is right, and two rounds through real vLLM.

python benchmarks/zoo.py [NAME ...]   measures what results/zoo.jsonl does not have (half a minute each on 2 cores)
python benchmarks/zoo.py --page       writes the table of docs/models.md
"""

import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "zoo.jsonl"
PAGE = ROOT / "docs" / "models.md"
BEGIN, END = "<!-- zoo -->", "<!-- end of zoo -->"
SECONDS = 400.0  # per architecture; the engine's start in a process of its own takes up to a minute


def forward(folder: Path) -> dict[str, Any]:
    """How the model is computed, and how far log-probs are from its own forward, one completion at a time."""
    import torch
    from transformers import AutoModelForCausalLM

    from sparring.loop.learning.batches import Row
    from sparring.loop.learning.checkpoint import load_model
    from sparring.loop.learning.forward_choice import batch_for, forward_of
    from sparring.loop.learning.logprobs import token_logprobs

    draw = torch.Generator().manual_seed(0)
    ids = [torch.randint(0, 256, (n,), generator=draw).tolist() for n in (30, 40, 20, 40)]
    prompt, chosen, rejected, another = ids
    model = load_model(folder, torch.device("cpu"))
    own = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        found, changed = (
            token_logprobs(model, batch_for(model, [Row(prompt, (one, rejected))])) for one in (chosen, another)
        )
        wanted = torch.cat(
            [
                own(input_ids=torch.tensor([[*prompt, *tokens]]))
                .logits[0, len(prompt) - 1 : -1]
                .log_softmax(-1)
                .gather(1, torch.tensor(tokens)[:, None])[:, 0]
                for tokens in (chosen, rejected)
            ]
        )
    return {
        "architecture": type(model).__name__,
        **asdict(forward_of(model)),
        "apart": float((found - wanted).abs().max()),
        "leak": float((found - changed)[len(chosen) :].abs().max()),
    }


def letters(prompt: Any, completion: Any) -> float:
    return float(sum(map(str.isalpha, completion.text)))


def play(folder: Path, work: Path) -> dict[str, Any]:
    """Two rounds through vLLM, with a judge that likes letters."""
    import sparring

    rows = [{"prompt": f"say {word}"} for word in ("one", "two", "three", "four", "five", "six", "seven", "eight")]
    config = sparring.Config(
        name="zoo",
        store=str(work / "zoo.duckdb"),
        rounds=2,
        policy={"model": str(folder)},
        prompts={"train": rows[:5], "eval": rows[5:]},
        sample={"n": 4, "max_tokens": 24, "context": 256, "max_seqs": 32},
        judge={"kind": letters},
        learn={"lr": 1e-4, "batch_size": 2, "warmup": 0.0},
        evaluate={"gate": None, "n": 2},
    )
    began = time.monotonic()
    result = sparring.run(config, quiet=True)
    (kept,) = result.sql("SELECT engine FROM run_models").rows()
    return {"rounds": result.rounds, "seconds": round(time.monotonic() - began, 1), "engine": kept["engine"]}


def measure(name: str) -> None:
    """Prints one line of JSON. Runs in a process of its own, which an engine may take down."""
    from tests.helpers import zoo

    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    with tempfile.TemporaryDirectory() as work:
        folder = zoo.make(Path(work) / name, name)
        facts = forward(folder)
        print(json.dumps({"name": name, **facts}), flush=True)
        print(json.dumps(play(folder, Path(work))), flush=True)


def measured(name: str) -> dict[str, Any]:
    """What `measure` printed; `error` is the last line of what went wrong."""
    child = subprocess.Popen(
        [sys.executable, __file__, "--measure", name],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        out, err = child.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        out, err = child.communicate()
        err += f"\nno end within {SECONDS:g} s"
    facts: dict[str, Any] = {"name": name}
    for line in (line for line in out.splitlines() if line.startswith("{")):
        facts |= json.loads(line)
    said = [line for line in err.strip().splitlines() if line.strip()]
    restarted = any("starting a new engine" in line for line in said)
    facts["loads"] = "new engine" if restarted else "reload"
    if child.returncode:
        facts["error"] = said[-1][:300] if said else f"exit {child.returncode}"
    return facts


def known() -> dict[str, dict[str, Any]]:
    if not RESULTS.exists():
        return {}
    lines = map(json.loads, RESULTS.read_text(encoding="utf-8").splitlines())
    return {line["name"]: line for line in lines}


def row(facts: Mapping[str, Any]) -> str:
    played = f"2 rounds, {facts['engine']}, {facts['loads']}" if facts.get("rounds") == 2 else "no: " + why(facts)
    values = facts["name"], facts["attention"], facts["layout"], f"{facts['apart']:.0e}", f"{facts['leak']:g}", played
    return "| " + " | ".join(values) + " |"


def why(facts: Mapping[str, Any]) -> str:
    return str(facts.get("error", "not tried")).replace("|", "&#124;")[:160]


def table() -> str:
    lines = [
        "| model type | attention | completions | off by (nats) | leak | two rounds through vLLM on a CPU |",
        "|---|---|---|---|---|---|",
        *(row(facts) for _, facts in sorted(known().items())),
    ]
    return "\n".join(lines)


def write_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}", encoding="utf-8")


def main(arguments: list[str]) -> None:
    from tests.helpers import zoo

    if arguments[:1] == ["--measure"]:
        measure(arguments[1])
        return
    if arguments[:1] == ["--page"]:
        write_page()
        return
    have = known()
    for name in arguments or [name for name in zoo.ARCHITECTURES if name not in have]:
        have[name] = measured(name)
        print(json.dumps(have[name]), flush=True)
        RESULTS.write_text("".join(json.dumps(facts) + "\n" for facts in have.values()), encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(sys.argv[1:])
