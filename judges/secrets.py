"""Secrets from the environment: read when they are sent, and removed from whatever is kept."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from string import Template
from urllib.parse import urlsplit

from sparring.judges.verdicts import storable
from sparring.loop.errors import ConfigError, EnvironmentProblem

PRIVATE = re.compile("auth|cookie|key|token|secret|password", re.IGNORECASE)  # names of headers that hold a secret


class Headers:
    """HTTP headers whose secrets are environment variables, as in {"Authorization": "Bearer $TOKEN"}.

    Raises ConfigError for a header that cannot be sent or has its secret written out, EnvironmentProblem for a variable
    that is not set.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        for name, value in headers.items():
            _check_header(name, value)
        self._templates = {name: Template(value) for name, value in headers.items()}
        self._names = sorted({each for template in self._templates.values() for each in template.get_identifiers()})
        self.read()

    def read(self) -> dict[str, str]:
        """The headers with the values that the environment has now."""
        values = {name: variable(name) for name in self._names}
        for name, value in values.items():
            if not sendable(value):
                raise EnvironmentProblem(
                    f"${name} is not set or no header can carry it, and the headers of judge http use it: "
                    f"export {name}=..., or name another variable"
                )
        return {name: template.substitute(values) for name, template in self._templates.items()}

    def hide(self, text: str) -> str:
        return hide(text, map(variable, self._names))


def variable(name: str) -> str:
    """The value of an environment variable, without the line end that a key read from a file has."""
    return os.environ.get(name, "").strip()


def sendable(value: str) -> bool:
    """Whether a header can carry it."""
    return value.isascii() and value.isprintable() and bool(value)


def hide(text: str, secrets: Iterable[str]) -> str:
    """The text as it may be kept: a server may repeat a secret, plainly or as JSON writes it."""
    for secret in filter(None, secrets):
        for written in (secret, json.dumps(secret)[1:-1], secret.replace("/", r"\/")):
            text = text.replace(written, "***")
    return storable(text)


def is_loopback(url: str | None) -> bool:
    host = urlsplit(url or "").hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _check_header(name: object, value: object) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise ConfigError(f"judge http: {name!r} is no name of a header; expected one such as Authorization")
    template = Template(value) if isinstance(value, str) and sendable(value) else None
    if template is None or not template.is_valid():
        raise ConfigError(
            f"judge http: the header {name} cannot be sent; expected plain text, with $NAME for an environment "
            "variable and $$ for a dollar sign"
        )
    if PRIVATE.search(name) and not template.get_identifiers():
        raise ConfigError(
            f"judge http: the header {name} has its secret in the config, which is stored; put it in an environment "
            f'variable and write {name}: "$NAME"'
        )
