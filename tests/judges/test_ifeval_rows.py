"""IFEval's rows are taken as they are: a train file by its path, every row with a verdict of the rules judge."""

from contextlib import chdir

import pytest

from sparring.flows.compose.build import read_all_prompts
from sparring.flows.config import read_config
from sparring.judges.rules import RulesJudge
from sparring.loop.types import Group
from tests.helpers.paths import DATA, ROOT
from tests.helpers.records import checkpoint, completion, round_of

ROWS = DATA / "tasks_ifeval_train.jsonl"


@pytest.mark.skipif(not ROWS.exists(), reason=f"no IFEval rows in {DATA}")
def test_ifeval_rows_are_taken_as_they_are() -> None:
    with chdir(ROOT):
        config = read_config("examples/quickstart/config.yaml", [f"prompts.train={ROWS}"])
        train, held_out = read_all_prompts(config)  # refuses an instruction that the judge does not know
    policy = checkpoint("any")
    rnd = round_of(1, policy, policy, train)
    text = "Yes, indeed. This is a rather long answer, with a title and two words more."
    groups = [Group(p, (completion(rnd, p, text=text),)) for p in train]
    judged = [j for chunk in RulesJudge().judge(groups) for j in chunk]
    assert len(train) == len(ROWS.read_text().splitlines()) and held_out
    assert len(judged) == len(train)
    values = [j.value for j in judged]
    assert None not in values and 0.0 in values and 1.0 in values
