"""make bench: how fast are sampler and learner beside their peers, and what does the loop itself cost?

    python benchmarks/loop.py [--json FILE] [--prompts 32] [--pairs 24]

One run on this machine prints
1. sampler tokens/s against bare vLLM: the same engine, prompts and sampling settings, taking turns;
2. the share of a round (through Prefect) that is neither sampling, judging, learning nor evaluating;
3. learner pairs/s against TRL's DPOTrainer on the same pairs, with the losses of both (benchmarks/learner.py).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.hardware import describe  # noqa: E402
from sparring.flows.compose.build import Loop, build, prepare  # noqa: E402
from sparring.flows.config import Config, read_config  # noqa: E402
from sparring.loop.types import Record  # noqa: E402


class Clock:
    """Seconds spent inside the parts, by what they do."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def on_chunk(self, step: str, total: int, chunks: Iterator[Sequence[Record]]) -> Iterator[Sequence[Record]]:
        while True:
            began = time.perf_counter()
            chunk = next(chunks, None)
            self.seconds[step] += time.perf_counter() - began
            if chunk is None:
                return
            yield chunk


class Timed:
    """A part whose named method is timed."""

    def __init__(self, part: Any, method: str, clock: Clock) -> None:
        self._part, self._method, self._clock = part, method, clock

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        if name != self._method:
            return found

        def timed(*args: Any) -> Any:
            began = time.perf_counter()
            result = found(*args)
            self._clock.seconds[self._method] += time.perf_counter() - began
            return result

        return timed


def config(folder: Path, prompts: int) -> Config:
    overrides = [f"store={folder / 'store.duckdb'}", f"prompts.per_round={prompts}", "rounds=1", "evaluate.n=1"]
    return read_config(ROOT / "examples/quickstart/config.yaml", overrides)


def sampler_speed(loop: Loop, prompts: int, turns: int = 2) -> dict[str, float]:
    """Tokens a second of `sample` and of vLLM's own `generate`, one after the other, several times."""
    from vllm import SamplingParams

    from sparring.loop.round import following
    from sparring.loop.tokens import Template

    rnd = following(loop.start, loop.start.policy, loop.parts)
    wanted = loop.parts.store.unsampled(rnd)[:prompts]
    sampler: Any = loop.parts.sampler
    llm, settings = sampler.engine._llm, sampler.sampling
    ids = [{"prompt_token_ids": Template.of(rnd.policy.path).prompt_ids(p.messages)} for p in wanted]
    plain = SamplingParams(n=settings.n["train"], temperature=1.0, max_tokens=settings.max_tokens, logprobs=0)
    seconds, tokens = defaultdict(float), defaultdict(int)
    for _ in range(turns):
        began = time.perf_counter()
        for chunk in sampler.sample(rnd, wanted):
            tokens["ours"] += sum(len(c.token_ids) for c in chunk)
        seconds["ours"] += time.perf_counter() - began
        llm.reset_prefix_cache()
        began = time.perf_counter()
        outputs = llm.generate(ids, plain, use_tqdm=False)
        seconds["bare"] += time.perf_counter() - began
        tokens["bare"] += sum(len(o.token_ids) for output in outputs for o in output.outputs)
    ours, bare = (tokens[k] / seconds[k] for k in ("ours", "bare"))
    return {"sampler_tokens_per_s": ours, "bare_vllm_tokens_per_s": bare, "sampler_ratio": ours / bare}


def round_shares(loop: Loop, clock: Clock) -> dict[str, float]:
    """Play one round as the Prefect flow and say where its seconds went."""
    from sparring.flows.run.self_play import self_play_flow

    parts = replace(
        loop.parts,
        learner=Timed(loop.parts.learner, "learn", clock),
        evaluator=Timed(loop.parts.evaluator, "evaluate", clock),
    )
    measured = replace(loop, parts=parts, close=lambda: None)
    began = time.perf_counter()
    self_play_flow(lambda _: measured)(loop.config)
    total = time.perf_counter() - began
    shares = {f"share_{name}": seconds / total for name, seconds in clock.seconds.items()}
    return {"round_seconds": total, **shares, "share_rest": 1 - sum(clock.seconds.values()) / total}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures: dict[str, Any] = describe(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        figures |= measure(Path(folder), options.prompts)
        learner = Path(folder) / "learner.json"
        command = [sys.executable, str(ROOT / "benchmarks/learner.py"), "--pairs", str(options.pairs)]
        subprocess.run([*command, "--model", "bundled/smollm2-135m-instruct", "--json", str(learner)], check=True)
        figures["learner"] = json.loads(learner.read_text())
    print(json.dumps(figures, indent=2))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def measure(folder: Path, prompts: int) -> dict[str, float]:
    import os

    from sparring.flows.run.prefect_server import QUIET, api_server

    os.environ.update(QUIET | os.environ)
    with api_server() as wait:
        clock = Clock()
        loop = build(prepare(config(folder, prompts)), on_chunk=clock.on_chunk)
        loop.warm()
        wait()
        found = sampler_speed(loop, prompts)
        print(found, flush=True)
        found |= round_shares(loop, clock)
        print(found, flush=True)
        loop.close()
    return found


if __name__ == "__main__":
    main()
