"""A conversation and its answer as the token ids that a reward model scores, in the model's own template."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from sparring.loop.errors import ConfigError, DataError
from sparring.loop.types import Message

Read = Literal["template", "end_of_turn"]
# What a template that writes today's date gets, so that a score does not move overnight: the date in many of them.
TODAY = datetime.date(2024, 7, 26)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of a conversation with its answer. The answer is `ids[answer_start:]`, including what ends it."""

    ids: tuple[int, ...]
    answer_start: int

    def __len__(self) -> int:
        return len(self.ids)


class Encoding:
    """The tokenizer of a model folder, loaded when first used. `max_length` None: as many tokens as the model takes.

    With a chat template, the template writes the conversation. The score is read at the last of the ids: with `read`
    "end_of_turn" they end with the template's end-of-turn token, once, as models are trained here; with "template"
    with whatever it writes, such as a newline after that token, as most others train theirs. Without one, an encoder
    gets the pair (conversation, answer) as its tokenizer joins pairs, and a causal model gets lines "role: content" and
    the end token. A special token spelled out in a content is split ("<|im_end|>" -> "< |im_end|>"), so that an answer
    cannot end its turn and write another.
    """

    def __init__(self, folder: str | Path, max_length: int | None = None, read: Read = "end_of_turn") -> None:
        self._folder, self._max_length, self._read = Path(folder), max_length, read

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self._folder, trust_remote_code=False)

    @cached_property
    def max_length(self) -> int:
        """The most tokens of an encoding. Raises ConfigError if it is more than the model has positions for."""
        config = self._config
        positions = getattr(config.get_text_config(), "max_position_embeddings", None)
        limit = min(int(self.tokenizer.model_max_length), positions or 1 << 30)
        if self._max_length is not None and not 0 < self._max_length <= limit:
            raise ConfigError(
                f"max_length is {self._max_length}; expected 1 to {limit} tokens, as many as {self._folder} takes"
            )
        return self._max_length or limit

    def encode(self, messages: Sequence[Message], answer: str) -> Encoded | None:
        """The encoding, or None if it is longer than `max_length`: a cut would remove the last token, which is scored.

        Raises DataError if the chat template refuses the conversation.
        """
        encoded = self.whole(messages, answer)
        return encoded if len(encoded) <= self.max_length else None

    def whole(self, messages: Sequence[Message], answer: str) -> Encoded:
        """The encoding, whatever its length. Raises DataError if the chat template refuses the conversation."""
        rows = [{"role": m["role"], "content": self._quoted(m["content"])} for m in messages]
        answer = self._quoted(answer)
        if self.tokenizer.chat_template is not None:
            return self._chat(rows, answer)
        return self._pair(rows, answer) if self._encoder else self._plain(rows, answer)

    def _chat(self, rows: list[dict[str, str]], answer: str) -> Encoded:
        from jinja2 import TemplateError

        # The template writes its own special tokens: tokenising its text again would add a second BOS.
        try:
            before = self._apply(rows, add_generation_prompt=True)
            ids = self._apply([*rows, {"role": "assistant", "content": answer}], add_generation_prompt=False)
        except TemplateError as error:
            roles = [row["role"] for row in rows]
            raise DataError(
                f"the chat template in {self._folder} refuses a conversation of roles {roles}: {error}; give prompts "
                "that the model takes, or another model"
            ) from error
        start = _shared(before, ids)
        return Encoded(tuple(ids if self._read == "template" else self._ended(ids, start)), start)

    def _apply(self, turns: list[dict[str, str]], *, add_generation_prompt: bool) -> list[int]:
        ids: list[int] = self.tokenizer.apply_chat_template(
            turns, add_generation_prompt=add_generation_prompt, return_dict=False, strftime_now=TODAY.strftime
        )
        return ids

    def _pair(self, rows: list[dict[str, str]], answer: str) -> Encoded:
        prompt = rows[0]["content"] if len(rows) == 1 else "\n".join(_line(row) for row in rows)
        encoded = self.tokenizer(prompt, answer)
        second = [i for i, sequence in enumerate(encoded.sequence_ids()) if sequence == 1]
        # An answer without tokens is before the last separator.
        return Encoded(tuple(encoded["input_ids"]), second[0] if second else len(encoded["input_ids"]) - 1)

    def _plain(self, rows: list[dict[str, str]], answer: str) -> Encoded:
        before = "".join(_line(row) + "\n" for row in rows) + "assistant:"
        ids = self.tokenizer(f"{before} {answer}")["input_ids"]
        start = _shared(self._content(self.tokenizer(before)["input_ids"]), ids)
        return Encoded(tuple(self._ended(ids, start)), start)

    def _ended(self, ids: Sequence[int], start: int) -> list[int]:
        """Ids up to the mark that ends the answer's turn, once; or the end token if the template writes no mark.

        The contents hold no special token (see `_quoted`), so a special token after the answer is the template's.
        """
        marks = [i for i in range(start, len(ids)) if ids[i] in self._special]
        if not marks or self.tokenizer.decode(ids[marks[-1] + 1 :]).strip():
            return [*ids, self._eos]
        kept = list(ids[: marks[-1] + 1])
        while len(kept) > start + 1 and kept[-1] == kept[-2]:
            kept.pop()
        return kept

    def _content(self, ids: Sequence[int]) -> list[int]:
        """Ids without the special tokens that the tokenizer puts at the end."""
        trailing = len(list(takewhile(self._special.__contains__, reversed(ids))))
        return list(ids[: len(ids) - trailing])

    def _quoted(self, text: str) -> str:
        for mark in self._marks:
            text = text.replace(mark, f"{mark[0]} {mark[1:]}")
        return text

    @cached_property
    def _special(self) -> frozenset[int]:
        added = {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return frozenset(added | set(self.tokenizer.all_special_ids))

    @cached_property
    def _marks(self) -> list[str]:
        marks = {self.tokenizer.convert_ids_to_tokens(i) for i in self._special}
        return sorted((mark for mark in marks if len(mark) > 1), key=lambda mark: (-len(mark), mark))

    @cached_property
    def _eos(self) -> int:
        end = self.tokenizer.eos_token_id
        if end is None:
            raise DataError(
                f"the tokenizer in {self._folder} has no end token (eos_token) to read a score at; add one to its "
                "tokenizer_config.json"
            )
        return int(end)

    @cached_property
    def end(self) -> int:
        """The last token of an encoding, where the score is read."""
        return self.whole(_SPECIMENS[0], "b").ids[-1]

    @cached_property
    def ways(self) -> list[str]:
        """What shapes the ids besides the folder: that they go on after the end of the turn; that a date is written.

        Empty where they are as they always were, so that a judge of such a model keeps its name and its verdicts.
        """
        template = str(self.tokenizer.chat_template)
        ended = Encoding(self._folder, self._max_length)
        apart = any(self.whole(turns, "b").ids != ended.whole(turns, "b").ids for turns in _SPECIMENS)
        return [*(["template"] if apart else []), *([f"{TODAY}"] if "strftime_now" in template else [])]

    @cached_property
    def _config(self) -> Any:
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(self._folder, trust_remote_code=False)

    @cached_property
    def _encoder(self) -> bool:
        return is_encoder(self._config)


def is_encoder(config: Any) -> bool:
    """Whether a transformers config is of a bidirectional model such as BERT. Raises DataError for T5 and its kind."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    if getattr(config, "is_encoder_decoder", False):
        raise DataError(
            f"a {config.model_type} is an encoder with a decoder; expected a causal language model or an encoder"
        )
    return config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """The number of tokens that two sequences share from the start."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))))


def _line(row: dict[str, str]) -> str:
    return f"{row['role']}: {row['content']}"


_ASKED: Message = {"role": "user", "content": "a"}
_SPECIMENS: Sequence[Sequence[Message]] = ([_ASKED], [_ASKED, {"role": "assistant", "content": "b"}, _ASKED])
