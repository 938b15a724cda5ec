"""The result of one check of `spar store check` or `spar doctor`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """The result of the check `name`. `remedy` says what to do, and may also be set where `ok` is true."""

    name: str
    ok: bool
    found: str
    remedy: str = ""
