"""Many answers of one policy to the prompts of a pairs file, for best-of-n: JSON lines of messages and answers.

    python benchmarks/sample_answers.py --pairs pairs.parquet --prompts 48 --n 64 --out answers.jsonl

Goes on where it was killed: a prompt that is in OUT is not sampled again.
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sparring.loop.labelled_pairs import read_preferences  # noqa: E402
from sparring.loop.learning.checkpoint import weights_sha256  # noqa: E402
from sparring.loop.models import resolve_model  # noqa: E402
from sparring.loop.sampling.requests import Request  # noqa: E402
from sparring.loop.sampling.vllm_engine import Engine  # noqa: E402
from sparring.loop.tokens import Template  # noqa: E402
from sparring.loop.types import Checkpoint, derive_seed, digest  # noqa: E402

AT_ONCE = 4  # prompts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="bundled/smollm2-135m-instruct")
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--longest", type=int, default=400, help="leave out prompts of more tokens")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = resolve_model(given.model)
    template = Template.of(str(folder))
    prompts = {p.prompt: p.messages for p in read_preferences(given.pairs)}
    order = sorted(prompts, key=lambda key: digest([given.seed, key]))
    ids = {key: template.prompt_ids(prompts[key]) for key in order}
    wanted = [key for key in order if len(ids[key]) <= given.longest][: given.prompts]
    done = {json.loads(line)["prompt"] for line in given.out.read_text().splitlines()} if given.out.exists() else set()
    missing = [key for key in wanted if key not in done]
    engine = Engine(context=given.longest + given.max_tokens)
    engine.load(Checkpoint("initial", "answers", str(folder), None, weights_sha256(folder)))
    for i in range(0, len(missing), AT_ONCE):
        keys = missing[i : i + AT_ONCE]
        seeds = [derive_seed(given.seed, key) for key in keys]
        requests = [Request(ids[k], given.n, s, 1.0, 1.0, given.max_tokens) for k, s in zip(keys, seeds, strict=True)]
        with given.out.open("a") as file:
            for key, answers in zip(keys, engine.generate(requests), strict=True):
                row = {"prompt": key, "messages": prompts[key], "answers": [a.text for a in answers]}
                file.write(json.dumps(row) + "\n")
        print(f"{i + len(keys)}/{len(missing)} prompts", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
