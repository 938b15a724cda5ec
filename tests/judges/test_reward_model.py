"""The judge of reward models: raw rows a member, standardised before they are aggregated, nothing cut or invented."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlamaForSequenceClassification

from sparring.judges.reward.encoding import Encoding, Read
from sparring.judges.reward.facts import folder_digest
from sparring.judges.reward.model import RewardModel
from sparring.judges.reward_model import RewardModelJudge
from sparring.loop.errors import ConfigError, NotANumber
from sparring.loop.types import Group, Judgement, Prompt, digest
from tests.helpers.experience import completion
from tests.helpers.paths import ROOT
from tests.helpers.reward_backbones import build_foreign, build_tiny_encoder

TEXTS = ["yes", "no, never, not in a hundred years!", "what?", "it is so"]


@pytest.fixture(scope="module")
def folders(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A single model, another, a multi-head one with scales, an encoder."""
    root = tmp_path_factory.mktemp("rewards")
    encoder = build_tiny_encoder(root / "bert")
    made = {
        "one": RewardModel.create(tiny, seed=1),
        "two": RewardModel.create(tiny, seed=2),
        "multi": RewardModel.create(tiny, "multi", {"members": 3}),
        "encoder": RewardModel.create(encoder),
    }
    made["multi"].set_scale([1.0, -2.0, 0.5], [2.0, 0.5, 1.0])
    for name, model in made.items():
        model.save(root / name, encoder if name == "encoder" else tiny)
    return {name: root / name for name in made}


def group(texts: Sequence[str] = TEXTS, name: str = "is it so?") -> Group:
    prompt = Prompt(name, ({"role": "user", "content": name},))
    return Group(prompt, tuple(completion(name, i, text) for i, text in enumerate(texts)))


def judge(model: Any, **options: Any) -> RewardModelJudge:
    many = list(map(str, model)) if isinstance(model, list) else str(model)
    return RewardModelJudge(model=many, **options)


def rows(of: RewardModelJudge, *groups: Group) -> list[Judgement]:
    return [row for chunk in of.judge(groups) for row in chunk]


def direct(folder: Path, of: Group, read: Read = "end_of_turn") -> list[list[float]]:
    """Each answer alone through the model, in the order of the group."""
    model, encoding = RewardModel.load(folder), Encoding(folder, read=read)
    with torch.no_grad():
        alone = [model.collate([encoding.whole(of.prompt.messages, c.text)]) for c in of.completions]
        return [model(**batch)[0].tolist() for batch in alone]


@pytest.mark.parametrize("which", ["one", "encoder"])
def test_a_single_models_score_is_its_raw_score(folders: dict[str, Path], which: str) -> None:
    one, asked = judge(folders[which]), group()
    found = {j.completion_id: j for j in rows(one, asked)}
    wanted = direct(folders[which], asked)
    for c, (value,) in zip(asked.completions, wanted, strict=True):
        j = found[c.id]
        assert j.value == pytest.approx(value, abs=1e-5)
        assert (j.judge, j.member, j.rival_id, j.order, j.rationale) == (one.name, "", None, 0, "")
    assert one.read(list(found.values())).scores == {c: j.value for c, j in found.items()}
    assert len({j.id for j in found.values()}) == len(TEXTS)
    assert max(wanted) > min(wanted)


def test_a_third_partys_model_judges(tmp_path: Path) -> None:
    """Read where it was trained to be read, or where it is told to be; by transformers' own forward."""
    folder, asked = build_foreign(tmp_path / "foreign", pad=0), group()
    theirs = LlamaForSequenceClassification.from_pretrained(folder).eval()
    tokenizer, scored = AutoTokenizer.from_pretrained(folder), {}
    for read, last in (("template", None), ("end_of_turn", -1)):
        values = {j.completion_id: j.value for j in rows(judge(folder, read=read), asked)}
        scored[read] = [values[c.id] for c in asked.completions]
        turns = [[*asked.prompt.messages, {"role": "assistant", "content": c.text}] for c in asked.completions]
        ids = [tokenizer.apply_chat_template(each, return_dict=False)[:last] for each in turns]
        with torch.no_grad():
            wanted = [theirs(input_ids=torch.tensor([each])).logits.item() for each in ids]
        assert scored[read] == pytest.approx(wanted, abs=1e-4)
    assert min(abs(a - b) for a, b in zip(*scored.values(), strict=True)) > 1e-2
    default = {j.completion_id: j.value for j in rows(judge(folder), asked)}
    assert [default[c.id] for c in asked.completions] == scored["template"]


def test_only_a_verdict_that_changes_gets_another_name(folders: dict[str, Path], tmp_path: Path) -> None:
    """The names of judges from before there was a choice: where a score is read as it was then, it is known by that."""

    def before(folder: Path) -> str:
        models = [[folder_digest(folder), 512, "transformers"]]
        return f"reward-{digest([models, None, 'mean', {}, 'float32'], 5)}"

    chatml = build_foreign(tmp_path / "chatml", pad=0)
    ending = Path(shutil.copytree(chatml, tmp_path / "ending"))
    template = ending / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_end|>\n", "<|im_end|>"))
    for folder in (folders["one"], ending):
        assert judge(folder).name == judge(folder, read="end_of_turn").name == before(folder)
    assert judge(chatml, read="end_of_turn").name == before(chatml)
    assert judge(chatml).name not in (before(chatml), before(ending))


def test_members_keep_their_raw_scores_and_are_read_on_their_scales(folders: dict[str, Path]) -> None:
    asked = group()
    panel = judge(folders["multi"], aggregate="worst")
    found = rows(panel, asked)
    assert len(found) == panel.missing(asked) == 3 * len(TEXTS)
    raw = direct(folders["multi"], asked)
    reading = panel.read(found).scores
    for c, values in zip(asked.completions, raw, strict=True):
        mine = sorted((j for j in found if j.completion_id == c.id), key=lambda j: j.member)
        assert [j.member for j in mine] == ["0", "1", "2"]
        assert [j.value for j in mine] == pytest.approx(values, abs=1e-5)
        standard = [(values[0] - 1) / 2, (values[1] + 2) / 0.5, values[2] - 0.5]
        assert reading[c.id] == pytest.approx(min(standard), abs=1e-4)


@pytest.mark.parametrize(
    ("aggregate", "coefficient", "wanted"),
    [
        ("mean", None, fmean),
        ("worst", None, min),
        ("uncertainty", 2.0, lambda v: fmean(v) - 2 * pstdev(v) ** 2),
        ("lower_bound", 0.3, lambda v: fmean(v) - 0.3 * pstdev(v)),
    ],
)
def test_several_models_are_an_ensemble(
    folders: dict[str, Path], aggregate: str, coefficient: float | None, wanted: Any
) -> None:
    asked = group()
    scales = [[0.5, 2.0], [-1.0, 0.5], [1.0, 2.0], [-2.0, 0.5], [0.5, 1.0]]
    models = [folders["one"], folders["encoder"], folders["multi"]]
    ensemble = judge(models, aggregate=aggregate, coefficient=coefficient, scales=scales)
    found = rows(ensemble, asked)
    assert {j.member for j in found} == set("01234")
    reading = ensemble.read(found).scores
    each = [direct(model, asked) for model in models]
    for i, c in enumerate(asked.completions):
        values = [v for model in each for v in model[i]]
        standard = [(v - mean) / std for v, (mean, std) in zip(values, scales, strict=True)]
        assert reading[c.id] == pytest.approx(wanted(standard), abs=1e-3)


def test_members_without_a_common_scale_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no scales for 2 members; give scales"):
        _ = judge([folders["one"], folders["two"]]).name
    with pytest.raises(ConfigError, match="1 scales for 2 members"):
        _ = judge([folders["one"], folders["two"]], scales=[[0, 1]]).name
    with pytest.raises(ConfigError, match="std above 0"):
        judge(folders["one"], scales=[[0, 0]])


def test_an_over_long_answer_has_no_score_and_a_reason(folders: dict[str, Path]) -> None:
    asked = group(["yes", "no " * 200])
    one = judge(folders["one"], max_length=100)
    found = {j.completion_id: j for j in rows(one, asked)}
    short, long = (found[c.id] for c in asked.completions)
    length = len(Encoding(folders["one"]).whole(asked.prompt.messages, "no " * 200))
    assert (long.value, long.rationale) == (None, f"over-long: {length} tokens, max_length 100")
    assert short.value is not None
    assert list(one.read([short, long]).scores) == [short.completion_id]


def test_an_ensemble_of_which_one_cannot_read_an_answer_has_no_score_for_it(folders: dict[str, Path]) -> None:
    """The encoder takes 128 tokens, the other model 512."""
    asked = group(["yes", "no " * 60])
    both = judge([folders["one"], folders["encoder"]], scales=[[0, 1], [0, 1]])
    found = rows(both, asked)
    long = {j.member: j.value for j in found if j.completion_id == asked.completions[1].id}
    assert long["0"] is not None
    assert long["1"] is None
    assert list(both.read(found).scores) == [asked.completions[0].id]


def test_what_is_judged_is_not_judged_again_and_the_rest_scores_to_the_same_bit(folders: dict[str, Path]) -> None:
    """Stopped after its first chunk of three, a judge resumes to exactly the same rows."""
    words = ["no", "yes", "well", "it may be", "who is to say?"]
    groups = [group([f"{words[(i + k) % 5]} " * (1 + i % 3) + str(k) for k in range(5)], f"q {i}") for i in range(28)]
    one = judge(folders["one"], token_budget=256)
    chunks = list(one.judge(groups))
    assert [len(chunk) for chunk in chunks] == [64, 64, 12]
    known = {j.completion_id: j for j in chunks[0]}
    left = [replace(g, judged=tuple(known[c.id] for c in g.completions if c.id in known)) for g in groups]
    assert sum(map(one.missing, left)) == 76
    again = list(judge(folders["one"], token_budget=256).judge(left))
    assert again == chunks[1:]


def test_the_name_tells_what_moves_a_score(folders: dict[str, Path], tmp_path: Path) -> None:
    one = folders["one"]
    copied = Path(shutil.copytree(one, tmp_path / "elsewhere"))
    assert judge(one).name == judge(copied).name == judge([one]).name
    assert judge(one, token_budget=64).name == judge(one).name
    template = copied / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    scales = [[0, 1], [0, 1]]
    names = [
        judge(one),
        judge(copied),
        judge(folders["two"]),
        judge(one, max_length=100),
        judge(one, dtype="bfloat16"),
        judge(one, aggregate="worst"),
        judge([one, folders["two"]], scales=scales),
        judge([folders["two"], one], scales=scales),
        judge([one, folders["two"]], scales=[[0, 1], [0, 2]]),
        judge([one, folders["two"]], scales=scales, aggregate="uncertainty"),
        judge([one, folders["two"]], scales=scales, aggregate="uncertainty", coefficient=0.1),
    ]
    assert len({each.name for each in names}) == len(names)
    assert all(each.name.startswith("reward-") for each in names)


def test_broken_weights_stop_the_judge(folders: dict[str, Path], tmp_path: Path) -> None:
    broken = Path(shutil.copytree(folders["one"], tmp_path / "broken"))
    weights = load_file(broken / "model.safetensors")
    weights["score.weight"][0, 3] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NotANumber, match="weights are broken"):
        rows(judge(broken), group())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"aggregate": "median"}, "no aggregator 'median'"),
        ({"aggregate": "worst", "coefficient": 1.0}, "takes no coefficient"),
        ({"dtype": "float16"}, "float16"),
        ({"engine": "onnx"}, "onnx"),
        ({"read": "last"}, "expected template or end_of_turn"),
        ({"max_length": 0}, "max_length is 0"),
        ({"token_budget": 0}, "token_budget is 0"),
    ],
)
def test_options_are_checked_at_once(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RewardModelJudge(model="nowhere", **options)
    for model in ([], ["a", "a"]):
        with pytest.raises(ConfigError, match="a list of different ones"):
            RewardModelJudge(model=model)


def test_vllm_is_for_models_that_it_reads_right(folders: dict[str, Path], tmp_path: Path) -> None:
    """An encoder, several heads, and a third party's model that is read before its last token are not."""
    foreign = build_foreign(tmp_path / "foreign", pad=257)
    assert judge(foreign, engine="vllm").name != judge(foreign, engine="transformers").name
    for folder in (folders["encoder"], folders["multi"], foreign):
        with pytest.raises(ConfigError, match="set engine: transformers"):
            _ = judge(folder, engine="vllm", read="end_of_turn").name
    assert judge(folders["one"], engine="vllm").name != judge(folders["one"], engine="transformers").name


def test_nothing_to_judge_loads_nothing(folders: dict[str, Path]) -> None:
    script = (
        "import sys; from sparring.judges.reward_model import RewardModelJudge\n"
        "assert list(RewardModelJudge(model='nowhere').judge([])) == []\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"torch", "transformers", "vllm", "peft"} & set(done.stdout.split()) == set()
