"""reward.json: the facts about a reward model beside its weights. Light to import, for judges that read it early."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from sparring.loop.errors import DataError
from sparring.loop.types import digest

FILE = "reward.json"
# The last token; the mean of all tokens; the mean of the answer's; a third party's model's own forward.
Pooling = Literal["last", "mean", "answer_mean", "own"]


@dataclass(frozen=True)
class Facts:
    """`mean` and `std`, one per member, are of its scores on a fixed set; they put members on one scale."""

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
    """The facts, or None for a third party's model, which has no reward.json. Raises DataError if it does not parse."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        for key in ("mean", "std"):
            facts[key] = None if facts[key] is None else tuple(map(float, facts[key]))
        return Facts(**facts)
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path} is not a reward.json of this version ({error}); expected the fields {_FIELDS}"
        ) from error


def folder_digest(folder: Path) -> str:
    """A digest of everything in a model's folder that shapes a score: weights, reward.json, tokenizer and template."""
    from sparring.loop.learning.checkpoint import TOKENIZER, weights_sha256

    beside = sorted({path for pattern in (*TOKENIZER, FILE, "config.json") for path in folder.glob(pattern)})
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in beside}
    return digest([weights_sha256(folder), hashes])


_FIELDS = ", ".join(Facts.__dataclass_fields__)
