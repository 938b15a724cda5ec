"""A judge that follows rules: the share of a prompt's verifiable instructions that a completion meets.

The rules of a prompt are fields of its row: `instruction_id_list` with `kwargs` (IFEval), `answer` (maths), and
`regex`, `min_words`, `max_words`, `choice`. The last four are also options of the judge, for all prompts.
"""

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Literal, get_args

from sparring.judges.ifeval import check_of
from sparring.judges.maths import final_number, reference_number
from sparring.loop import traits
from sparring.loop.errors import ConfigError, DataError
from sparring.loop.judgements import Pointwise, unjudged
from sparring.loop.types import Completion, Group, Judgement, Prompt, digest, make_id

CHUNK = 256  # judgements per transaction

Rule = tuple[str, Callable[[str], bool]]  # its name, and whether a text meets it
Truncated = Literal["judge", "fail"]


def check_prompt(prompt: Prompt) -> None:
    """Raise DataError if a rule of the prompt is malformed. A prompt without rules passes."""
    rules_of(prompt)


@traits.judge(check_prompt=check_prompt)
class RulesJudge(Pointwise):
    """Scores each completion alone: value = instructions met / instructions, each by its strict verdict.

    A blank completion gets 0.0, because it follows no instruction. A prompt without any rule gets value None: no
    answer. `truncated` says whether a completion cut at max_tokens is judged as it is ("judge") or gets 0.0 ("fail").
    Raises ConfigError for an option out of range; `judge` raises DataError for a malformed rule of a prompt.
    """

    def __init__(
        self,
        *,
        regex: str | None = None,
        min_words: int | None = None,
        max_words: int | None = None,
        choice: Sequence[str] | None = None,
        truncated: Truncated = "judge",
    ) -> None:
        plain = {"regex": regex, "min_words": min_words, "max_words": max_words, "choice": choice}
        options = {key: value for key, value in plain.items() if value is not None}
        self.name, self._truncated = _name(options, truncated), truncated
        try:
            self._rules = _plain_rules(options)
        except ValueError as error:
            raise ConfigError(f"judge rules: {error}; change that option of the judge") from error

    def judge(self, groups: Sequence[Group]) -> Iterator[Sequence[Judgement]]:
        judgements = self._judgements(groups)
        while chunk := tuple(islice(judgements, CHUNK)):
            yield chunk

    def _judgements(self, groups: Sequence[Group]) -> Iterator[Judgement]:
        for group in groups:
            rules = [*rules_of(group.prompt), *self._rules]
            for completion in unjudged(group):
                row_id = make_id("judgement", judge=self.name, completion=completion.id)
                verdict = self._verdict(rules, completion)
                yield Judgement(row_id, self.name, completion.id, None, "", "", 0, *verdict)

    def _verdict(self, rules: Sequence[Rule], completion: Completion) -> tuple[float | None, str]:
        if not rules:
            return None, "no rule: the prompt has no instruction, answer or other rule, and the judge no option"
        if not completion.text.strip():
            return 0.0, "empty"
        if self._truncated == "fail" and completion.finish_reason == "length":
            return 0.0, "truncated"
        missed = [name for name, met in rules if not met(completion.text)]
        n_met = len(rules) - len(missed)
        return n_met / len(rules), f"{n_met}/{len(rules)}: missed {', '.join(missed)}" if missed else ""


def rules_of(prompt: Prompt) -> list[Rule]:
    """The prompt's own rules. Raises DataError with the prompt's id for a malformed one."""
    try:
        return [*_ifeval_rules(prompt.meta), *_maths_rules(prompt.meta), *_plain_rules(prompt.meta)]
    except ValueError as error:
        raise DataError(f"prompt {prompt.id}: {error}; correct the row in the prompt file") from error


def _name(plain: Mapping[str, Any], truncated: Truncated) -> str:
    """ "rules", or "rules-" and a digest of the options: other options make another judge."""
    if truncated not in get_args(Truncated):
        raise ConfigError(f"judge rules: truncated is {truncated!r}; expected one of {', '.join(get_args(Truncated))}")
    options = {**plain, **({"truncated": truncated} if truncated != "judge" else {})}
    return f"rules-{digest(options, 4)}" if options else "rules"


def _ifeval_rules(meta: Mapping[str, Any]) -> list[Rule]:
    ids: Any = meta.get("instruction_id_list")
    kwargs: Any = meta.get("kwargs")
    if ids is None and kwargs is None:
        return []
    if not _is_list(ids, str) or not _is_list(kwargs, Mapping) or len(ids) != len(kwargs):
        raise ValueError(
            f"instruction_id_list is {ids!r} and kwargs {kwargs!r}; expected two lists of one length, ids and mappings"
        )
    return [(key, check_of(key, arguments)) for key, arguments in zip(ids, kwargs, strict=True)]


def _is_list(value: Any, of: type) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, of) for item in value)


def _maths_rules(meta: Mapping[str, Any]) -> list[Rule]:
    if meta.get("answer") is None:
        return []
    reference = reference_number(meta["answer"])
    return [("answer", lambda text: final_number(text) == reference)]


def _plain_rules(values: Mapping[str, Any]) -> list[Rule]:
    """The rules from the options of the judge or the fields of a row. Raises ValueError if one is out of range."""
    rules = [(key, make(values[key])) for key, make in _PLAIN.items() if values.get(key) is not None]
    low, high = values.get("min_words"), values.get("max_words")
    if low is not None and high is not None and low > high:
        raise ValueError(f"min_words is {low} and max_words {high}; expected min_words <= max_words")
    return rules


def _regex(pattern: Any) -> Callable[[str], bool]:
    try:
        compiled = re.compile(pattern)
    except (TypeError, re.error) as error:
        raise ValueError(f"regex is {pattern!r}; expected a regular expression ({error})") from error
    return lambda text: compiled.search(text) is not None


def _word_limit(key: str, limit: Any) -> Callable[[str], bool]:
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
        raise ValueError(f"{key} is {limit!r}; expected a whole number of at least 0")
    return lambda text: _words(text) >= limit if key == "min_words" else _words(text) <= limit


def _words(text: str) -> int:
    return len(re.findall(r"\w+", text))  # as IFEval counts them


def _choice(options: Any) -> Callable[[str], bool]:
    if not _is_list(options, str) or not options:
        raise ValueError(f"choice is {options!r}; expected a list of texts, one of which is the whole answer")
    choices = {_bare(option) for option in options}
    return lambda text: _bare(text) in choices


def _bare(answer: str) -> str:
    """An answer without case, surrounding space and a closing mark."""
    return answer.strip().rstrip(".!").strip().casefold()


_PLAIN: Mapping[str, Callable[[Any], Callable[[str], bool]]] = {
    "regex": _regex,
    "min_words": functools.partial(_word_limit, "min_words"),
    "max_words": functools.partial(_word_limit, "max_words"),
    "choice": _choice,
}
