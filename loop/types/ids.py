"""Ids and seeds from causes: making a thing twice gives one id."""

import hashlib
import json
from typing import Any


def digest(value: Any, size: int = 10) -> str:
    """Hex digest of a JSON value, independent of key order."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(canonical.encode(), digest_size=size).hexdigest()


def make_id(kind: str, **cause: Any) -> str:
    """Name a record by what caused it: making it twice gives one id."""
    return f"{kind}_{digest(cause)}"


def derive_seed(*cause: Any) -> int:
    """A 31-bit seed from its causes, the same in every process and on every machine."""
    return int(digest(list(cause), size=4), 16) >> 1
