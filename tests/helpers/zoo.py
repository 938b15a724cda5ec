"""Tiny models of many architectures, random but wide: every mask, window, scale or head that is ignored shows."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from tests.helpers.tiny import END, write_tokenizer

VOCABULARY = 258
WINDOW = 16  # tokens; the tests' rows are longer

_BASE: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": VOCABULARY - 1,
    "pad_token_id": VOCABULARY - 1,
    "tie_word_embeddings": True,
}
_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "num_local_experts": 4}
_MIXED = ["sliding_attention", "full_attention"]
_GPT = {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 512, "n_ctx": 512}
_MAMBA = {
    "mamba_n_heads": 4, "mamba_d_head": 32, "mamba_n_groups": 1, "mamba_d_state": 16, "mamba_d_conv": 4,
    "mamba_expand": 2, "mamba_chunk_size": 16,
}  # fmt: skip
_LINEAR = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4, "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
_LATENT = {
    "q_lora_rank": 32, "kv_lora_rank": 32, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 32,
    "n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2,
    "moe_intermediate_size": 48, "first_k_dense_replace": 1, "num_key_value_heads": 2, "head_dim": 16,
}  # fmt: skip

# What an architecture needs beyond (or instead of) the base; None drops a key that its config does not take.
ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": WINDOW},
    "qwen2": {},
    "qwen3": {},
    "qwen3_moe": {**_MOE, "decoder_sparse_step": 1, "mlp_only_layers": []},
    "qwen3_next": {**_MOE, **_LINEAR, "shared_expert_intermediate_size": 48},
    "qwen3_5_text": _LINEAR,
    "gemma": {"hidden_activation": "gelu_pytorch_tanh"},
    "gemma2": {
        "sliding_window": WINDOW, "layer_types": _MIXED, "query_pre_attn_scalar": 32, "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 5.0,
    },
    "gemma3_text": {"sliding_window": WINDOW, "layer_types": _MIXED, "query_pre_attn_scalar": 32},
    "gemma3": {"text_config": {"sliding_window": WINDOW, "layer_types": _MIXED, "query_pre_attn_scalar": 32}},
    "phi3": {"sliding_window": WINDOW},
    "granite": {
        "logits_scaling": 3.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.5, "attention_multiplier": 0.2
    },
    "granitemoehybrid": {
        **_MAMBA, **_MOE, "shared_intermediate_size": 96, "layer_types": ["mamba", "attention"], "logits_scaling": 3.0,
    },
    "cohere": {"logit_scale": 0.3},
    "cohere2": {"logit_scale": 0.3, "sliding_window": WINDOW, "layer_types": _MIXED},
    "olmo2": {},
    "olmo3": {"sliding_window": WINDOW, "layer_types": _MIXED},
    "falcon_h1": {**_MAMBA, "mamba_d_ssm": 128, "lm_head_multiplier": 0.4, "embedding_multiplier": 2.0},
    "lfm2": {
        "layer_types": ["conv", "full_attention"], "conv_L_cache": 3, "block_multiple_of": 16, "block_dim": 64,
        "block_ff_dim": 96, "block_auto_adjust_ff_dim": False, "head_dim": None,
    },
    "bamba": {**_MAMBA, "attn_layer_indices": [1]},
    "jamba": {
        "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
        "num_experts": 4, "num_experts_per_tok": 2, "mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2,
        "mamba_dt_rank": 4, "use_mamba_kernels": False,
    },
    "nemotron_h": {
        "layers_block_type": ["mamba", "attention", "mlp"], "num_hidden_layers": 3, "mamba_num_heads": 4,
        "mamba_head_dim": 32, "n_groups": 1, "ssm_state_size": 16, "chunk_size": 16, "use_mamba_kernels": False,
    },
    "recurrent_gemma": {
        "block_types": ["recurrent", "attention"], "attention_window_size": WINDOW, "lru_width": 64,
        "logits_soft_cap": 5.0, "num_hidden_layers": 2,
    },
    "gpt2": _GPT,
    "gpt_neo": {
        "num_layers": 2, "num_heads": 2, "window_size": WINDOW, "attention_types": [[["global", "local"], 1]],
        "hidden_size": 64,
    },
    "gpt_neox": {"rotary_pct": 0.5, "num_key_value_heads": None, "tie_word_embeddings": False},
    "gptj": {**_GPT, "rotary_dim": 16, "tie_word_embeddings": False},
    "gpt_bigcode": _GPT,
    "gpt_oss": {**_MOE, "sliding_window": WINDOW, "layer_types": _MIXED},
    "mamba": {"state_size": 8, "num_hidden_layers": 2, "use_mambapy": False},
    "mamba2": {
        "num_heads": 4, "head_dim": 32, "n_groups": 1, "state_size": 16, "chunk_size": 16, "expand": 2,
        "intermediate_size": 128,
    },
    "falcon_mamba": {"state_size": 8},
    "smollm3": {"no_rope_layers": [1, 0], "no_rope_layer_interval": 2},
    "mixtral": {**_MOE, "sliding_window": None},
    "deepseek_v2": {**_LATENT, "topk_method": "greedy"},
    "deepseek_v3": _LATENT,
    "glm": {"partial_rotary_factor": 0.5},
    "glm4": {"partial_rotary_factor": 0.5},
    "exaone4": {"sliding_window": WINDOW, "layer_types": _MIXED},
    "starcoder2": {"sliding_window": WINDOW},
    "stablelm": {"partial_rotary_factor": 0.5},
    "phi": {"partial_rotary_factor": 0.5, "tie_word_embeddings": False},
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64, "num_key_value_heads": None, "head_dim": None},
    "bloom": {"n_layer": 2, "n_head": 2},
    "mpt": {"d_model": 64, "n_heads": 2, "n_layers": 2, "max_seq_len": 512},
    "falcon": {"alibi": False, "new_decoder_architecture": False, "multi_query": True, "head_dim": None},
    "nemotron": {},
    "olmo": {},
    "olmoe": {**_MOE, "num_key_value_heads": 2},
    "ernie4_5": {},
    "seed_oss": {},
    "llama4_text": {
        **_MOE, "attention_chunk_size": WINDOW, "intermediate_size_mlp": 96, "interleave_moe_layer_step": 1,
        "layer_types": ["chunked_attention", "full_attention"], "no_rope_layers": [1, 0], "num_experts_per_tok": 1,
    },
    "zamba2": {
        **_MAMBA, "layers_block_type": ["mamba", "hybrid"], "use_mem_rope": False, "num_mem_blocks": 1,
        "n_mamba_heads": 4, "mamba_ngroups": 1, "chunk_size": 16, "num_key_value_heads": 2, "attention_head_dim": 64,
        "use_conv_bias": True, "mamba_headdim": 32,
    },
}  # fmt: skip


def config_of(name: str) -> Any:
    """The tiny config of an architecture, as transformers' own class."""
    from transformers import AutoConfig

    own = dict(ARCHITECTURES[name])
    if "text_config" in own:
        text = {k: v for k, v in {**_BASE, **own.pop("text_config")}.items() if v is not None}
        special = {"eos_token_id": VOCABULARY - 1, "pad_token_id": VOCABULARY - 1, "tie_word_embeddings": True}
        return AutoConfig.for_model(name, text_config=text, vision_config=_VISION, **special, **_IMAGES)
    settings = {k: v for k, v in {**_BASE, **own}.items() if v is not None}
    return AutoConfig.for_model(name, **settings)


_VISION = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
_IMAGES = {"mm_tokens_per_image": 4, "image_token_index": 3, "boi_token_index": 4, "eoi_token_index": 5}


def make(folder: Path, name: str, *, seed: int = 0) -> Path:
    """Write a tiny random model of an architecture with the byte tokenizer to `folder`; one seed gives the same."""
    from transformers import AutoModelForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(folder)
    assert vocabulary[END] == VOCABULARY - 1
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config_of(name), dtype=torch.float32)
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                if parameter.dim() > 1 and "A_log" not in parameter_name:
                    parameter.normal_(0, 0.15)
                elif parameter_name.endswith("bias"):
                    parameter.normal_(0, 0.05)
                elif "norm" in parameter_name:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder


Maker = Callable[[str], Path]
