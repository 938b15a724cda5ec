"""The tiny model, taught to answer in a word or a few and then to stop: real text, of different lengths."""

from pathlib import Path

import torch

from sparring.loop.learning.batches import Row, collate
from sparring.loop.learning.checkpoint import load_model, save_model
from sparring.loop.learning.logprobs import token_logprobs
from sparring.loop.tokens import Template

SAID = ["yes", "no", "ok", "no no", "a b c", "oh", "ah so", "you do"]
STEPS = 20


def teach(tiny: Path, folder: Path, prompts: list[str], said: list[str] = SAID, steps: int = STEPS) -> Path:
    """Write a model to `folder` that answers each of `prompts` with one of `said`, or something like it."""
    model, template = load_model(tiny, torch.device("cpu")), Template.of(str(tiny))
    end = [template.tokenizer.eos_token_id]
    answers = tuple([*template.tokenizer.encode(text, add_special_tokens=False), *end] for text in said)
    batch = collate([Row(template.prompt_ids([{"role": "user", "content": p}]), answers) for p in prompts])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(steps):
        loss = -token_logprobs(model, batch).mean()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    save_model(model, tiny, folder)
    return folder
