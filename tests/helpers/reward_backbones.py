"""Small models for the tests of reward models: an encoder built in code, and third parties' reward models."""

import json
from pathlib import Path
from typing import Any

import torch

from sparring.judges.reward.encoding import Encoded, Encoding, Read
from tests.helpers.tiny import CHATML, build_tiny_model

ALPHABET = "abcdefghijklmnopqrstuvwxyz?.!:"


def build_tiny_encoder(folder: Path, *, seed: int = 0, classifier: bool = False) -> Path:
    """A two-layer BERT whose WordPiece knows single letters; with `classifier`, one with a score of its own."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {t: i for i, t in enumerate([*special, *ALPHABET, *(f"##{c}" for c in ALPHABET)])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    marks = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **marks, model_input_names=inputs, model_max_length=128
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        num_labels=1,
        initializer_range=0.4,  # wide: opinions that differ from answer to answer
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = (BertForSequenceClassification if classifier else BertModel)(config)
    model.save_pretrained(folder)
    return folder


def build_foreign(folder: Path, *, pad: int | None, seed: int = 0, labels: int = 1) -> Path:
    """A LlamaForSequenceClassification as a third party saves it. 257 is the end token, 0 a letter."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    build_tiny_model(folder)
    config = LlamaConfig.from_pretrained(folder, num_labels=labels, pad_token_id=pad)
    model = LlamaForSequenceClassification.from_pretrained(folder, config=config)
    with torch.no_grad():
        model.score.weight.copy_(torch.randn(labels, 64, generator=torch.Generator().manual_seed(seed)))
    model.save_pretrained(folder)
    return folder


GEMMA = (
    "{% for m in messages %}<|im_start|>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)
BARE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% if not loop.last %}\n{% endif %}{% endfor %}"
TEMPLATES = {"chatml": CHATML, "gemma": GEMMA, "bare": BARE}  # the last writes nothing after an answer


def build_classifier(folder: Path, kind: str, template: str = "chatml", *, said: bool = True, **options: Any) -> Path:
    """A sequence classification with one label of an architecture; `said`: its config says so (else it means two)."""
    from transformers import AutoModelForSequenceClassification

    _build(AutoModelForSequenceClassification, folder, kind, pad_token_id=0, num_labels=1, **options)
    (folder / "chat_template.jinja").write_text(TEMPLATES[template])
    if not said:
        written = json.loads((folder / "config.json").read_text())
        for key in ("num_labels", "id2label", "label2id"):
            written.pop(key, None)
        (folder / "config.json").write_text(json.dumps(written))
    return folder


def build_language_model(folder: Path, kind: str, **options: Any) -> Path:
    """A causal language model of an architecture, on ChatML."""
    from transformers import AutoModelForCausalLM

    return _build(AutoModelForCausalLM, folder, kind, pad_token_id=257, **options)


def _build(auto: Any, folder: Path, kind: str, **options: Any) -> Path:
    from transformers import AutoConfig

    build_tiny_model(folder)
    sizes = {
        "vocab_size": 258, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "max_position_embeddings": 512, "bos_token_id": None, "eos_token_id": 257,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, **sizes | options)
        model = auto.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1 and "A_log" not in name:
                    parameter.normal_(0, 0.2)
    model.save_pretrained(folder)
    return folder


ANSWERS = ["yes", "no, never!", "it is so because it is so, and so on", "a", "what? i do not know that. sorry."]


def encoded(folder: Path, answers: list[str] = ANSWERS, read: Read = "end_of_turn") -> list[Encoded]:
    encoding = Encoding(folder, read=read)
    return [encoding.whole([{"role": "user", "content": f"is it {'so ' * i}?"}], a) for i, a in enumerate(answers)]
