from fractions import Fraction

import pytest

from sparring.judges.maths import final_number, reference_number

ANSWERS = [
    ("The answer is 42.", "42"),
    ("She pays $1,200.00.", "1200"),
    ("That is 50%", "50"),
    ("48/2 = 24, so it is 24.0", "24"),
    ("#### 42\nChecked in 3 ways.", "42"),
    (r"So \boxed{\frac{1}{2}}, found in 3 steps", "0.5"),
    (r"It costs \$7", "7"),
    ("The area is 24 m2", "24"),
    ("x = -5", "-5"),
    ("x = \u22125", "-5"),
    ("10-3", "3"),
    ("1,234,567.5 in total", "1234567.5"),
    ("0.1 + 0.2 = 0.3", "0.3"),
]


@pytest.mark.parametrize(("text", "answer"), ANSWERS)
def test_the_last_number_is_the_final_answer(text: str, answer: str) -> None:
    assert final_number(text) == Fraction(answer)


@pytest.mark.parametrize("text", ["41", "42 or 43", "no idea", "-42", "0.42", "9" * 5000, "5/0"])
def test_another_final_answer_is_wrong(text: str) -> None:
    assert final_number(text) != 42


def test_a_reference_may_be_a_number_or_a_worked_solution() -> None:
    assert reference_number(72) == reference_number("72") == reference_number("48+24 = <<48+24=72>>72\n#### 72") == 72
    assert final_number("nothing") is None


@pytest.mark.parametrize("answer", ["Paris", "Route 66", "2 + 3", "", True, None, ["42"]])
def test_a_reference_that_is_no_number_is_refused(answer: object) -> None:
    with pytest.raises(ValueError, match="expected a number"):
        reference_number(answer)
