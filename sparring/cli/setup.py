"""`spar init` and `spar doctor`."""

from pathlib import Path
from typing import Annotated

import typer

from sparring.cli.common import AsJson, Store, print_json, say
from sparring.loop.errors import EnvironmentProblem
from sparring.store import DEFAULT_PATH


def complete_template(incomplete: str) -> list[str]:
    from sparring.templates import TEMPLATES

    return [name for name in TEMPLATES if name.startswith(incomplete)]


def init(
    folder: Annotated[Path, typer.Argument(help="Folder for the files.")] = Path("."),
    template: Annotated[
        str, typer.Option(help="Template to start from; see --list.", autocompletion=complete_template)
    ] = "quickstart",
    list_: Annotated[bool, typer.Option("--list", help="List the templates.")] = False,
) -> None:
    """Write a config and prompts to start from."""
    from sparring.templates import TEMPLATES, write_template

    if list_:
        for name, each in TEMPLATES.items():
            print(f"{name:<14}{each.about}")
        return
    files = write_template(template, folder)
    there = "" if folder == Path(".") else f"cd {folder} && "
    say(f"wrote {', '.join(files)} to {folder}; next: {there}{TEMPLATES[template].next[0]}")
    for command in TEMPLATES[template].next[1:]:
        say(f"then: {command}")


def doctor(
    store: Store = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Start a tiny vLLM engine too, which takes half a minute.")
    ] = False,
    config: Annotated[
        Path | None, typer.Option(help="A YAML config: load its policy, and say how it is computed and sampled.")
    ] = None,
    kill_orphans: Annotated[
        bool, typer.Option("--kill-orphans", help="End processes that outlived the run that started them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check versions, hardware, vLLM, disk, locks, Prefect and orphans, with a remedy for each problem."""
    from sparring.doctor import examine

    findings = examine(Path(store or DEFAULT_PATH), config=config, probe=probe, kill_orphans=kill_orphans)
    if as_json:
        print_json([vars(f) for f in findings])
    else:
        for f in findings:
            print(f"{'ok  ' if f.ok else 'FAIL'} {f.name}: {f.found}" + ("" if f.ok else f"\n     -> {f.remedy}"))
    if bad := [f.name for f in findings if not f.ok]:
        raise EnvironmentProblem(f"{len(bad)} finding(s) to act on: {', '.join(bad)}")
