"""Transformers models loaded from their folders: backbones and third-party reward models."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparring.judges.reward.encoding import is_encoder
from sparring.judges.reward.found_heads import labels, some, value_head
from sparring.judges.reward.tensors import answer_logprobs
from sparring.loop.errors import ConfigError, DataError
from sparring.loop.learning.checkpoint import pretrained, weight_files

CLASSIFIER = "ForSequenceClassification"


class Classifier(nn.Module):
    """A model that scores by its own forward, such as an encoder whose head is more than a linear map of one token."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, **batch: Tensor) -> Tensor:
        logits: Tensor = self.model(**batch).logits
        return logits


def read_config(folder: Path) -> Any:
    """The config of a model folder. Raises DataError without safetensors, or if it is neither causal nor an encoder."""
    from transformers import AutoConfig

    weight_files(folder)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    is_encoder(config)
    return config


def load_backbone(
    folder: Path, *, layer: int = -1, dtype: torch.dtype = torch.float32, lm_head: bool = False
) -> tuple[Any, nn.Module | None]:
    """(backbone, its language-model head if `lm_head`), in evaluation mode.

    `layer` is the number of blocks to keep: -1 is all, -2 all but the last. The backbone ends there with its own final
    norm, and is saved like that. Raises ConfigError for a layer that does not exist, and for a language-model head that
    is more than a linear map and a soft cap; DataError for missing weights.
    """
    from transformers import AutoModel, AutoModelForCausalLM

    config = read_config(folder)
    _keep_blocks(config, layer)
    model = _load(AutoModelForCausalLM if lm_head else AutoModel, folder, config, dtype)
    if not lm_head:
        return model, None
    _refuse_scaled(model)
    return model.base_model, model.get_output_embeddings()


def load_foreign(folder: Path, dtype: torch.dtype) -> tuple[Any, Tensor | None, Tensor | None]:
    """A third party's reward model: (backbone, weight (1, D), bias or None) of a head that reads the last token.

    (Classifier, None, None) if the model has another kind of head. How many scores a head has is what its weights say,
    because a config that says nothing means two. Raises DataError for a model with more than one score, or none.
    """
    from transformers import AutoModelForSequenceClassification

    config = read_config(folder)
    if not classifies(config):
        weight, bias = value_head(folder, config)
        return load_backbone(folder, dtype=dtype)[0], weight, bias
    config.num_labels = labels(folder, config)
    if config.num_labels != 1:
        raise DataError(f"{folder} is a classifier of {config.num_labels} labels; expected a reward model with one")
    model = _load(AutoModelForSequenceClassification, folder, config, dtype)
    score = getattr(model, "score", None)
    if is_encoder(config) or not isinstance(score, nn.Linear):
        return Classifier(model), None, None
    return model.base_model, score.weight.detach(), None if score.bias is None else score.bias.detach()


def classifies(config: Any) -> bool:
    """Whether the folder of this config holds one of transformers' sequence classifications."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as KNOWN

    return config.model_type in KNOWN and any(name.endswith(CLASSIFIER) for name in config.architectures or ())


def width(config: Any) -> int:
    """The size of a backbone's hidden states; in a multimodal family, those of its language model."""
    return int(config.get_text_config().hidden_size)


def as_classification(backbone: Any, score: nn.Linear) -> Any | None:
    """The transformers sequence classification of a backbone and a map to a scalar; None if there is no such class."""
    from transformers import AutoModelForSequenceClassification
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as KNOWN

    config = backbone.config
    if config.model_type not in KNOWN:
        return None
    with torch.device("meta"):  # its weights are replaced below
        config = type(config).from_dict(config.to_dict() | {"id2label": {0: "reward"}})
        model = AutoModelForSequenceClassification.from_config(config)
    if not isinstance(getattr(model, "score", None), nn.Linear):
        return None
    setattr(model, model.base_model_prefix, backbone)
    model.score = score
    return model


def _load(auto: Any, folder: Path, config: Any, dtype: torch.dtype) -> Any:
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None
    attention = {"attn_implementation": "eager"} if capped else {}  # the fast ones leave a cap on scores out
    model, lacking = pretrained(auto, folder, dtype, config=config, **attention)
    # The pooler of a plain backbone is not used; that of a classifier is.
    scores = type(model).__name__.endswith(CLASSIFIER)
    if missing := [name for name in lacking if scores or "pooler" not in name]:
        raise DataError(
            f"{folder} lacks weights of a {type(model).__name__}: {some(missing)}; give the folder of a model that "
            "was trained as one"
        )
    return model


def _refuse_scaled(model: Any) -> None:
    """Raise ConfigError unless `answer_logprobs` computes the model's own log-probs, which Granite and others scale."""
    text = model.config.get_text_config()
    ids = torch.arange(7, 15)[None] % int(text.vocab_size)
    with torch.no_grad():
        own = model(input_ids=ids, use_cache=False).logits[:, :-1].float().log_softmax(-1)
        tokens = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        cap = getattr(text, "final_logit_softcapping", None)
        ours = answer_logprobs(model.get_output_embeddings(), tokens, ids, torch.ones_like(ids), cap)
    wanted = own.gather(2, ids[:, 1:, None]).sum()
    if not torch.isclose(ours[0], wanted, rtol=1e-3, atol=1e-3 * ids.shape[1]):
        raise ConfigError(
            f"sft is not supported for a {text.model_type}: its log-probs are not those of its output head alone "
            f"({ours.item():.4g} instead of {wanted.item():.4g}); set sft: 0, or choose another backbone"
        )


def _keep_blocks(config: Any, layer: int) -> None:
    text = config.get_text_config()
    blocks = int(text.num_hidden_layers)
    kept = layer if layer > 0 else blocks + 1 + layer
    if not 1 <= kept <= blocks:
        raise ConfigError(f"layer is {layer}; the model has {blocks} blocks: give 1 to {blocks}, or -1 to {-blocks}")
    if kept == blocks:
        return
    text.num_hidden_layers = kept
    if getattr(text, "layer_types", None) is not None:
        with suppress(AttributeError):  # of some models it is computed from the number
            text.layer_types = text.layer_types[:kept]
