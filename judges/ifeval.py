"""IFEval: the strict verdict on one verifiable instruction (Zhou et al. 2023, arXiv:2311.07911).

The checks are those of the package if-verifiable, but for three. Two of them want NLTK's Punkt data, which is a
download; here the same model comes with a package. The third counts a random letter when it is given a character that
is no letter; here that character is counted. What else the package leaves to chance is an error here, so every verdict
can be repeated.
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[str], bool]

_RELATIONS = ("less than", "at least")
_PATTERNS = {"keyword", "keywords", "forbidden_words", "section_spliter", "postscript_marker"}


def check_of(instruction_id: str, kwargs: Mapping[str, Any]) -> Check:
    """The strict check of an instruction. Entries of `kwargs` that are None count as absent, as they do upstream.

    Raises ValueError for an unknown instruction, and for arguments that are missing, unknown or out of range.
    """
    given = {key: value for key, value in kwargs.items() if value is not None}
    if instruction_id not in _registry():
        raise ValueError(f"instruction {instruction_id!r} is unknown; wanted one of {', '.join(sorted(_registry()))}")
    instruction = _registry()[instruction_id](instruction_id)
    try:
        instruction.build_description(**given)
        _refuse_chance(instruction.get_instruction_args_keys(), given)
        check = _OWN[instruction_id](given) if instruction_id in _OWN else instruction.check_following
        _compile_patterns(given)
    except (ValueError, TypeError, KeyError, re.error) as error:
        raise ValueError(f"kwargs of {instruction_id} are {given}: {error}") from error
    return functools.partial(_strict, check)


def _strict(check: Check, text: str) -> bool:
    try:
        return bool(text.strip() and check(text))
    except RecursionError:  # JSON nested deeper than the parser goes: not JSON that anyone can read
        return False


@functools.cache
def _registry() -> Mapping[str, Any]:
    # Imported here because it takes seconds: it loads nltk, langdetect and datasets.
    from if_verifiable.ifeval.instructions_registry import INSTRUCTION_DICT  # type: ignore[import-untyped]
    from langdetect import DetectorFactory  # type: ignore[import-untyped]

    DetectorFactory.seed = 0  # langdetect samples n-grams; without a seed a verdict may change from call to call
    return dict(INSTRUCTION_DICT)


def _refuse_chance(keys: list[str], given: Mapping[str, Any]) -> None:
    """The package replaces an argument that is missing or out of range by a random one: refuse it instead."""
    for key in keys:
        if key not in given or not _in_range(key, given[key]):
            raise ValueError(f"{key} is {given.get(key)!r}; wanted {_wanted(key)}")
    if given.get("nth_paragraph", 0) > given.get("num_paragraphs", 0):
        raise ValueError(f"nth_paragraph is {given['nth_paragraph']}; wanted at most num_paragraphs")


def _compile_patterns(given: Mapping[str, Any]) -> None:
    """The package searches for words as regular expressions: raise re.error here, not at the first completion."""
    for key in _PATTERNS & given.keys():
        for pattern in [given[key]] if isinstance(given[key], str) else given[key]:
            re.compile(pattern)


def _in_range(key: str, value: Any) -> bool:
    match _kind(key):
        case "count":
            return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= (key == "nth_paragraph")
        case "relation":
            return value in _RELATIONS
        case "words":
            return isinstance(value, list | tuple) and bool(value) and all(isinstance(w, str) and w for w in value)
        case "letter":
            return isinstance(value, str) and len(value) == 1
        case _:
            return isinstance(value, str) and bool(value.strip())


def _kind(key: str) -> str:
    if key.startswith(("num_", "nth_")) or key.endswith("frequency"):
        return "count"
    if key in ("keywords", "forbidden_words"):
        return "words"
    return "relation" if key.endswith("relation") else key


def _wanted(key: str) -> str:
    return {
        "count": "a number of at least 0 (nth_paragraph: 1)",
        "relation": f"one of {_RELATIONS}",
        "words": "a list of words",
        "letter": "a single character",
    }.get(_kind(key), "a text")


def _compare(count: int, relation: str, threshold: float) -> bool:
    return count < threshold if relation == "less than" else count >= threshold


def _sentences(text: str) -> list[str]:
    import punkt

    return list(punkt.sent_tokenize(text))


def _number_sentences(given: Mapping[str, Any]) -> Check:
    return lambda text: _compare(len(_sentences(text)), given["relation"], given["num_sentences"])


def _capital_word_frequency(given: Mapping[str, Any]) -> Check:
    return lambda text: _compare(_capital_words(text), given["capital_relation"], given["capital_frequency"])


def _capital_words(text: str) -> int:
    from nltk.tokenize import word_tokenize  # type: ignore[import-untyped]

    # What nltk.word_tokenize does, with the sentences of the other Punkt.
    words = (word for sentence in _sentences(text) for word in word_tokenize(sentence, preserve_line=True))
    return sum(word.isupper() for word in words)


def _letter_frequency(given: Mapping[str, Any]) -> Check:
    letter = given["letter"].lower()
    return lambda text: _compare(text.lower().count(letter), given["let_relation"], given["let_frequency"])


_OWN: Mapping[str, Callable[[Mapping[str, Any]], Check]] = {
    "length_constraints:number_sentences": _number_sentences,
    "change_case:capital_word_frequency": _capital_word_frequency,
    "keywords:letter_frequency": _letter_frequency,
}
