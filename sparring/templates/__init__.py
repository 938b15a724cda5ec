"""The templates of `spar init`: folders of files, copied as they are."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from sparring.loop.errors import ConfigError
from sparring.loop.options import nearest

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Template:
    """What a template shows, and the commands to run next."""

    about: str
    next: tuple[str, ...]


TEMPLATES = {
    "quickstart": Template("three rounds on verifiable rules with a small bundled model", ("spar run loop.yaml",)),
    "dpo": Template(
        "a chat model on verifiable rules, with every setting for learning, evaluation and stopping",
        ("spar run loop.yaml --dry-run", "spar run loop.yaml"),
    ),
    "ppo": Template(
        "a policy gradient with a critic on verifiable rules, with the settings that matter",
        ("spar run loop.yaml --dry-run", "spar run loop.yaml"),
    ),
    "llm-judge": Template(
        "a language model behind an OpenAI-compatible endpoint as the judge",
        ("spar run loop.yaml --dry-run", "spar judge canary loop.yaml", "spar run loop.yaml"),
    ),
    "reward-model": Template(
        "a reward model trained from labelled pairs, and a loop that uses it as the judge",
        ("spar reward train reward.yaml", "spar judge canary loop.yaml", "spar run loop.yaml"),
    ),
}


def write_template(name: str, folder: Path) -> list[str]:
    """Copy the files of a template to `folder`; returns their names. Raises ConfigError if a file exists."""
    if name not in TEMPLATES:
        known = ", ".join(TEMPLATES)
        raise ConfigError(f"there is no template {name!r}{nearest(name, TEMPLATES)}; choose one of {known}")
    files = sorted(FOLDER.joinpath(name).iterdir(), key=lambda file: (file.suffix != ".yaml", file.name))
    for file in files:
        if (folder / file.name).exists():
            raise ConfigError(f"{folder / file.name} already exists; remove it, or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(file, folder / file.name)
    return [file.name for file in files]
