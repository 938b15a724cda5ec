"""Features of a frozen backbone: right, computed once, kept, and gone on with after a kill."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sparring.judges.reward.encoding import Encoded, Encoding
from sparring.judges.reward.features import CHUNK, features
from sparring.judges.reward.model import RewardModel
from tests.helpers.reward_pairs import pairs, prompt
from tests.helpers.tiny import build_tiny_model


class Killed(Exception):
    pass


class Seen(list[int]):
    """How many rows were there after each micro-batch; `kill_at` ends it once there are so many."""

    def __init__(self, kill_at: int = 1 << 30) -> None:
        super().__init__()
        self.kill_at = kill_at

    def __call__(self, what: str, done: int, total: int, loss: float | None) -> None:
        assert (what, loss) == ("features", None)
        self.append(done)
        if done >= self.kill_at:
            raise Killed


def encoded(folder: Path, n: int) -> list[Encoded]:
    encoding, found = Encoding(folder), []
    for p in pairs(n):
        found += [encoding.encode(p.messages, text) for text in (p.a, p.b)]
    return [row for row in found if row is not None]


def computed(model: RewardModel, rows: list[Encoded], cache: Path | None, seen: Seen, **options: object) -> Tensor:
    return features(model, rows, cache, seen, **({"dtype": "float32", "token_budget": 256} | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("pooling", ["last", "answer_mean"])
def test_features_are_those_of_each_row_alone(pooling: str, tiny: Path) -> None:
    model, rows = RewardModel.create(tiny, pooling=pooling), encoded(tiny, 10)  # type: ignore[arg-type]
    found = computed(model, rows, None, Seen())
    with torch.no_grad():
        alone = torch.cat([model.features(**model.collate([row])) for row in rows])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)
    found.requires_grad_()  # a head can learn from it


def test_each_row_is_computed_once(tiny: Path, tmp_path: Path) -> None:
    model, rows = RewardModel.create(tiny), encoded(tiny, 40)
    first, again, more = Seen(), Seen(), Seen()
    found = computed(model, rows + rows[::-1], tmp_path, first)
    assert first[-1] == len(rows) == 80
    assert torch.equal(found, torch.cat([found[:80], found[:80].flip(0)]))
    assert torch.equal(computed(model, rows[::-1], tmp_path, again), found[80:])
    assert again == []
    extra = Encoding(tiny).encode(prompt("new"), "answer")
    assert extra is not None
    computed(model, [*rows, extra], tmp_path, more)
    assert more == [81]


@pytest.mark.parametrize("kill_at", [1, CHUNK, 150])
def test_a_killed_extraction_goes_on(kill_at: int, tiny: Path, tmp_path: Path) -> None:
    model, rows = RewardModel.create(tiny), encoded(tiny, 100)
    undisturbed = computed(model, rows, tmp_path / "undisturbed", Seen())
    killed, again = Seen(kill_at), Seen()
    with pytest.raises(Killed):
        computed(model, rows, tmp_path / "killed", killed)
    found = computed(model, rows, tmp_path / "killed", again)
    assert torch.equal(found, undisturbed)
    assert again[0] > killed[-1] - CHUNK  # a kill loses less than a chunk
    assert (again[0] > CHUNK) == (kill_at >= CHUNK)
    assert again[-1] == 200


def test_another_backbone_pooling_or_precision_has_other_features(tiny: Path, tmp_path: Path) -> None:
    rows = encoded(tiny, 2)
    other = build_tiny_model(tmp_path / "other", seed=1)
    computed(RewardModel.create(tiny), rows, tmp_path / "cache", Seen())
    variants = [
        (RewardModel.create(other), {}),
        (RewardModel.create(tiny, pooling="mean"), {}),
        (RewardModel.create(tiny, layer=1), {}),
        (RewardModel.create(tiny), {"dtype": "bfloat16"}),
    ]
    for number, (model, options) in enumerate(variants, start=2):
        seen = Seen()
        computed(model, rows, tmp_path / "cache", seen, **options)
        assert seen[-1] == len(rows)
        assert len(list((tmp_path / "cache").iterdir())) == number
    seen = Seen()
    computed(RewardModel.create(tiny, head="mlp", seed=5), rows, tmp_path / "cache", seen)
    assert seen == []  # the head has no part in them


def test_a_chunk_cut_short_is_no_chunk(tiny: Path, tmp_path: Path) -> None:
    model, rows = RewardModel.create(tiny), encoded(tiny, 2)
    expected = computed(model, rows, tmp_path, Seen())
    [whole] = tmp_path.glob("*/*.safetensors")
    whole.rename(whole.with_suffix(".77.partial"))
    seen = Seen()
    assert torch.equal(computed(model, rows, tmp_path, seen), expected)
    assert seen[-1] == 4


def test_dropout_is_off_and_training_mode_comes_back(tiny: Path) -> None:
    model, rows = RewardModel.create(tiny), encoded(tiny, 3)
    for module in model.backbone.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    expected = computed(model, rows, None, Seen())
    model.train()
    assert torch.equal(computed(model, rows, None, Seen()), expected)
    assert model.training and model.backbone.training
