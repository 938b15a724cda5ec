"""The trainer's side of the probe: its log-probs of a few fixed texts, and what bfloat16 does to them.

It is taken when the weights are in memory anyway. It is kept beside learned weights; that of a model from outside is
kept in the run's folder.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sparring.loop.disk import writing
from sparring.loop.hardware import device
from sparring.loop.learning.batches import Row
from sparring.loop.learning.checkpoint import load_model, pretrained, weight_files
from sparring.loop.learning.forward_choice import batch_for
from sparring.loop.learning.logprobs import token_logprobs
from sparring.loop.learning.probe_texts import probe_rows
from sparring.loop.sampling.folder_facts import positions
from sparring.loop.tokens import Template

FILE = "probe.json"
PROBES = "probes"  # below a run's folder
FORMAT = 2
WINDOW = 1024  # tokens at most of a local window that a text reaches beyond
WORK = {"cpu": 1e12, "cuda": 3e14}  # floating-point operations for that text: about a second
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
LOCAL = ("sliding_window", "attention_window_size", "window_size", "attention_chunk_size")


@dataclass(frozen=True)
class Probe:
    """What an engine that holds these weights must agree with.

    `logprobs` are the trainer's, in float32, of each token of each completion, in nats. `rounding` is what bfloat16
    costs this model: the mean absolute change of these log-probs when weights and computation are in bfloat16; None if
    it was not measured. `routed`: the model chooses among experts, so that the least rounding may change a choice, and
    with it the log-probs of a few tokens by far more.
    """

    weights: str  # hash
    rows: tuple[Row, ...]
    logprobs: tuple[float, ...]
    rounding: float | None = None
    routed: bool = False

    def write(self, path: Path) -> None:
        rows = [[list(row.prompt), *map(list, row.completions)] for row in self.rows]
        kept = {"format": FORMAT, "weights": self.weights, "rounding": self.rounding, "routed": self.routed}
        partial = path.with_name(path.name + ".partial")
        with writing(partial):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(kept | {"rows": rows, "logprobs": self.logprobs}))
            partial.replace(path)

    @classmethod
    def read(cls, path: Path, weights: str) -> "Probe | None":
        """The probe in a file; None if there is none for these weights in today's format."""
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        if not isinstance(kept, dict) or kept.get("format") != FORMAT or kept["weights"] != weights:
            return None
        rows = tuple(Row(prompt, tuple(completions)) for prompt, *completions in kept["rows"])
        return cls(weights, rows, tuple(kept["logprobs"]), kept["rounding"], kept["routed"])


def take_probe(model: Any, folder: Path, weights: str, *, rounding: bool = False) -> Probe:
    """The probe of a loaded model and the tokenizer in `folder`; with `rounding`, that is loaded in bfloat16 too."""
    rows = _rows(model, folder)
    logprobs = _logprobs(model, rows)
    cost = _rounding(folder, rows, logprobs) if rounding else None
    text = model.config.get_text_config()
    routed = any((getattr(text, name, None) or 0) > 1 for name in EXPERTS)
    return Probe(weights, tuple(rows), tuple(logprobs), cost, routed)


def load_probe(folder: Path, weights: str) -> Probe:
    """As `take_probe` with rounding, of a model that is loaded for it and dropped again."""
    probe = take_probe(load_model(folder, device()), folder, weights, rounding=True)
    if device().type == "cuda":
        torch.cuda.empty_cache()  # torch would keep the memory that the engine needs
    return probe


def probe_file(folder: Path, weights: str) -> Path:
    """Where a run keeps the probe of a model from outside: `folder` is the run's own for probes."""
    return folder / f"{weights[:16]}.json"


def write_probe(model: Any, folder: Path, weights: str) -> None:
    """Save the probe beside new weights, so that probing them needs no second copy in memory."""
    take_probe(model, folder, weights).write(folder / FILE)


def probe_logprobs(model: Any, folder: Path) -> list[float]:
    """log P of each completion token of the probe's texts, in nats, with the tokenizer in `folder`."""
    return _logprobs(model, _rows(model, folder))


def equal_weights(one: Path, other: Path, dtype: str) -> bool:
    """Whether two model folders hold the same weights after rounding to `dtype`."""
    a, b = _tensors(one), _tensors(other)
    rounded = getattr(torch, dtype)
    return a.keys() == b.keys() and all(
        torch.equal(a[name].get_tensor(name).to(rounded), b[name].get_tensor(name).to(rounded)) for name in a
    )


def _tensors(folder: Path) -> dict[str, Any]:
    """An open file for each weight's name."""
    from safetensors import safe_open

    files: list[Any] = [safe_open(path, framework="pt") for path in weight_files(folder)]
    return {name: file for file in files for name in file.keys()}  # noqa: SIM118 (no dict)


def _rows(model: Any, folder: Path) -> list[Row]:
    template, text = Template.of(str(folder)), model.config.get_text_config()
    return probe_rows(template.tokenizer, sorted(template.end_ids), positions(str(folder)), _window(model, text))


def _window(model: Any, text: Any) -> int | None:
    """The longest local window of the model that a text can reach beyond in about a second."""
    if getattr(text, "use_sliding_window", True) is False:
        return None
    three = 6 * sum(p.numel() for p in model.parameters())  # operations per token: once by the trainer, twice by vLLM
    most = min(WINDOW, WORK[next(model.parameters()).device.type] / three)
    sizes = [size for name in LOCAL if isinstance(size := getattr(text, name, None), int) and 0 < size <= most]
    return max(sizes, default=None)


def _logprobs(model: Any, rows: Sequence[Row]) -> list[float]:
    with torch.no_grad():
        return [x for row in rows for x in token_logprobs(model, batch_for(model, [row])).tolist()]


def _rounding(folder: Path, rows: Sequence[Row], exact: Sequence[float]) -> float:
    from transformers import AutoModelForCausalLM

    model, _ = pretrained(AutoModelForCausalLM, folder, torch.bfloat16)
    rounded = _logprobs(model.to(device()), rows)
    return sum(abs(r - e) for r, e in zip(rounded, exact, strict=True)) / len(exact)
