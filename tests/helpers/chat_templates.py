"""Chat templates in the ways in which those of well-known models differ, for the tiny tokenizer."""

from pathlib import Path

from tests.helpers.tiny import build_tiny_model

# As Llama's: today stands in the system turn, by `date_string` or by the clock.
DATED = (
    "{%- if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{{- 'Today is ' + date_string + '.\n' }}"
    "{%- for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As Gemma's: no system turn, turns alternate, and the end of a turn is not the tokenizer's end token.
STRICT = (
    "{%- if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{%- for message in messages %}{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content | trim + '<turn>\n' }}{% endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>model\n' }}{% endif %}"
)
# As Qwen3's: an argument closes the thought before the answer begins.
THINKING = (
    "{%- for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{%- endif %}"
)


def build_with(folder: Path, template: str, *, end: str = "<|im_end|>", tokens: tuple[str, ...] = ()) -> Path:
    """The tiny model with another chat template, end token, and further tokens (special ones, if they have a bar)."""
    from tokenizers import AddedToken
    from transformers import AutoModelForCausalLM, AutoTokenizer

    build_tiny_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken(t, special="|" in t or t == "<turn>", normalized=False) for t in tokens])
    tokenizer.chat_template, tokenizer.eos_token = template, end
    tokenizer.save_pretrained(folder)
    if len(tokenizer) > 258:
        model = AutoModelForCausalLM.from_pretrained(folder)
        model.resize_token_embeddings(len(tokenizer))
        model.save_pretrained(folder)
    return folder
