"""The config of a reward model's training: strict, in YAML, beside the loop's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from sparring.flows.config import WithOptions, parse_model, read_yaml
from sparring.loop.errors import ConfigError
from sparring.loop.section import Section
from sparring.store import DEFAULT_PATH


class LabelConfig(WithOptions):
    kind: str = Field(description="strength, self_evolved or weak; its options stand beside it")


class RewardPairs(Section):
    train: str | None = Field(None, description="labelled pairs: a file, a saved dataset's folder or a hub dataset id")
    run: str | None = Field(None, description="or the pairs of this run in the store")
    eval: str | None = Field(None, description="held-out pairs, as train; when not given, a share of the prompts")
    held_out: float = Field(0.1, ge=0, lt=1, description="share of the prompts held out when eval is not given")
    unlabelled: str | None = Field(None, description="pairs whose labels are ignored; see labels")
    flip: float = Field(0.0, ge=0, lt=1, description="share of the training labels that are flipped, to study noise")


class RewardConfig(Section):
    """One reward model."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    store: str = DEFAULT_PATH
    seed: int = Field(0, ge=0)
    model: str = Field(description="the backbone: a folder, a hub id, or bundled/smollm2-135m-instruct")
    pairs: RewardPairs
    labels: LabelConfig | None = Field(None, description="how labels are corrected or made before training")
    train: dict[str, Any] = Field(
        default_factory=dict, description="options of RewardTraining, see docs/reward-models.md"
    )

    def shape(self, pairs_sha256: dict[str, str | None]) -> dict[str, Any]:
        """What shapes the weights: everything but where they are kept, pairs by content."""
        shape = self.model_dump(mode="json")
        del shape["store"]
        shape["pairs"] = {k: v for k, v in shape["pairs"].items() if k not in pairs_sha256} | pairs_sha256
        return shape


def read_reward_config(path: str | Path, overrides: Sequence[str] = ()) -> RewardConfig:
    config = parse_model(RewardConfig, read_yaml(path, overrides), str(path))
    if (config.pairs.train is None) == (config.pairs.run is None):
        raise ConfigError(
            f"{path}: pairs.train is {config.pairs.train!r} and pairs.run {config.pairs.run!r}; give one of them"
        )
    return config
