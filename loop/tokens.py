"""The only place that applies a chat template, so that the sampler and the learner see the same prompt tokens."""

import datetime
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from sparring.loop.errors import ConfigError, DataError
from sparring.loop.thoughts import Parts, marks_of, opens, split, with_marks
from sparring.loop.types import Message

System = Literal["keep", "merge"]
TAIL = 16  # tokens at the end of a prompt in which its template may open a thought
PRIVATE = range(0xE000, 0xF8FF)  # characters without a meaning, one of which marks where a text is cut


class RefusedPrompt(DataError):
    """A conversation that the chat template does not take, or that cannot be written with it."""


@dataclass(frozen=True)
class Rendering:
    """How conversations become tokens: the same for all rounds of a run.

    `arguments`: those of the chat template, as JSON. `date`: what templates take for today, e.g. 2026-11-30; empty for
    today. `system`: merge puts a system turn at the beginning of the first user turn, for templates that refuse one.
    """

    arguments: str = "{}"
    date: str = ""
    system: System = "keep"

    @property
    def today(self) -> datetime.date:
        return datetime.date.fromisoformat(self.date) if self.date else datetime.datetime.now(datetime.UTC).date()


class Template:
    """The tokenizer and chat template of a model folder. Raises DataError for a folder without a chat template."""

    def __init__(self, folder: str, rendering: Rendering | None = None) -> None:
        from transformers import AutoTokenizer

        self.folder, self.rendering = folder, rendering or Rendering()
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        if self.tokenizer.chat_template is None:
            raise DataError(
                f"the tokenizer in {folder} has no chat template; expected an instruction-tuned model. Use one, or add "
                "a chat_template.jinja to the folder"
            )

    @staticmethod
    @lru_cache(maxsize=8)
    def of(folder: str, rendering: Rendering | None = None) -> "Template":
        return Template(folder, rendering)

    def prompt_ids(self, messages: Sequence[Message] | str) -> list[int]:
        """Token ids of the conversation up to where the answer begins. A string is JSON, as the store keeps it.

        Special tokens that are spelled out in a content stay plain text, so that nobody can write another's turn.
        Raises RefusedPrompt when the template does not take the conversation.
        """
        turns = json.loads(messages) if isinstance(messages, str) else [dict(m) for m in messages]
        if self.rendering.system == "merge":
            turns = merged(turns)
        if not any(self._spelled(turn).search(turn["content"]) for turn in turns):
            # The template writes its own special tokens: tokenising its text again would add a second BOS.
            return [int(i) for i in self._apply(turns, tokenize=True)]
        return self._as_text(turns)

    def answer_ids(self, text: str) -> list[int]:
        """Token ids of an answer that was given, with the token that ends it. Special tokens in it stay plain text."""
        return [*self._plain(text, self._special), self.end_of_answer]

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """The ids at which a sampled answer ends: the tokenizer's, and those that the model's folder names."""
        file = Path(self.folder, "generation_config.json")
        settings = json.loads((file if file.exists() else file.with_name("config.json")).read_text(encoding="utf-8"))
        named = settings.get("eos_token_id", settings.get("text_config", {}).get("eos_token_id"))
        ids = (self.tokenizer.eos_token_id, *(named if isinstance(named, list) else [named]))
        return frozenset(int(i) for i in ids if i is not None)

    def parts(self, text: str, token_ids: Sequence[int], prompt_ids: Sequence[int]) -> Parts:
        """The thought and the answer in a sampled text, which has no special tokens; a thought's marks may be some."""
        if self.marks is None:
            return Parts(None, text)
        return split(self._with_marks(text, token_ids), self.marks, opened=opens(self._tail(prompt_ids), self.marks))

    @cached_property
    def marks(self) -> tuple[str, str] | None:
        """What a thought of this model stands between; None if it does not think."""
        return marks_of(str(self.tokenizer.chat_template), (token.content for token in self._added))

    def _with_marks(self, text: str, token_ids: Sequence[int]) -> str:
        assert self.marks is not None
        special = {
            i: mark for mark in self.marks if self._special.fullmatch(mark) and (i := self._id(mark)) is not None
        }
        if not special:
            return text
        cuts = [k for k, token in enumerate(token_ids) if token in special]
        pieces = [token_ids[a:b] for a, b in zip([0, *(k + 1 for k in cuts)], [*cuts, len(token_ids)], strict=True)]
        texts = [str(self.tokenizer.decode(list(piece), skip_special_tokens=True)) for piece in pieces]
        return with_marks(texts, [special[token_ids[k]] for k in cuts])

    def _id(self, mark: str) -> int | None:
        found = self.tokenizer.convert_tokens_to_ids(mark)
        return None if found is None else int(found)

    def _tail(self, prompt_ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(prompt_ids[-TAIL:])))

    @cached_property
    def end_of_answer(self) -> int:
        """The id that ends an answer that was given: the one that the template writes after it, if answers end there.

        Raises DataError for a tokenizer without an end token.
        """
        asked = {"role": "user", "content": "a"}
        turns = [asked, {"role": "assistant", "content": "b"}]
        start = len(self._apply([asked], tokenize=True))
        after = self._apply(turns, tokenize=True, add_generation_prompt=False)[start:]
        end = next((i for i in after if i in self.end_ids), self.tokenizer.eos_token_id)
        if end is None:
            raise DataError(
                f"the tokenizer in {self.folder} has no end token (eos_token), and its generation_config.json names "
                "none; add one, or answers never end"
            )
        return int(end)

    def refuse_unknown_arguments(self) -> None:
        """Raise ConfigError for an argument that the template does not read."""
        given = json.loads(self.rendering.arguments)
        text = self.tokenizer.chat_template
        texts = text.values() if isinstance(text, Mapping) else [text]
        known = set().union(*map(_variables, texts))
        if strange := sorted(set(given) - known):
            rest = sorted(known - {"messages", "add_generation_prompt", "raise_exception", "strftime_now"})
            raise ConfigError(
                f"policy.template has {', '.join(strange)}, which the chat template in {self.folder} does not read; it "
                f"reads {', '.join(rest) or 'no argument'}"
            )

    def _apply(self, turns: Sequence[Message], *, tokenize: bool, add_generation_prompt: bool = True) -> Any:
        from jinja2 import TemplateError

        arguments = {"strftime_now": self._strftime_now} | json.loads(self.rendering.arguments)
        try:
            return self.tokenizer.apply_chat_template(
                list(turns),
                add_generation_prompt=add_generation_prompt,
                tokenize=tokenize,
                return_dict=False,
                **arguments,
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            roles = ", ".join(turn["role"] for turn in turns)
            raise RefusedPrompt(
                f"the chat template in {self.folder} refuses a conversation of the turns {roles}: {error}. Change the "
                "prompt, or set prompts.system: merge if it is the system turn"
            ) from error

    def _strftime_now(self, format: str) -> str:
        return self.rendering.today.strftime(format)

    def _as_text(self, turns: Sequence[Message]) -> list[int]:
        """Ids of a conversation in which special tokens are spelled out: cut within each, so that it stays text."""
        text = "".join(turn["content"] for turn in turns)
        cut = next(chr(c) for c in PRIVATE if chr(c) not in text)
        apart = [
            {**turn, "content": self._spelled(turn).sub(lambda mark: mark[0][0] + cut + mark[0][1:], turn["content"])}
            for turn in turns
        ]
        written: str = self._apply(apart, tokenize=False)
        ids = self._encode(written.split(cut))
        if "".join(self.tokenizer.decode(ids).split()) != "".join(written.replace(cut, "").split()):
            raise RefusedPrompt(
                f"the prompt spells out a special token of the tokenizer in {self.folder}, which cannot write it as "
                "plain text; take it out of the prompt"
            )
        return ids

    def _plain(self, text: str, marks: "re.Pattern[str]") -> list[int]:
        ends = [mark.start() + 1 for mark in marks.finditer(text)]
        return self._encode([text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)])

    def _encode(self, texts: Sequence[str]) -> list[int]:
        encode: Callable[..., list[int]] = self.tokenizer.encode
        return [int(i) for text in texts for i in encode(text, add_special_tokens=False)]

    def _spelled(self, turn: Message) -> "re.Pattern[str]":
        """What must stay text in a turn. Templates read marks such as </think> in an assistant's turn themselves."""
        return self._special if turn["role"] == "assistant" else self._written

    @cached_property
    def _special(self) -> "re.Pattern[str]":
        return _any_of(token.content for token in self._added if token.special)

    @cached_property
    def _written(self) -> "re.Pattern[str]":
        template = str(self.tokenizer.chat_template)
        return _any_of(token.content for token in self._added if token.special or token.content in template)

    @property
    def _added(self) -> list[Any]:
        return list(self.tokenizer.added_tokens_decoder.values())


def merged(turns: Sequence[Message]) -> list[Message]:
    """The turns with the text of a leading system turn before that of the first user turn."""
    first, *rest = turns
    if first["role"] != "system" or not rest or rest[0]["role"] != "user":
        return list(turns)
    return [{**rest[0], "content": f"{first['content']}\n\n{rest[0]['content']}"}, *rest[1:]]


def _any_of(marks: Any) -> "re.Pattern[str]":
    """A pattern of all marks, the longest first; of nothing where there is none. A single letter is no mark."""
    texts = sorted({mark for mark in marks if len(mark) > 1}, key=lambda mark: (-len(mark), mark))
    return re.compile("|".join(map(re.escape, texts)) or r"(?!)")


def _variables(template: str) -> set[str]:
    from jinja2 import meta
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(extensions=[loopcontrols])
    # transformers' own block for the assistant's tokens is read as plain text.
    plain = re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", template)
    return set(meta.find_undeclared_variables(environment.parse(plain)))
