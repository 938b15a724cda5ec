"""Parts by name: those that are shipped, those of installed packages (entry points), and a person's own."""

import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from sparring.loop.errors import ConfigError
from sparring.loop.options import nearest
from sparring.loop.own_parts import is_own, load_own, own_errors, source_sha256
from sparring.loop.traits import MARK

Traits = TypeVar("Traits")


def marked(package: str, kind: type) -> dict[str, Callable[..., Any]]:
    """Every function in the modules of a package that a decorator of that kind marks, by its own name."""
    parts: dict[str, Callable[..., Any]] = {}
    for info in pkgutil.iter_modules(sys.modules[package].__path__):
        module = import_module(f"{package}.{info.name}")
        for name, value in vars(module).items():
            if isinstance(getattr(value, MARK, None), kind) and value.__module__ == module.__name__:
                if name in parts:
                    raise RuntimeError(f"{module.__name__} and another module both have a part {name!r}")
                parts[name] = value
    return parts


def own_label(name: str, group: str) -> str:
    """How rows and ids call a person's own part, by its name or entry point; another name as it is."""
    installed = next(iter(entry_points(group=group, name=name)), None)
    if installed is None and not is_own(name):
        return name
    return label(load_own(installed.value if installed else name))


def label(part: Callable[..., Any]) -> str:
    """The name of a person's own part, and the hash of its source."""
    return f"{part.__qualname__}@{source_sha256(part)[:8]}"


@dataclass(frozen=True)
class Part(Generic[Traits]):
    """What a name stands for. `source` is the hash of a person's own source, "" for what is shipped."""

    name: str
    make: Callable[..., Any]
    traits: Traits
    what: str
    source: str = ""

    @property
    def label(self) -> str:
        """How rows and ids call it: its name, or with its source where it is a person's own."""
        return f"{self.make.__qualname__}@{self.source[:8]}" if self.source else self.name

    def __call__(self, *values: Any, **options: Any) -> Any:
        """Call it; an exception in a person's own code names its line."""
        if not self.source:
            return self.make(*values, **options)
        with own_errors(self.make, self.what):
            return self.make(*values, **options)


class Registry(Mapping[str, Part[Traits]]):
    """The parts of one kind. `shipped` has the object of each name, or its import path to be loaded when asked for.

    what: "loss", "pair builder", ... group: the entry points by which installed packages add theirs.
    """

    def __init__(
        self, what: str, traits: type[Traits], shipped: Mapping[str, Callable[..., Any] | str], group: str
    ) -> None:
        self.what, self.traits, self.shipped, self.group = what, traits, shipped, group

    def __iter__(self) -> Iterator[str]:
        return iter({**self.shipped, **self._installed})

    def __len__(self) -> int:
        return len({*self.shipped, *self._installed})

    def __contains__(self, name: object) -> bool:
        return name in self.shipped or name in self._installed

    @cached_property
    def _installed(self) -> Mapping[str, EntryPoint]:
        return {each.name: each for each in entry_points(group=self.group)}

    def __getitem__(self, name: str) -> Part[Traits]:
        """Raises ConfigError for a name that stands for nothing, or for a part of another kind."""
        if name in self.shipped:
            part = self.shipped[name]
            return self._part(name, load_own(part) if isinstance(part, str) else part, "")
        if name not in self._installed and not is_own(name):
            raise ConfigError(
                f"there is no {self.what} {name!r}{nearest(name, self)}; choose one of {', '.join(self)}, or name your "
                "own: ./file.py:name"
            )
        own = load_own(self._installed[name].value if name in self._installed else name)
        if not callable(own):
            raise ConfigError(f"{name} is {own!r}; expected a function or class that can be a {self.what}")
        return self._part(name, own, source_sha256(own))

    def _part(self, name: str, make: Callable[..., Any], source: str) -> Part[Traits]:
        traits = getattr(make, MARK, None) or self.traits()
        if not isinstance(traits, self.traits):
            raise ConfigError(f"{name} is marked as {type(traits).__name__}; expected a {self.what}")
        return Part(name, make, traits, self.what, source)
