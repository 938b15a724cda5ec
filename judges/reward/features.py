"""Features of a frozen backbone: each distinct conversation with its answer is computed once and kept on disk.

A cache is a folder of safetensors chunks, one folder per backbone, pooling, layer and precision. A row is named by its
token ids, so that any set of pairs reuses the rows of another, and a killed extraction resumes.
"""

import hashlib
import os
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from sparring.judges.reward.encoding import Encoded
from sparring.judges.reward.model import RewardModel
from sparring.loop.hardware import autocast, fast_dtype
from sparring.loop.types import digest

CHUNK = 64  # rows per file: a kill loses at most these
KEY = 16  # bytes of a row's name

Progress = Callable[[str, int, int, float | None], None]


def silent(what: str, done: int, total: int, loss: float | None) -> None:
    """No progress to report."""


def features(
    model: RewardModel,
    encoded: Sequence[Encoded],
    cache: Path | None = None,
    progress: Progress = silent,
    *,
    dtype: str | None = None,
    token_budget: int | None = None,
) -> Tensor:
    """Pooled hidden states (N, D) of the rows, float32, dropout off, on the model's device.

    `progress("features", done, total, None)` counts distinct rows. A chunk holds whole micro-batches in a fixed order,
    so an extraction that was killed ends with the bits of one that was not.
    """
    dtype = dtype or fast_dtype()
    names = [row_key(row) for row in encoded]
    distinct = dict(zip(names, encoded, strict=True))
    folder = None if cache is None else cache / backbone_key(model, dtype)
    cached = _read(folder, distinct.keys()) if folder is not None else {}
    missing = [name for name in distinct if name not in cached]
    chunk: dict[bytes, np.ndarray] = {}
    training = model.training
    model.eval()
    for rows in _compute(model, {name: distinct[name] for name in missing}, dtype, token_budget):
        chunk |= rows
        cached |= rows
        if folder is not None and (len(chunk) >= CHUNK or len(cached) == len(distinct)):
            _write(folder, chunk)
            chunk = {}
        progress("features", len(cached), len(distinct), None)
    model.train(training)
    return torch.from_numpy(np.stack([cached[name] for name in names])).to(model.device)


def row_key(row: Encoded) -> bytes:
    ids = np.asarray([row.answer_start, *row.ids], dtype="<i4")
    return hashlib.blake2b(ids.tobytes(), digest_size=KEY).digest()


def backbone_key(model: RewardModel, dtype: str) -> str:
    """A digest of everything that shapes a feature besides its row."""
    weights = tensors_key(model.backbone.parameters())
    return digest({"weights": weights, "pooling": model.pooling, "layer": model.layer, "dtype": dtype})


def tensors_key(tensors: Iterable[Tensor]) -> str:
    """A hash of values, types and shapes, in order. For tensors that do not learn it is computed once."""
    parts = list(tensors)
    name = tuple(map(id, parts))
    still = not any(t.requires_grad or t.is_inference() for t in parts)
    versions = [t._version for t in parts] if still else []
    if still and name in _KNOWN:
        alive, recorded, key = _KNOWN[name]
        if recorded == versions and all(ref() is t for ref, t in zip(alive, parts, strict=True)):
            return key
    total = hashlib.blake2b(digest_size=KEY)
    for tensor in parts:
        total.update(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    if still:
        _KNOWN.clear()  # one backbone at a time
        _KNOWN[name] = ([weakref.ref(t) for t in parts], versions, total.hexdigest())
    return total.hexdigest()


# Of a frozen backbone: its tensors, their versions (each change in place adds one), and their hash.
_KNOWN: dict[tuple[int, ...], tuple[list["weakref.ref[Tensor]"], list[int], str]] = {}


def _compute(
    model: RewardModel, rows: Mapping[bytes, Encoded], dtype: str, token_budget: int | None
) -> Iterator[dict[bytes, np.ndarray]]:
    names = list(rows)
    for micro, batch in model.batches(list(rows.values()), token_budget):
        with torch.inference_mode(), autocast(dtype):
            pooled = model.features(**batch)
        yield dict(zip([names[i] for i in micro], pooled.float().cpu().numpy(), strict=True))


def _read(folder: Path, names: Collection[bytes]) -> dict[bytes, np.ndarray]:
    rows: dict[bytes, np.ndarray] = {}
    for path in sorted(folder.glob("*.safetensors")):
        chunk = load_file(path)
        rows |= {
            name: row for name, row in zip(map(bytes, chunk["names"]), chunk["features"], strict=True) if name in names
        }
    return rows


def _write(folder: Path, chunk: Mapping[bytes, np.ndarray]) -> None:
    """Write the chunk whole or not at all, under a name that no other chunk has."""
    folder.mkdir(parents=True, exist_ok=True)
    names = np.stack([np.frombuffer(name, np.uint8) for name in chunk])
    path = folder / f"{hashlib.blake2b(names.tobytes(), digest_size=KEY).hexdigest()}.safetensors"
    partial = path.with_suffix(f".{os.getpid()}.partial")
    save_file({"names": names, "features": np.stack(list(chunk.values()))}, partial)
    partial.replace(path)
