"""python -m sparring.doctor.probe FOLDER: write a tiny random model, and sample two tokens from it with vLLM."""

import sys
import time
from pathlib import Path

from sparring.loop.sampling.requests import Request
from sparring.loop.sampling.vllm_engine import Engine
from sparring.loop.types import Checkpoint

WORDS = {word: i for i, word in enumerate(["<end>", *map(str, range(255))])}


def write_model(folder: Path) -> None:
    """Write a Llama of two layers with one token per word."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="<end>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>").save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=128, bos_token_id=None, eos_token_id=0,
        pad_token_id=0, dtype="float32",
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)


def main(folder: Path) -> None:
    write_model(folder)
    began = time.monotonic()
    engine = Engine(context=128, max_seqs=4, gpu_memory=0.2)
    engine.load(Checkpoint("checkpoint_probe", "probe", str(folder), None, "probe"))
    started = time.monotonic()
    answers = engine.generate([Request([1, 2, 3], 1, 0, 1.0, 1.0, 2)])
    tokens = len(answers[0][0].token_ids)
    print(f"starts in {started - began:.0f} s, samples {tokens} tokens in {engine.dtype}", flush=True)
    engine.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
