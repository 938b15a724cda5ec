"""The prober of a run: what trainer and engine said to the probe's texts, kept in the run's folder, and the check.

How far engine and trainer may differ follows from the model. At its first load that is twice what bfloat16 was seen to
cost it in the trainer, as far as the engine's arithmetic rounds alike; after that, twice the difference that was seen.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import torch

from sparring.loop.hardware import device
from sparring.loop.learning.probing import FILE, Probe, load_probe, probe_file
from sparring.loop.sampling.probe import Load, ask, check
from sparring.loop.sampling.requests import SamplingEngine
from sparring.loop.types import Checkpoint

TIMES = 2.0  # how much larger a difference may be than what is expected
# What an engine's arithmetic rounds beside bfloat16 (docs/loop.md). On a GPU float32 may be multiplied as TF32.
ROUNDING = {("bfloat16", "cpu"): 1.0, ("bfloat16", "cuda"): 1.0, ("float32", "cpu"): 2**-11, ("float32", "cuda"): 2**-3}
ROUTED = 2**-3  # the least part where a router may choose another expert
LAST_DIGIT = 1e-6  # nats: of the log-prob of an unlikely token in float32


class Prober:
    """`folder` keeps the probes of models from outside, by the hash of their weights, and all loads that passed."""

    def __init__(self, engine: SamplingEngine, folder: Path | None) -> None:
        self.engine, self.folder = engine, folder
        self._probes: dict[str, Probe] = {}  # by the hash of the weights
        self._loads = Loads(None if folder is None else folder / "loads.jsonl", _name(engine))

    def prepare(self, checkpoints: Iterable[Checkpoint]) -> None:
        """Have the trainer's side of these checkpoints, before the engine takes up the memory that a model needs."""
        for checkpoint in checkpoints:
            self._probe(checkpoint)

    def check(self, checkpoint: Checkpoint, *, own: bool = True) -> float:
        """The level of the weights just loaded. Raises ProbeError if the engine does not hold them."""
        probe = self._probe(checkpoint)
        load = ask(self.engine, checkpoint, probe, self._limit(probe), own=own)
        check(load, self._loads.passed, self.engine.dtype)
        self._loads.add(load)
        return load.level

    def _limit(self, probe: Probe) -> float:
        seen = self._loads.of(probe.weights)
        if seen is None and probe.rounding is not None:
            part = max(ROUNDING[self.engine.dtype, device().type], ROUTED if probe.routed else 0)
            return max(LAST_DIGIT, TIMES * probe.rounding * part)
        seen = seen or self._loads.own()
        assert seen is not None, "a probe without rounding follows a load"
        return max(seen.limit if probe.routed else LAST_DIGIT, TIMES * seen.level)

    def _probe(self, checkpoint: Checkpoint) -> Probe:
        """As saved beside learned weights or in the run's folder; else taken now. It has the rounding if needed."""
        weights = checkpoint.weights_sha256
        if weights not in self._probes:
            self._probes[weights] = self._saved(checkpoint) or self._taken(checkpoint)
        return self._probes[weights]

    def _saved(self, checkpoint: Checkpoint) -> Probe | None:
        kept = self._file(checkpoint.weights_sha256)
        for path in [Path(checkpoint.path) / FILE, *([kept] if kept else [])]:
            probe = Probe.read(path, checkpoint.weights_sha256)
            learned = checkpoint.parent_id is not None and self._loads.own() is not None
            if probe and (learned or probe.rounding is not None):
                return probe
        return None

    def _taken(self, checkpoint: Checkpoint) -> Probe:
        probe = load_probe(Path(checkpoint.path), checkpoint.weights_sha256)
        if file := self._file(checkpoint.weights_sha256):
            probe.write(file)
        return probe

    def _file(self, weights: str) -> Path | None:
        return None if self.folder is None else probe_file(self.folder, weights)


class Loads:
    """The loads that passed with this kind of engine, the latest last; `file` has a line each."""

    def __init__(self, file: Path | None, engine: str) -> None:
        self.file, self.engine = file, engine
        self.passed: list[Load] = []
        for line in file.read_text().splitlines() if file and file.exists() else []:
            self._read(line)

    def add(self, load: Load) -> None:
        others = [each for each in self.passed if (each.weights, each.engine) != (load.weights, load.engine)]
        known = len(others) < len(self.passed)
        self.passed = [*others, load]
        if self.file and not known:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a") as file:
                file.write("\n" + json.dumps({"by": self.engine} | asdict(load)))  # after a line that was cut off, too

    def of(self, weights: str) -> Load | None:
        """The last load of these weights."""
        return next((each for each in reversed(self.passed) if each.weights == weights), None)

    def own(self) -> Load | None:
        """The last load of the run's own weights."""
        return next((each for each in reversed(self.passed) if each.own), None)

    def _read(self, line: str) -> None:
        try:
            kept = json.loads(line)
        except json.JSONDecodeError:  # empty, or written by a process that died in it
            return
        if kept.pop("by") == self.engine:
            vectors = {"engine": tuple(kept["engine"]), "trainer": tuple(kept["trainer"])}
            self.passed.append(Load(**kept | vectors))


def _name(engine: SamplingEngine) -> str:
    """What rounds alike."""
    where = torch.cuda.get_device_name() if device().type == "cuda" else "cpu"
    return f"{engine.dtype} on {where}"
