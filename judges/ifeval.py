"""IFEval: the strict verdict on one verifiable instruction (Zhou et al. 2023, arXiv:2311.07911).

The checks are those of the package if-verifiable, except for three. Two of them need NLTK's Punkt data, which is a
download; here the same model comes with a package. The third counts a random letter if its character is not a letter;
here that character is counted. Everything else that the package leaves to chance is an error here, so every verdict can
be repeated.
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[str], bool]

_RELATIONS = ("less than", "at least")
_PATTERNS = {"keyword", "keywords", "forbidden_words", "section_spliter", "postscript_marker"}


def check_of(instruction_id: str, kwargs: Mapping[str, Any]) -> Check:
    """The strict check of an instruction. Entries of `kwargs` that are None count as absent, as upstream.

    Raises ValueError for an unknown instruction, and for arguments that are missing, unknown or out of range.
    """
    arguments = {key: value for key, value in kwargs.items() if value is not None}
    if instruction_id not in _registry():
        raise ValueError(f"instruction {instruction_id!r} is unknown; expected one of {', '.join(sorted(_registry()))}")
    instruction = _registry()[instruction_id](instruction_id)
    try:
        instruction.build_description(**arguments)
        _refuse_chance(instruction.get_instruction_args_keys(), arguments)
        check = _OWN[instruction_id](arguments) if instruction_id in _OWN else instruction.check_following
        _compile_patterns(arguments)
    except (ValueError, TypeError, KeyError, re.error) as error:
        raise ValueError(f"kwargs of {instruction_id} are {arguments}: {error}") from error
    return functools.partial(_strict, check)


def _strict(check: Check, text: str) -> bool:
    try:
        return bool(text.strip() and check(text))
    except RecursionError:  # JSON nested deeper than the parser can read
        return False


@functools.cache
def _registry() -> Mapping[str, Any]:
    # Imported here because it takes seconds: it loads nltk, langdetect and datasets.
    from if_verifiable.ifeval.instructions_registry import INSTRUCTION_DICT  # type: ignore[import-untyped]
    from langdetect import DetectorFactory  # type: ignore[import-untyped]

    DetectorFactory.seed = 0  # langdetect samples n-grams; without a seed a verdict may change from call to call
    return dict(INSTRUCTION_DICT)


def _refuse_chance(keys: list[str], arguments: Mapping[str, Any]) -> None:
    """Raise ValueError for an argument missing or out of range, which the package would replace by a random one."""
    for key in keys:
        in_range, expected = _range(key)
        if key not in arguments or not in_range(arguments[key]):
            raise ValueError(f"{key} is {arguments.get(key)!r}; expected {expected}")
    if arguments.get("nth_paragraph", 0) > arguments.get("num_paragraphs", 0):
        raise ValueError(f"nth_paragraph is {arguments['nth_paragraph']}; expected at most num_paragraphs")


def _compile_patterns(arguments: Mapping[str, Any]) -> None:
    """Raise re.error now, not at the first completion: the package searches for words as regular expressions."""
    for key in _PATTERNS & arguments.keys():
        for pattern in [arguments[key]] if isinstance(arguments[key], str) else arguments[key]:
            re.compile(pattern)


def _is_words(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(w, str) and w for w in value)


def _range(key: str) -> tuple[Callable[[Any], bool], str]:
    """(whether a value is in the range of an argument, the range in words)."""
    if key.startswith(("num_", "nth_")) or key.endswith("frequency"):
        least, number = int(key == "nth_paragraph"), "a number of at least 0 (nth_paragraph: 1)"
        return lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and v >= least, number
    if key in ("keywords", "forbidden_words"):
        return _is_words, "a list of words"
    if key.endswith("relation"):
        return lambda v: v in _RELATIONS, f"one of {_RELATIONS}"
    if key == "letter":
        return lambda v: isinstance(v, str) and len(v) == 1, "a single character"
    return lambda v: isinstance(v, str) and bool(v.strip()), "a text"


def _compare(count: int, relation: str, threshold: float) -> bool:
    return count < threshold if relation == "less than" else count >= threshold


def _sentences(text: str) -> list[str]:
    import punkt

    return list(punkt.sent_tokenize(text))


def _number_sentences(arguments: Mapping[str, Any]) -> Check:
    return lambda text: _compare(len(_sentences(text)), arguments["relation"], arguments["num_sentences"])


def _capital_word_frequency(arguments: Mapping[str, Any]) -> Check:
    return lambda text: _compare(_capital_words(text), arguments["capital_relation"], arguments["capital_frequency"])


def _capital_words(text: str) -> int:
    from nltk.tokenize import word_tokenize  # type: ignore[import-untyped]

    # The same as nltk.word_tokenize, with the sentences of the other Punkt.
    words = (word for sentence in _sentences(text) for word in word_tokenize(sentence, preserve_line=True))
    return sum(word.isupper() for word in words)


def _letter_frequency(arguments: Mapping[str, Any]) -> Check:
    letter = arguments["letter"].lower()
    return lambda text: _compare(text.lower().count(letter), arguments["let_relation"], arguments["let_frequency"])


_OWN: Mapping[str, Callable[[Mapping[str, Any]], Check]] = {
    "length_constraints:number_sentences": _number_sentences,
    "change_case:capital_word_frequency": _capital_word_frequency,
    "keywords:letter_frequency": _letter_frequency,
}
