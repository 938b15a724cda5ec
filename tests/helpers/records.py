"""Records made by hand, and a store with a whole run of two rounds in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparring.loop.types import (
    Checkpoint,
    Completion,
    Divergence,
    Evaluation,
    Judgement,
    LogProb,
    Outcome,
    Pair,
    Prompt,
    PromptOutcome,
    Record,
    Round,
    RunInfo,
    Split,
    Update,
    UpdateStep,
)
from sparring.store.parts import parts_folder
from sparring.store.store import DuckStore

RUN = "hand-00000000"
JUDGE = "rules"


def prompt(text: str, split: Split = "train", **meta: Any) -> Prompt:
    return Prompt.make([{"role": "user", "content": text}], split, "by hand", meta)


def checkpoint(name: str, parent: Checkpoint | None = None, run: str = RUN) -> Checkpoint:
    return Checkpoint(f"checkpoint_{name}", run, f"/nowhere/{name}", parent.id if parent else None, f"sha-{name}")


def round_of(index: int, policy: Checkpoint, initial: Checkpoint, prompts: Sequence[Prompt], **changes: Any) -> Round:
    roles = {"opponent": initial, "reference": policy, **changes}
    return Round(policy.run, index, policy, initial=initial, prompt_ids=tuple(p.id for p in prompts), **roles)


def completion(rnd: Round, of: Prompt, sample: int = 0, **changes: Any) -> Completion:
    """By default "yes", three tokens, log-probabilities that float32 holds exactly."""
    id = f"completion_{rnd.policy.id}_{rnd.index}_{of.id}_{sample}"
    fields: dict[str, Any] = {"text": "yes", "token_ids": (5, 6, 7), "logprobs": (-0.5, -0.25, -0.125)}
    sampled: dict[str, Any] = {"finish_reason": "stop", "temperature": 1.0, "top_p": 1.0, "seed": 1}
    return Completion(id, rnd.run, rnd.index, of.id, rnd.policy.id, sample, "policy", **(fields | sampled | changes))


def judgement(of: Completion, value: float | None, judge: str = JUDGE) -> Judgement:
    return Judgement(f"judgement_{judge}_{of.id}", judge, of.id, None, "", "", 0, value, "" if value == 1 else "why")


def pair(rnd: Round, chosen: Completion, rejected: Completion, margin: float = 1.0) -> Pair:
    id = f"pair_{chosen.id}_{rejected.id}"
    return Pair(id, rnd.run, rnd.index, chosen.prompt_id, chosen.id, rejected.id, 1.0, margin, 1.0, "best_worst")


def outcome(rnd: Round, of: Prompt, what: Outcome) -> PromptOutcome:
    return PromptOutcome(f"outcome_{rnd.index}_{of.id}", rnd.run, rnd.index, of.id, what, f"because {what}")


def logprob(under: Checkpoint, of: Completion, value: float) -> LogProb:
    n = len(of.token_ids)
    return LogProb(f"logprob_{under.id}_{of.id}", of.id, under.weights_sha256, value, n, [value / n] * n)


def update(rnd: Round, after: Checkpoint, n: int, **metrics: float) -> Update:
    return Update(f"update_{rnd.index}", rnd.run, rnd.index, "dpo", rnd.policy.id, after.id, n, 1.5, metrics)


def evaluations(rnd: Round, of: Checkpoint, metrics: Mapping[str, float]) -> list[Evaluation]:
    """One of each metric on two answers; shares have an interval of 0.1 to each side."""
    return [
        Evaluation(
            f"evaluation_{rnd.index}_{name}", rnd.run, rnd.index, of.id, rnd.initial.id, name, value,
            value - 0.1 if name.endswith("_rate") else None, value + 0.1 if name.endswith("_rate") else None, 2,
        )
        for name, value in metrics.items()
    ]  # fmt: skip


@dataclass(frozen=True)
class Filled:
    """A store with one complete run, and what a test needs to ask about it."""

    store: DuckStore
    info: RunInfo
    train: tuple[Prompt, ...]
    held_out: tuple[Prompt, ...]
    initial: Checkpoint
    first: Round
    second: Round
    learned: tuple[Checkpoint, Checkpoint]  # of round 1 (accepted) and round 2 (rejected)


TRAIN = (prompt("Name a bird.", max_words=3), prompt("Say yes.", choice=["yes"]), prompt("Count to two.", max_words=2))
HELD_OUT = (prompt("Name a fish.", "eval", max_words=3), prompt("Say no.", "eval", choice=["no"]))
INFO = RunInfo(RUN, "hand", 7, {"rounds": 2, "shape": {"seed": 7}, "folder": "."}, "sha-config", {"sparring": "0.1.0"})


def filled_store(
    path: Path, info: RunInfo = INFO, train: Sequence[Prompt] = TRAIN, held_out: Sequence[Prompt] = HELD_OUT
) -> Filled:
    """Three train prompts, two samples each, two rounds of one pair; round 1 is accepted, round 2 is rejected."""
    initial = checkpoint("initial", run=info.id)
    one, two = checkpoint("one", initial, info.id), checkpoint("two", initial, info.id)
    zeroth = round_of(0, initial, initial, ())
    first = round_of(1, initial, initial, train)
    second = round_of(2, one, initial, train)
    before = {"pass_rate": 0.5, "win_rate": 0.5, "mean_tokens": 3.0, "accepted": 1.0}
    better = {"pass_rate": 0.75, "win_rate": 0.625, "kl": 0.25, "mean_tokens": 3.0, "accepted": 1.0}
    worse = {"pass_rate": 0.25, "win_rate": 0.375, "kl": 0.5, "mean_tokens": 4.0, "accepted": 0.0}
    everything: list[Record] = [info, initial, *train, *held_out, *_measured(zeroth, initial, held_out, before)]
    everything += [*_first(first, one, train), *_measured(first, one, held_out, better)]
    everything += [*_second(second, two, train), *_measured(second, two, held_out, worse)]
    _add(path, everything)
    return Filled(DuckStore(path), info, tuple(train), tuple(held_out), initial, first, second, (one, two))


_made: dict[str, dict[Path, bytes]] = {}  # the files of a store by its rows: most tests ask for the same one


def _add(path: Path, records: list[Record]) -> None:
    """A new store of these rows, made once and then copied."""
    name, fresh = repr((path.stem, records)), not path.exists()
    if fresh and name in _made:
        for file, content in _made[name].items():
            (path.parent / file).parent.mkdir(parents=True, exist_ok=True)
            (path.parent / file).write_bytes(content)
        return
    DuckStore(path).add([records])
    if fresh:
        found = [path, *(part for part in parts_folder(path).rglob("*") if part.is_file())]
        _made[name] = {file.relative_to(path.parent): file.read_bytes() for file in found}


def _first(rnd: Round, after: Checkpoint, train: Sequence[Prompt]) -> list[Record]:
    """A pair; a tie; and one completion of the third prompt for which the judge had no answer."""
    texts = ("a robin", "no"), ("yes", "yes indeed"), ("one two", "one two three")
    values = (1.0, 0.0), (0.5, 0.5), (1.0, None)
    groups = [[completion(rnd, p, k, text=t[k]) for k in (0, 1)] for p, t in zip(train, texts, strict=True)]
    answers = [answer for group in groups for answer in group]
    good, bad = groups[0]
    return [
        rnd,
        *answers,
        *(judgement(a, v) for a, v in zip(answers, [v for both in values for v in both], strict=True)),
        pair(rnd, good, bad),
        *(outcome(rnd, train[0], "paired"), outcome(rnd, train[1], "tie"), outcome(rnd, train[2], "abstained")),
        *(logprob(rnd.reference, good, -0.875), logprob(rnd.reference, bad, -2.0)),
        after,
        update(rnd, after, 1, loss=0.625, accuracy=0.75),
        *(UpdateStep(f"step_1_{k}", "update_1", k, {"loss": 0.75 - k / 4}) for k in (0, 1)),
    ]


def _second(rnd: Round, after: Checkpoint, train: Sequence[Prompt]) -> list[Record]:
    """A pair; two equal texts; and a prompt that could not be sampled."""
    cut: dict[str, Any] = {"text": "a bird is a", "token_ids": (1, 2, 3, 4, 5), "logprobs": (-1.0,) * 5}
    good, bad = completion(rnd, train[0], 0, text="a wren"), completion(rnd, train[0], 1, finish_reason="length", **cut)
    same = [completion(rnd, train[1], k) for k in (0, 1)]
    return [
        rnd,
        *[good, bad, *same],
        *[judgement(good, 1.0), judgement(bad, 0.5), *(judgement(c, 1.0) for c in same)],
        pair(rnd, good, bad, 0.5),
        *[outcome(rnd, train[0], "paired"), outcome(rnd, train[1], "identical"), outcome(rnd, train[2], "failed")],
        *[logprob(rnd.reference, good, -1.0), logprob(rnd.reference, bad, -5.0)],
        after,
        update(rnd, after, 1, loss=0.5, accuracy=1.0),
        UpdateStep("step_2_0", "update_2", 0, {"loss": 0.5}),
    ]


def _measured(rnd: Round, of: Checkpoint, held_out: Sequence[Prompt], metrics: Mapping[str, float]) -> list[Record]:
    answering = round_of(rnd.index, of, rnd.initial, held_out)
    answers = [completion(answering, p) for p in held_out]
    hashes = of.weights_sha256, rnd.initial.weights_sha256
    scored = [Divergence.make(a.id, *hashes, 0.25, 3) for a in answers] if rnd.index else []
    return [*answers, *(judgement(a, 1.0) for a in answers), *scored, *evaluations(rnd, of, metrics)]
