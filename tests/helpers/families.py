"""Tiny models of multimodal families, of which we train the language model."""

from pathlib import Path
from typing import Any

import torch

from tests.helpers.tiny import build_tiny_model

_TEXT: dict[str, Any] = {
    "vocab_size": 258, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 32, "max_position_embeddings": 512, "bos_token_id": None,
    "eos_token_id": 257, "pad_token_id": 257, "tie_word_embeddings": True,
}  # fmt: skip
_VISION = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
_LINEAR = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4, "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
# transformers gives the whole of gemma3, and of the others their language model alone, under other names in llama4.
FAMILIES: dict[str, dict[str, Any]] = {
    "gemma3": {
        "text_config": {
            "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"], "query_pre_attn_scalar": 32
        },
        "vision_config": _VISION, "tie_word_embeddings": True, "mm_tokens_per_image": 4, "image_token_index": 3,
        "boi_token_index": 4, "eoi_token_index": 5,
    },
    "qwen3_5": {
        "text_config": _LINEAR, "tie_word_embeddings": True, "image_token_id": 3,
        "vision_config": {
            "hidden_size": 32, "depth": 1, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 64,
            "patch_size": 14, "num_position_embeddings": 16,
        },
    },
    "llama4": {
        "text_config": {
            "intermediate_size_mlp": 96, "num_local_experts": 2, "num_experts_per_tok": 1, "attention_chunk_size": 16,
            "interleave_moe_layer_step": 1, "tie_word_embeddings": False,
        },
        "vision_config": {
            **_VISION, "vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32,
            "pixel_shuffle_ratio": 0.5,
        },
    },
}  # fmt: skip


def build_family(folder: Path, family: str, *, shards: str | None = None) -> Path:
    """The whole random model of a family, with the byte tokenizer, in shards of a size."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    build_tiny_model(folder)
    for name in ("model.safetensors", "config.json", "generation_config.json"):
        (folder / name).unlink()
    special = {"eos_token_id": 257, "pad_token_id": 257}
    own = FAMILIES[family]
    config = AutoConfig.for_model(family, **own | {"text_config": _TEXT | own["text_config"]} | special)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.15)
    model.save_pretrained(folder, max_shard_size=shards or "50GB")
    return folder
