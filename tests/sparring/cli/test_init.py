"""What `spar init` writes is what `spar run` takes, as it is."""

import json
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import pytest

from sparring.flows.compose.build import prepare
from sparring.flows.config import read_config
from sparring.flows.config.reward import read_reward_config
from sparring.flows.run.reward import prepare_reward
from sparring.loop.errors import ConfigError
from sparring.loop.labelled_pairs import read_preferences
from sparring.templates import FOLDER, TEMPLATES, write_template
from tests.helpers.spar import Said, contents, spar_many

PROMPTS = {
    "quickstart": (3, 16, 8),
    "dpo": (5, 16, 8),
    "ppo": (3, 16, 8),
    "llm-judge": (3, 12, 6),
    "reward-model": (3, 12, 6),
}


@dataclass(frozen=True)
class Written:
    """What was said of each template, and in which folder it is."""

    top: Path
    init: dict[str, Said]
    dry: dict[str, Said]
    others: list[Said]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    top = tmp_path_factory.mktemp("init")
    made: list[tuple[object, ...]] = [("init", name, "--template", name) for name in TEMPLATES]
    dry: list[tuple[object, ...]] = [(top / name, "run", "loop.yaml", "--dry-run") for name in TEMPLATES]
    others = [("init", "--list"), ("init", "none", "--template", "dop"), ("init", "dpo", "--template", "llm-judge")]
    said = spar_many(*made, *others, cwd=top)
    checked = spar_many(*dry, cwd=top)
    n = len(TEMPLATES)
    return Written(
        top, dict(zip(TEMPLATES, said[:n], strict=True)), dict(zip(TEMPLATES, checked, strict=True)), said[n:]
    )


def test_every_folder_is_a_template() -> None:
    folders = {folder.name for folder in FOLDER.iterdir() if folder.is_dir()} - {"__pycache__"}
    assert folders == set(TEMPLATES) == set(PROMPTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_copied_and_runs_dry(written: Written, name: str) -> None:
    init, dry = written.init[name], written.dry[name]
    assert (init.code, init.out, dry.code) == (0, "", 0)
    assert contents(written.top / name) == contents(FOLDER / name)
    for number, command in enumerate(TEMPLATES[name].next):
        assert (f"next: cd {name} && {command}" if number == 0 else f"then: {command}") in init.err
    rounds, train, held_out = PROMPTS[name]
    assert f"{rounds} rounds of {train} of {train} prompts" in dry.err
    assert f"measured on {held_out} held-out prompts" in dry.err


@pytest.mark.slow
def test_templates_are_listed_and_a_wrong_name_too(written: Written) -> None:
    listed, unknown, taken = written.others
    assert [line.split()[0] for line in listed.out.splitlines()] == list(TEMPLATES)
    assert (unknown.code, unknown.out) == (2, "")
    assert "there is no template 'dop' (did you mean 'dpo'?); choose one of quickstart, dpo, ppo, " in unknown.err
    assert not (written.top / "none").exists()
    assert taken.code == 2
    assert "loop.yaml already exists" in taken.err


def test_nothing_is_written_where_one_file_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("mine")
    with pytest.raises(ConfigError, match=r"pairs.jsonl already exists"):
        write_template("reward-model", tmp_path)
    assert contents(tmp_path) == {"pairs.jsonl": b"mine"}


def test_the_reward_model_of_the_template_is_the_judge_of_its_loop(tmp_path: Path) -> None:
    write_template("reward-model", tmp_path)
    with chdir(tmp_path):
        ready = prepare_reward(read_reward_config("reward.yaml"))
        judge = read_config("loop.yaml").judge
    assert (len(ready.train), len(ready.held_out)) == (33, 10)
    assert Path(judge.options["model"]) == (ready.folder / "model").relative_to(tmp_path), (
        f"write runs/{ready.info.id}/model into sparring/templates/reward-model/loop.yaml"
    )


def test_labelled_pairs_are_of_one_mind() -> None:
    pairs = read_preferences(str(FOLDER / "reward-model" / "pairs.jsonl"))
    assert {p.p_a for p in pairs} == {0.0, 1.0}
    better = [(p.a, p.b) if p.p_a == 1 else (p.b, p.a) for p in pairs]
    assert all(chosen.strip() for chosen, _ in better)
    assert {chosen for chosen, _ in better}.isdisjoint(rejected for _, rejected in better)


def test_each_template_names_its_own_run() -> None:
    """So that several in one store are several runs."""
    names = [read_config(FOLDER / name / "loop.yaml").name for name in TEMPLATES]
    assert len(set(names)) == len(names)


def test_the_settings_that_the_dpo_template_spells_out_hold(tmp_path: Path) -> None:
    write_template("dpo", tmp_path)
    with chdir(tmp_path):
        ready = prepare(read_config("loop.yaml"))
    assert (ready.config.stop.win_rate, ready.config.keep.checkpoints) == (0.5, 3)
    roles = [[message["role"] for message in prompt.messages] for prompt in ready.train]
    assert ["system", "user"] in roles
    assert ["user", "assistant", "user"] in roles
    assert not (tmp_path / "preferences.duckdb").exists()


# Answers written by hand that keep the rules of their prompt, in the order of train.jsonl.
GOOD = [
    "* Stand the stems in water.\n* Cover it loosely.\n* Keep it out of the fridge.",
    "Black clouds roll over the hills and the wind lifts dust. Then the first bolt splits the sky.",
    "From 14:35 to 17:10 it is 2 hours and 35 minutes, so 155",
    "Yes.",
    "snow on the sill\nand the kettle sings",
    "A black hole is a place that pulls so hard that even light cannot leave.",
    "Try a tale in which a captain rides out a storm off Cape Horn.",
    "<<What the mind lets go>>",
    "17 times 6 is 102",
    "It turns a program that people write into one that a machine runs. It finds some mistakes on the way.",
    '"Bonsoir"',
    "* Close the shutters at dusk.\n* Put a rug on the floor.",
    "OUR TEACHER IS THE BEST IN TOWN.",
    "250 divided by 90 is 2.78, so whole loaves: 2",
    "Water",
    "Thank you for the watering!\n\nP.S. The figs are yours.",
]


def test_the_rules_of_the_dpo_template_can_be_kept() -> None:
    from sparring.judges.rules import rules_of
    from sparring.loop.prompts import read_prompts

    prompts = read_prompts(str(FOLDER / "dpo" / "train.jsonl"), "train")
    missed = {
        json.dumps(prompt.messages[-1]["content"]): name
        for prompt, answer in zip(prompts, GOOD, strict=True)
        for name, met in rules_of(prompt)
        if not met(answer)
    }
    assert missed == {}
