"""vLLM's pooling runner gives the scores of transformers: raw, and read at the last token."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from sparring.judges.reward.engines import TransformersEngine, VllmEngine
from sparring.judges.reward.model import RewardModel
from sparring.judges.reward_model import RewardModelJudge
from sparring.loop.types import Group, Prompt
from tests.helpers.experience import completion
from tests.helpers.reward_backbones import ANSWERS, build_classifier, encoded
from tests.helpers.shards import shard
from tests.helpers.tiny import build_tiny_model

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    model = RewardModel.create(build_tiny_model(root / "tiny"))
    with_wide_scores = model.head.score.weight  # type: ignore[union-attr]
    with_wide_scores.data.mul_(5)  # far from where a sigmoid is nearly linear
    model.save(root / "reward", root / "tiny")
    return root / "reward"


@pytest.fixture(scope="module")
def judge(folder: Path) -> RewardModelJudge:
    """One judge for the module: starting its engine is most of the time."""
    return RewardModelJudge(model=str(folder), engine="vllm", max_length=200)


@pytest.fixture(scope="module")
def engine(judge: RewardModelJudge) -> Iterator[VllmEngine]:
    (made,) = judge._engines
    assert isinstance(made, VllmEngine)
    yield made
    made.close()


def test_pooling_equals_transformers(folder: Path, engine: VllmEngine) -> None:
    rows = encoded(folder)
    wanted = [value for (value,) in TransformersEngine(folder, "float32", None).scores(rows)]
    found = [value for (value,) in engine.scores(rows)]
    assert found == pytest.approx(wanted, abs=1e-3)
    assert max(wanted) - min(wanted) > 1, "scores that a sigmoid, or another token, would change"
    assert [v for row in rows for (v,) in engine.scores([row])] == pytest.approx(wanted, abs=1e-3)


def test_the_end_token_is_read(folder: Path, engine: VllmEngine) -> None:
    """Without its last token, which is the end of the turn, an answer has another score."""
    rows = encoded(folder)
    cut = [replace(row, ids=row.ids[:-1]) for row in rows]
    apart = [abs(a - b) for (a,), (b,) in zip(engine.scores(rows), engine.scores(cut), strict=True)]
    assert min(apart) > 1e-2


def test_the_judge_scores_by_either(folder: Path, judge: RewardModelJudge, engine: VllmEngine) -> None:
    answers = enumerate(["yes", "no, never", "what? " * 60])
    prompt = Prompt("p", ({"role": "user", "content": "is it so?"},))
    asked = Group(prompt, tuple(completion("p", i, text) for i, text in answers))
    other = RewardModelJudge(model=str(folder), engine="transformers", max_length=200)
    assert judge.name != other.name
    one, two = ({j.completion_id: j for chunk in of.judge([asked]) for j in chunk} for of in (judge, other))
    for c in asked.completions[:2]:
        assert one[c.id].value == pytest.approx(two[c.id].value, abs=1e-3)
    long = asked.completions[2].id
    assert one[long].value is None
    assert one[long].rationale == two[long].rationale


# The last test: an engine that ends takes what vLLM shares among the engines of a process with it.
def test_a_third_partys_model_is_read_at_the_last_token_of_its_template(tmp_path: Path, engine: VllmEngine) -> None:
    """vLLM's scores, transformers' own and ours. Beside the weights lie others in Mistral's own format."""
    folder = build_classifier(tmp_path / "foreign", "mistral")
    shard(folder)
    save_file({"output.weight": torch.zeros(1)}, folder / "consolidated.safetensors")
    (folder / "params.json").write_text("{}")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    theirs = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    turns = [[{"role": "user", "content": "is it so?"}, {"role": "assistant", "content": text}] for text in ANSWERS]
    ids = [tokenizer.apply_chat_template(each, return_dict=False) for each in turns]
    with torch.no_grad():
        wanted = [theirs(input_ids=torch.tensor([each])).logits.item() for each in ids]
    prompt = Prompt("p", ({"role": "user", "content": "is it so?"},))
    asked = Group(prompt, tuple(completion("p", i, text) for i, text in enumerate(ANSWERS)))
    engine.sleep()
    for name in ("vllm", "transformers"):
        judge = RewardModelJudge(model=str(folder), engine=name, max_length=200)  # type: ignore[arg-type]
        found = {j.completion_id: j.value for chunk in judge.judge([asked]) for j in chunk}
        assert [found[c.id] for c in asked.completions] == pytest.approx(wanted, abs=1e-3)
    assert max(wanted) - min(wanted) > 1e-1
