"""One thing that `spar store check` looked at."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What was found under `name`; `remedy` says what to do, also where it is `ok` but worth a word."""

    name: str
    ok: bool
    found: str
    remedy: str = ""
