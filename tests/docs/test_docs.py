"""The docs name what exists: every config key, every command."""

import re
import subprocess
import sys
from dataclasses import fields
from itertools import pairwise
from typing import get_args, get_origin

import yaml
from pydantic import BaseModel

from sparring.flows.compose.judge_factory import check_judge
from sparring.flows.config import Config, JudgeConfig
from sparring.flows.config.reward import RewardConfig
from sparring.flows.run.relabel import LABELS, check_labelling
from sparring.judges import JUDGES
from sparring.judges.reward.options import RewardTraining
from sparring.loop.options import check_options
from tests.helpers.paths import ROOT


def keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        inner = [each for each in (field.annotation, *get_args(field.annotation)) if isinstance(each, type)]
        sections = [each for each in inner if issubclass(each, BaseModel)]
        again = f"{prefix}{name}" == "evaluate.judge"  # has the keys of `judge`
        if sections and get_origin(field.annotation) is not list and not again:
            found += keys(sections[0], f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name}")
    return found


def test_every_config_key_is_documented() -> None:
    table = [line.split("|")[1] for line in (ROOT / "docs/config.md").read_text().splitlines() if line.startswith("|")]
    documented = {key.strip() for cell in table for key in cell.split(",")}
    assert set(keys(Config)) <= documented
    assert documented - set(keys(Config)) <= {"key", "---"}


def test_every_command_in_the_readme_exists() -> None:
    said = subprocess.run([sys.executable, "-m", "sparring.cli", "--help"], cwd=ROOT, capture_output=True, text=True)
    words = (ROOT / "README.md").read_text().split()
    commands = {after for word, after in pairwise(words) if word.endswith(("/spar", "spar"))}
    named = {c.strip("`,.") for c in commands if c.strip("`,.").isalpha()}
    assert {"run", "sql", "status", "resume", "export", "init"} <= named
    for command in named:
        assert f" {command} " in said.stdout, f"README names spar {command}"


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert [link for link in links if not (ROOT / link).exists()] == []
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} - set(links) == set()


def test_every_judge_and_every_option_of_training_is_documented() -> None:
    text = (ROOT / "docs/judges.md").read_text()
    assert [kind for kind in JUDGES if f"`{kind}`" not in text] == []
    assert [kind for kind in LABELS if f"`{kind}`" not in text] == []
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    documented = {name.strip() for cell in cells for name in cell.split(",")}
    assert {field.name for field in fields(RewardTraining)} - {"seed"} - documented == set()


def test_the_examples_of_the_page_on_judges_are_valid() -> None:
    examples = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/judges.md").read_text(), re.DOTALL)
    assert len(examples) == 11
    for example in examples:
        values = yaml.safe_load(example)
        if "judge" in values:
            check_judge(JudgeConfig.model_validate(values["judge"]))
        else:
            config = RewardConfig.model_validate(values)
            check_options("reward training", "train", RewardTraining, config.train)
            if config.labels is not None:
                check_labelling(config.labels.kind, config.labels.options)
