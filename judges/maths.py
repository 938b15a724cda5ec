r"""The final answer of a maths completion, compared exactly.

The final answer is the first number after the last `####` or `\boxed{`, else the last number of the text. `$`, `%` and
thousands separators carry no value, so "$1,200.00", "1200" and "1200." are one answer, as are 0.5, 1/2, \frac{1}{2}.
"""

import re
from fractions import Fraction

# A number inside a word is a name, not a quantity (the 2 of "m2"), and a minus after a digit is a subtraction.
_NUMBER = re.compile(
    r"(?:(?<!\w)-)?(?<![A-Za-z_\d])(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+|/0*[1-9]\d*)?|\.\d+)", re.ASCII
)
_FRAC = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")
_MARK = re.compile(r"####|\\boxed\s*\{")
_LONGEST = 1000  # characters; Python does not read integers beyond 4300 digits, and no reference is that long


def final_number(text: str) -> Fraction | None:
    """The final answer of `text`, or None if it holds no number."""
    plain = _plain(text)
    marks = list(_MARK.finditer(plain))
    if marks and (after := _NUMBER.search(plain, marks[-1].end())):
        return _fraction(after[0])
    numbers = _NUMBER.findall(plain)
    return _fraction(numbers[-1]) if numbers else None


def reference_number(answer: object) -> Fraction:
    """The number a reference stands for: 42, "42" or a worked solution that ends in "#### 42".

    Raises ValueError when `answer` is something else.
    """
    text = _plain(str(answer)).strip().rstrip(".%").strip()
    usable = isinstance(answer, int | float | str) and (_NUMBER.fullmatch(text) or _MARK.search(text))
    number = final_number(text) if usable else None
    if number is None:
        raise ValueError(f"answer is {answer!r}; expected a number such as '42', or a solution that ends in '#### 42'")
    return number


def _plain(text: str) -> str:
    """`text` without TeX spacing and dollar signs, and with a plain minus."""
    return _FRAC.sub(r"\1/\2", text).replace("\u2212", "-").replace("\\!", "").replace("\\$", "").replace("$", "")


def _fraction(number: str) -> Fraction | None:
    return Fraction(number.replace(",", "")) if len(number) <= _LONGEST else None
