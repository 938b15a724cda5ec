import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sparring.judges.rules import check_prompt
from sparring.loop.types import Prompt
from tests.helpers.paths import ROOT

QUICKSTART = ROOT / "examples" / "quickstart"


def rows(split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (QUICKSTART / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def bare(prompt: str) -> str:
    return " ".join(re.findall(r"\w+", prompt.lower()))


def test_there_are_prompts_enough() -> None:
    assert len(rows("train")) >= 420
    assert len(rows("eval")) >= 120


def test_no_prompt_comes_twice_not_even_in_other_punctuation() -> None:
    prompts = [bare(row["prompt"]) for split in ("train", "eval") for row in rows(split)]
    assert len(set(prompts)) == len(prompts)


def test_eval_has_topics_of_its_own() -> None:
    for theme in json.loads((QUICKSTART / "vocabulary.json").read_text(encoding="utf-8"))["themes"]:
        assert not set(theme["train"]) & set(theme["eval"])
        for row in rows("train"):
            assert not any(topic in row["prompt"] for topic in theme["eval"])


@pytest.mark.parametrize("split", ["train", "eval"])
def test_kinds_are_balanced_and_any_hundred_rows_have_them_all(split: str) -> None:
    firsts = [row["instruction_id_list"][0] for row in rows(split)]
    counts = Counter(firsts)
    assert len(counts) >= 14
    assert len(set(counts.values())) == 1
    assert all(set(firsts[start : start + 100]) == set(counts) for start in range(len(firsts) - 99))


@pytest.mark.parametrize("split", ["train", "eval"])
def test_about_a_third_of_the_rows_have_two_instructions(split: str) -> None:
    sizes = [len(row["instruction_id_list"]) for row in rows(split)]
    assert set(sizes) == {1, 2}
    assert 0.25 < sizes.count(2) / len(sizes) < 0.42


def test_train_and_eval_share_their_kinds() -> None:
    train, held_out = ({i for row in rows(split) for i in row["instruction_id_list"]} for split in ("train", "eval"))
    assert train == held_out


@pytest.mark.parametrize("split", ["train", "eval"])
def test_every_row_has_rules_that_can_be_checked(split: str) -> None:
    for row in rows(split):
        meta = {key: value for key, value in row.items() if key != "prompt"}
        assert meta["instruction_id_list"]
        check_prompt(Prompt.make([{"role": "user", "content": row["prompt"]}], "train", "quickstart", meta))


def test_the_script_writes_the_same_bytes_again(tmp_path: Path) -> None:
    subprocess.run([sys.executable, QUICKSTART / "make_prompts.py", tmp_path], check=True, timeout=60)
    for name in ("train.jsonl", "eval.jsonl"):
        assert (tmp_path / name).read_bytes() == (QUICKSTART / name).read_bytes()
