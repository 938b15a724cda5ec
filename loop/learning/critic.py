"""The value model of PPO, which predicts the score of an answer before each of its tokens."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sparring.loop.errors import DataError
from sparring.loop.learning.batches import Batch
from sparring.loop.learning.checkpoint import pretrained, weight_files
from sparring.loop.learning.forward import completion_hidden

FOLDER = "critic"  # below a checkpoint, because vLLM would read weights at its top
HEAD = "value_head.safetensors"


class Critic(nn.Module):
    """A causal language model without its output head, and a linear map of its hidden states to a value, in float32."""

    def __init__(self, backbone: Any, head: nn.Linear) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    @classmethod
    def start(cls, folder: Path, policy: Path, *, seed: int) -> "Critic":
        """A new critic from the model in `folder`: the policy, another model with its tokenizer, or a reward model.

        If a reward model computes its score from the last token by a linear map, this map becomes the head
        (2403.17031). Any other head is initialised: normal with std 1 / sqrt(d + 1), bias 0. Raises DataError for a
        model that is not causal, or that has other tokens than the policy in `policy`.
        """
        weight_files(folder)
        if folder != policy:
            _same_tokens(folder, policy)
        backbone = _load_backbone(folder)
        size = int(backbone.config.get_text_config().hidden_size)
        head = _empty_head(size)
        with torch.no_grad():
            head.weight.normal_(0, (size + 1) ** -0.5, generator=torch.Generator().manual_seed(seed))
            head.bias.zero_()
            for name, tensor in _score(folder, size).items():
                head.get_parameter(name).copy_(tensor)
        return cls(backbone, head).eval()

    @classmethod
    def load(cls, folder: Path) -> "Critic":
        """The critic that `save` wrote to `folder`. Raises DataError if there is none."""
        if not (folder / HEAD).exists():
            raise DataError(f"{folder} holds no critic: {HEAD} is missing; start one from the policy or a reward model")
        backbone = _load_backbone(folder)
        head = _empty_head(int(backbone.config.get_text_config().hidden_size))
        head.load_state_dict(load_file(folder / HEAD))
        return cls(backbone, head).eval()

    def save(self, folder: Path) -> None:
        """Write weights (safetensors) and config to a new `folder`, e.g. FOLDER below a checkpoint being written."""
        self.backbone.save_pretrained(folder)
        save_file({name: tensor.contiguous() for name, tensor in self.head.state_dict().items()}, folder / HEAD)


def token_values(critic: Critic, batch: Batch) -> Tensor:
    """(N,) float32: the value of the state before each completion token, in the units of the score."""
    read = completion_hidden(critic.backbone, batch).float()
    with torch.autocast(read.device.type, enabled=False):
        values: Tensor = critic.head(read)
    return values[:, 0]


def _load_backbone(folder: Path) -> Any:
    """The backbone in float32, dropout off. Raises DataError if it is not causal or if weights are missing."""
    from transformers import AutoConfig, AutoModel
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if config.model_type not in CAUSAL or config.model_type in MASKED:
        raise DataError(
            f"{folder} holds a {config.model_type}; expected a causal language model or a reward model based on one, "
            "because a critic must not look ahead. Set learn.critic to one"
        )
    model, missing = pretrained(AutoModel, folder, torch.float32, config=config)
    if model.can_generate():
        raise DataError(
            f"{folder} holds a {config.model_type}, which transformers has no class without an output head for; set "
            "learn.critic to another model with its tokenizer, such as its language model alone"
        )
    if missing:
        raise DataError(f"{folder} lacks {len(missing)} weights of its {config.model_type}, such as {missing[0]}")
    return model


def _empty_head(size: int) -> nn.Linear:
    """A head without values: torch would draw them from the global random state."""
    head: nn.Linear = nn.utils.skip_init(nn.Linear, size, 1)  # type: ignore[no-untyped-call]
    return head


def _score(folder: Path, size: int) -> dict[str, Tensor]:
    """The weight and bias of a reward model's map (1, size) of the last hidden state to a score; empty without one."""
    facts = folder / "reward.json"
    if facts.exists():
        reward = json.loads(facts.read_text(encoding="utf-8"))
        if reward["adapters"]:
            raise DataError(
                f"{folder} is a reward model with adapters; start the critic from one without adapters, or the policy"
            )
        if (reward["head"], reward["pooling"]) != ("linear", "last"):
            return {}
    score: dict[str, Tensor] = {}
    for path in weight_files(folder):
        with safe_open(path, "pt") as file:
            present = {"score.weight", "score.bias"} & set(file.keys())
            score |= {name.removeprefix("score."): file.get_tensor(name) for name in present}
    return score if score and score["weight"].shape == (1, size) else {}


def _same_tokens(folder: Path, policy: Path) -> None:
    from transformers import AutoTokenizer

    theirs, ours = (AutoTokenizer.from_pretrained(f, trust_remote_code=False).get_vocab() for f in (folder, policy))
    if strange := sorted(token for token, i in ours.items() if theirs.get(token) != i):
        raise DataError(
            f"{folder} has other tokens than the policy in {policy} ({len(strange)} differ, such as {strange[0]!r}); "
            "start the critic from a model with the policy's tokenizer"
        )
