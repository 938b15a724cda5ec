"""What an engine reads from a model folder: its kind, its positions, and its vocabulary."""

import hashlib
import json
from functools import lru_cache
from typing import Any

from sparring.loop.tokens import Template

LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
UNLIMITED = 1 << 30
INCIDENTAL = ("_name_or_path", "architectures", "dtype", "transformers_version")  # in a config


@lru_cache(maxsize=16)
def config_of(folder: str) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def text_config(folder: str) -> Any:
    """The config of the language model in `folder`, which a multimodal family nests in another."""
    return config_of(folder).get_text_config(decoder=True)


def text_class(folder: str) -> str | None:
    """The class of the language model that a multimodal family's folder holds; None if the folder is of one model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    text = text_config(folder)
    name = None if text is config_of(folder) else MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(text.model_type)
    return name if isinstance(name, str) else None


def positions(folder: str) -> int:
    """The most tokens that the model takes: UNLIMITED for one without positions, such as Mamba."""
    limits = (getattr(text_config(folder), name, None) for name in LIMITS)
    return next((int(limit) for limit in limits if limit), UNLIMITED)


@lru_cache(maxsize=16)
def unknown_ids(folder: str) -> tuple[int, ...]:
    """The ids that the model can give but its tokenizer cannot read, because the vocabulary is padded."""
    known = set(Template.of(folder).tokenizer.get_vocab().values())
    return tuple(i for i in range(text_config(folder).vocab_size) if i not in known)


@lru_cache(maxsize=16)
def kind(folder: str) -> str:
    """One hash for all folders whose weights fit one engine: of the language model's config and the vocabulary."""
    config = {key: value for key, value in text_config(folder).to_dict().items() if key not in INCIDENTAL}
    facts = [config, Template.of(folder).tokenizer.get_vocab()]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
