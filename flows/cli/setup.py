"""`spar init` and `spar doctor`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.common import say
from loop.errors import ConfigError, EnvironmentProblem


def register(app: typer.Typer) -> None:
    app.command()(init)
    app.command()(doctor)


def init(folder: Annotated[Path, typer.Argument(help="Where the example goes.")] = Path(".")) -> None:
    """Write an example config and prompts to start from."""
    from flows.templates import FILES

    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (folder / name).exists():
            raise ConfigError(f"{folder / name} is there already; remove it, or give another folder")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    say(f"wrote {', '.join(FILES)} to {folder}; next: cd {folder} && spar run loop.yaml")


def doctor(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Look at versions, hardware, vLLM, disk and locks, and say what to do about each finding."""
    from flows.doctor import examine

    findings = examine()
    if as_json:
        print(json.dumps([vars(f) for f in findings], indent=2))
    else:
        for f in findings:
            print(f"{'ok  ' if f.ok else 'FAIL'} {f.name}: {f.found}" + ("" if f.ok else f"\n     -> {f.remedy}"))
    if bad := [f.name for f in findings if not f.ok]:
        raise EnvironmentProblem(f"{len(bad)} finding(s) to act on: {', '.join(bad)}")
