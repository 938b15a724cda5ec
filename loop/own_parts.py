"""A person's own parts: found by import path or by file, known by their source, with errors that name their line.

`my_rewards:LengthPenalty` names what a module on Python's path has, `./my_rewards.py:LengthPenalty` what a file has. An
object that was passed in Python has the import path that leads to it, or is known in this process alone.
"""

import hashlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from sparring.loop.errors import ConfigError, SparError, StepError

OBJECTS: dict[str, Any] = {}  # what was passed as an object and no import leads to, by the name that it got
PLAIN = (str, bytes, int, float, bool, type(None), tuple, list, dict, set, frozenset)


def is_own(name: str) -> bool:
    """Whether a name is an import path: a module or file, a colon, and what is in it."""
    return ":" in name


def name_of(part: Any) -> str:
    """The import path of an object; one that no import leads to is kept in this process."""
    module, qualified = getattr(part, "__module__", None), getattr(part, "__qualname__", None)
    if not callable(part) or module is None or qualified is None:
        raise ConfigError(f"a part is {part!r}; expected a function or class, or its name")
    name = f"{module}:{qualified}"
    if module == "__main__" or "<locals>" in qualified or _attribute(sys.modules.get(module), qualified) is not part:
        OBJECTS[name] = part
    return name


def load_own(name: str) -> Any:
    """The object that an import path names. Raises ConfigError, with the line where its file fails."""
    if name in OBJECTS:
        return OBJECTS[name]
    place, _, attribute = name.rpartition(":")
    if place == "__main__" or "<locals>" in attribute:
        raise ConfigError(
            f"{name} was passed as an object by a script or notebook, and this process has none of that name; run that "
            "script again, or move the part to a file and name it as ./file.py:name"
        )
    module = _module_of_file(Path(place)) if place.endswith(".py") else _module(place)
    part = _attribute(module, attribute)
    if part is None:
        names = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise ConfigError(f"{place} has no {attribute!r}; it has {', '.join(names) or 'nothing that can be called'}")
    return part


def _attribute(module: ModuleType | None, qualified: str) -> Any:
    found: Any = module
    for name in qualified.split("."):
        found = getattr(found, name, None)
    return found


def _module(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _broken(name, error) from error  # it is there, and lacks something itself
        beside = Path(f"{name.replace('.', '/')}.py")
        hint = f"; the file is named ./{beside}:..." if beside.is_file() else ""
        raise ConfigError(
            f"there is no module {name!r} on Python's path{hint or '; install it, or name a file: ./file.py:name'}"
        ) from error
    except Exception as error:
        raise _broken(name, error) from error


def _module_of_file(file: Path) -> ModuleType:
    path = file.resolve()
    if not path.is_file():
        raise ConfigError(f"there is no file {file} (in {Path.cwd()}); paths are relative to the config's folder")
    name = f"sparring_own_{hashlib.sha256(str(path).encode() + path.read_bytes()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, Exception):
            raise _broken(str(file), error) from error
        raise
    return module


def _broken(name: str, error: Exception) -> ConfigError:
    if isinstance(error, SyntaxError):
        return ConfigError(f"{name} cannot be loaded: {error.filename}, line {error.lineno}: {error.msg}")
    line = traceback.extract_tb(error.__traceback__)[-1]
    return ConfigError(f"{name} cannot be loaded: {line.filename}, line {line.lineno}: {type(error).__name__}: {error}")


@contextmanager
def own_errors(part: Any, what: str) -> Iterator[None]:
    """An exception in a person's own code becomes a StepError that names the line, with the exception as its cause."""
    try:
        yield
    except SparError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if f.filename == _file(part)] or frames[1:] or frames
        line = own[-1]
        raise StepError(
            f"{Path(line.filename).name}, line {line.lineno}, in {line.name}: {type(error).__name__}: {error}. This is "
            f"your own {what}; what was stored before is kept"
        ) from error


def _file(part: Any) -> str | None:
    try:
        return inspect.getsourcefile(part if inspect.isroutine(part) or inspect.isclass(part) else type(part))
    except TypeError:
        return None


def source_sha256(part: Any) -> str:
    """The hash of what a part does: of its file, or of the package that it is in; of an object of a script or notebook,
    of its source with the functions, classes and constants that it names.

    What other modules give it is not part of it.
    """
    module = sys.modules.get(part.__module__)
    file = getattr(module, "__file__", None)
    if module is None or file is None or part.__module__ == "__main__":
        return hashlib.sha256("\n".join(_sources(part, set())).encode()).hexdigest()
    top = sys.modules.get(part.__module__.partition(".")[0])
    folders = [Path(folder) for folder in getattr(top, "__path__", ())]
    files = sorted(path for folder in folders for path in folder.rglob("*.py")) or [Path(file)]
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _sources(part: Any, seen: set[int]) -> Iterator[str]:
    """Source of a function or class, and of what it names in its own module."""
    if id(part) in seen:
        return
    seen.add(id(part))
    yield _source(part)
    functions = [f for f in vars(part).values() if isinstance(f, FunctionType)] if inspect.isclass(part) else [part]
    bases = [b for b in part.__bases__ if b.__module__ == part.__module__] if inspect.isclass(part) else []
    for base in bases:
        yield from _sources(base, seen)
    for function in functions:
        closure = inspect.getclosurevars(function)
        names = {**closure.globals, **closure.nonlocals} | _nested(function)
        for name, value in sorted(names.items()):
            if isinstance(value, FunctionType | type) and value.__module__ == part.__module__:
                yield from _sources(value, seen)
            elif isinstance(value, PLAIN):
                yield f"{name} = {value!r}"


def _nested(function: Callable[..., Any]) -> dict[str, Any]:
    """The globals that functions inside a function name."""
    found: dict[str, Any] = {}
    codes = [c for c in function.__code__.co_consts if isinstance(c, CodeType)]
    while codes:
        code = codes.pop()
        found |= {name: function.__globals__[name] for name in code.co_names if name in function.__globals__}
        codes += [c for c in code.co_consts if isinstance(c, CodeType)]
    return found


def _source(part: Any) -> str:
    try:
        return inspect.getsource(part)
    except (OSError, TypeError):  # of a prompt, or of python -c
        code = getattr(part, "__code__", None)
        if code is None:
            raise ConfigError(
                f"the source of {part.__qualname__} cannot be read, so that its rows could not be told from another "
                "version's; put it in a file, and name it as ./file.py:name"
            ) from None
        return repr((code.co_code, [c for c in code.co_consts if not isinstance(c, CodeType)], code.co_names))
