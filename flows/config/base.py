"""What sections of a config share."""

import logging
from collections.abc import Mapping
from functools import cache
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator

from sparring.loop.own_parts import name_of


def named(value: Any) -> Any:
    """Values of a config, with the names of functions and classes in their place."""
    if isinstance(value, Mapping):
        return {key: named(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [named(each) for each in value]
    return name_of(value) if callable(value) and not isinstance(value, BaseModel) else value


@cache
def warn_once(message: str) -> None:
    """About a key or value that was renamed: once per process."""
    logging.getLogger("sparring").warning(message)


class WithOptions(BaseModel):
    """A section whose further keys are options of the thing it names."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, values: Any) -> Any:
        """A part may be given as an object, also as one of those that a part is made of: it goes by its name."""
        return named(values)

    @model_validator(mode="after")
    def _whole_numbers(self) -> Self:
        """Prefect's page sends 1.0 as 1: an option is the same either way, and so is the run that it shapes."""
        for name, value in self.options.items():
            if isinstance(value, float) and value.is_integer() and self.model_extra is not None:
                self.model_extra[name] = int(value)
        return self

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Named(WithOptions):
    """One of a list of things by name; its options stand beside `kind`."""

    kind: str

    @property
    def entry(self) -> dict[str, Any]:
        return {"kind": self.kind, **self.options}
