"""reward.json: what a reward model's folder says of it beside its weights. Light, so that a judge can read it early."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from sparring.loop.errors import DataError
from sparring.loop.types import digest

FILE = "reward.json"
# The last token; the mean of all tokens; the mean of the answer's; the model's own forward, of a third party's model.
Pooling = Literal["last", "mean", "answer_mean", "own"]


@dataclass(frozen=True)
class Facts:
    """`mean` and `std`, one a member: of its scores on a fixed set, for members to be put on one scale by."""

    head: str = "linear"
    head_options: Mapping[str, Any] = field(default_factory=dict)
    pooling: Pooling = "last"
    layer: int = -1
    max_length: int | None = None
    members: int = 1
    adapters: int = 0
    adapter_options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def write(self, folder: Path) -> None:
        (folder / FILE).write_text(json.dumps(asdict(self), indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_facts(folder: Path) -> Facts | None:
    """None for a third party's model, whose folder has no reward.json. Raises DataError for one that does not parse."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        for key in ("mean", "std"):
            given[key] = None if given[key] is None else tuple(map(float, given[key]))
        return Facts(**given)
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path} is not what a reward model is saved with ({error}); wanted the fields {_FIELDS}"
        ) from error


def folder_digest(folder: Path) -> str:
    """Names all in a model's folder that shapes a score: weights, reward.json, tokenizer and template."""
    from sparring.loop.learning.checkpoint import COMPANIONS, weights_sha256

    beside = sorted({path for pattern in (*COMPANIONS, FILE, "config.json") for path in folder.glob(pattern)})
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in beside}
    return digest([weights_sha256(folder), hashes])


_FIELDS = ", ".join(Facts.__dataclass_fields__)
