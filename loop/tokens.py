"""The only place that applies a chat template, so that the sampler and the learner see the same prompt tokens."""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sparring.loop.errors import DataError
from sparring.loop.types import Message


class Template:
    """The tokenizer and chat template of a model folder."""

    def __init__(self, folder: str) -> None:
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        if self.tokenizer.chat_template is None:
            raise DataError(
                f"the tokenizer in {folder} has no chat template; expected an instruction-tuned model. Use one, or add "
                "a chat_template.jinja to the folder"
            )

    @staticmethod
    @lru_cache(maxsize=4)
    def of(folder: str) -> "Template":
        return Template(folder)

    def prompt_ids(self, messages: Sequence[Message] | str) -> list[int]:
        """Token ids of the conversation up to where the answer begins. A string is JSON, as the store keeps it."""
        rows = json.loads(messages) if isinstance(messages, str) else [dict(m) for m in messages]
        # The template writes its own special tokens: tokenising its text again would add a second BOS.
        ids: Any = self.tokenizer.apply_chat_template(rows, add_generation_prompt=True, return_dict=False)
        return [int(i) for i in ids]
