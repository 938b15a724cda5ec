"""One thing that was looked at."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    name: str
    ok: bool
    found: str
    remedy: str = ""  # what to do where it is not ok
