"""The docs name what exists: every config key, every command."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from pydantic import BaseModel

from flows.config import Config

ROOT = Path(__file__).resolve().parents[1]


def keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += keys(field.annotation, f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name}")
    return found


def test_every_config_key_is_documented() -> None:
    table = [line.split("|")[1] for line in (ROOT / "docs/config.md").read_text().splitlines() if line.startswith("|")]
    documented = {key.strip() for cell in table for key in cell.split(",")}
    assert set(keys(Config)) <= documented
    assert documented - set(keys(Config)) <= {"key", "---"}


def test_every_command_in_the_readme_exists() -> None:
    said = subprocess.run([sys.executable, "-m", "flows.cli", "--help"], cwd=ROOT, capture_output=True, text=True)
    words = (ROOT / "README.md").read_text().split()
    commands = {after for word, after in pairwise(words) if word.endswith(("/spar", "spar"))}
    named = {c.strip("`,.") for c in commands if c.strip("`,.").isalpha()}
    assert {"run", "sql", "status", "resume", "export", "init"} <= named
    for command in named:
        assert f" {command} " in said.stdout, f"README names spar {command}"
