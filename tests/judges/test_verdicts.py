"""A verdict is read where there is one, and nowhere else (pitfalls 37, 42)."""

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparring.judges.chat import KEPT, read, request
from sparring.judges.llm_client import Question
from sparring.judges.verdicts import (
    by_label,
    json_score,
    json_verdict,
    label_verdict,
    score_schema,
    unreadable,
    verdict_schema,
)

AB, ABT = ("A", "B"), ("A", "B", "tie")
WHOLE = '{"rationale": "B is wrong.", "verdict": "A"}'


def log(**p: float) -> dict[str, float]:
    return {label: math.log(value) for label, value in p.items()}


# Labels


@pytest.mark.parametrize(
    ("labels", "logprobs", "p"),
    [
        (("A", "B"), log(A=0.6, B=0.3), 0.6 / 0.9),
        (("A", "B"), log(A=0.01, B=0.97), 0.01 / 0.98),
        (("A", "B"), log(B=0.9), 0.0),  # A was not among the likely tokens
        (("A", "B", "C"), log(A=0.5, B=0.2, C=0.2), (0.5 + 0.1) / 0.9),
        (("A", "B", "C"), log(C=0.9), 0.5),
        (("B", "A"), log(A=0.6, B=0.3), 0.3 / 0.9),
        (("A", "B"), {"A": 0.0, "B": -math.inf}, 1.0),
        (("A", "B"), log(A=0.25, B=0.25), 0.5),
    ],
)
def test_labels_become_a_probability(labels: tuple[str, ...], logprobs: dict[str, float], p: float) -> None:
    assert label_verdict(labels, logprobs, "").value == pytest.approx(p)


@pytest.mark.parametrize(
    ("logprobs", "why"),
    [
        (log(A=0.3, B=0.1), "0.4 of the probability"),  # it says something else
        (log(C=0.9), "0 of the probability"),
        ({"A": -math.inf, "B": -math.inf}, "0 of the probability"),
        ({"A": math.nan, "B": -1.0}, "not log-probs"),
        ({"A": math.inf}, "not log-probs"),
        ({"A": 2.0, "B": -1.0}, "not log-probs"),  # logits, perhaps
        (log(A=0.9, B=0.9), "sum to 1.8"),
    ],
)
def test_labels_that_hold_no_verdict(logprobs: dict[str, float], why: str) -> None:
    verdict = label_verdict(AB, logprobs, "A")
    assert verdict.value is None and why in verdict.note


@pytest.mark.parametrize(("text", "p"), [("A", 1.0), (" B\n", 0.0), ("tie", 0.5)])
def test_without_log_probs_the_text_is_one_label(text: str, p: float) -> None:
    assert label_verdict(ABT, {}, text).value == p


@pytest.mark.parametrize(
    "text", ["", "a", "A.", "A B", "A or B", "Answer: A", "**A**", '"A"', "AB", "Tie", "C", "\u0410"]
)
def test_without_log_probs_any_other_text_is_none(text: str) -> None:  # the last one is Cyrillic
    assert label_verdict(ABT, {}, text).value is None
    assert unreadable(Question("j", "judge", (), labels=ABT), text, {})


def test_tokens_of_one_label_are_summed() -> None:
    summed = by_label([("A", math.log(0.2)), ("A", math.log(0.3)), ("B", -math.inf)])
    assert summed == {"A": pytest.approx(math.log(0.5)), "B": -math.inf}


# JSON

VERDICTS = {
    "bare": (WHOLE, 1.0),
    "other label": ('{"rationale": "", "verdict": "B"}', 0.0),
    "tie": ('{"rationale": "alike", "verdict": "tie"}', 0.5),
    "keys in another order": ('{"verdict": "B", "rationale": "x"}', 0.0),
    "laid out": (json.dumps(json.loads(WHOLE), indent=2) + "\n", 1.0),
    "prose before": (f"Both have merits, and A is right. {WHOLE}", 1.0),
    "prose around": (f"Sure!\n{WHOLE}\nI hope this helps.", 1.0),
    "fence": (f"```json\n{WHOLE}\n```", 1.0),
    "braces in a string": ('{"rationale": "it prints {\\"verdict\\": \\"B\\"}", "verdict": "A"}', 1.0),
    "escapes": ('{"rationale": "\\u0041 \\\\ \\"", "verdict": "\\u0042"}', 0.0),
}


@pytest.mark.parametrize(("text", "p"), VERDICTS.values(), ids=VERDICTS)
def test_a_whole_verdict_is_read(text: str, p: float) -> None:
    verdict = json_verdict(ABT, text)
    assert verdict.value == p
    assert verdict.note == json.loads(text[text.index("{") : text.rindex("}") + 1])["rationale"]


NO_VERDICTS = {
    "nothing": "",
    "refusal": "I'm sorry, but as an AI I cannot compare these answers.",
    "a label": "A",
    "both labels": "Both A and B are good.",
    "prose with a verdict": "The verdict is A.",
    "a string": '"A"',
    "two objects": WHOLE + '{"rationale": "", "verdict": "B"}',
    "the same twice": WHOLE + WHOLE,
    "another object before": '{"thought": 1} ' + WHOLE,
    "another object after": WHOLE + ' {"thought": 1}',
    "one inside another": '{"rationale": "x", "verdict": "A", "first": {"rationale": "y", "verdict": "B"}}',
    "one inside one that is cut": '{"steps": [{"rationale": "x", "verdict": "A"}, {"rationale": "y", "ver',
    "one after a cut one": '{"rationale": "x", "verd\n' + WHOLE,
    "a cut one after it": WHOLE + ' Wait: {"rationale": "no", "verdict": "B',
    "cut in the rationale": '{"rationale": "B is wro',
    "cut before the verdict": '{"rationale": "B is wrong.", "verdict": ',
    "cut after the label": '{"rationale": "B is wrong.", "verdict": "A"',
    "cut in the label": '{"rationale": "It is a tie or A", "verdict": "t',
    "label in a list": '{"rationale": "", "verdict": ["A"]}',
    "both in a list": '{"rationale": "", "verdict": ["A", "B"]}',
    "both in a string": '{"rationale": "", "verdict": "A and B"}',
    "lower case": '{"rationale": "", "verdict": "a"}',
    "with a word": '{"rationale": "", "verdict": "Answer A"}',
    "with space": '{"rationale": "", "verdict": " A"}',
    "null": '{"rationale": "", "verdict": null}',
    "a number": '{"rationale": "", "verdict": 1}',
    "true": '{"rationale": "", "verdict": true}',
    "the key twice": '{"rationale": "", "verdict": "A", "verdict": "B"}',
    "the key twice alike": '{"rationale": "", "verdict": "A", "verdict": "A"}',
    "another key": '{"rationale": "", "verdict": "A", "final_verdict": "B"}',
    "another name": '{"rationale": "", "winner": "A"}',
    "no rationale": '{"verdict": "A"}',
    "rationale is no text": '{"rationale": 1, "verdict": "A"}',
    "single quotes": "{'rationale': '', 'verdict': 'A'}",
    "a comma too many": '{"rationale": "", "verdict": "A",}',
    "a comment": '{"rationale": "", "verdict": "A" /* surely */}',
    "no quotes": "{rationale: , verdict: A}",
    "a raw line end": '{"rationale": "one\ntwo", "verdict": "A"}',
    "nan": '{"rationale": NaN, "verdict": "A"}',
    "taken back": WHOLE + "\nOn second thoughts B is better.",
    "called a tie": WHOLE + "\nIn fact it is a tie.",
    "a stray brace": "}" + WHOLE,
    "too deep": '{"rationale": ' + "[" * 100_000,
    "a list of it": '["verdict", "A"]',
    "yaml": "rationale: fine\nverdict: A",
    "xml": "<verdict>A</verdict>",
}


@pytest.mark.parametrize("text", NO_VERDICTS.values(), ids=NO_VERDICTS)
def test_anything_else_is_no_verdict_and_says_why(text: str) -> None:
    verdict = json_verdict(ABT, text)
    assert verdict.value is None and verdict.note
    assert len(verdict.note) < 500
    assert unreadable(Question("j", "judge", (), schema=verdict_schema(ABT)), text, {}) == verdict.note


def test_what_was_cut_anywhere_is_no_verdict() -> None:
    for text, _ in VERDICTS.values():
        for end in range(text.rindex("}")):
            assert json_verdict(ABT, text[:end]).value is None, text[:end]


def test_a_label_that_is_not_asked_for_is_none() -> None:
    assert json_verdict(AB, '{"rationale": "", "verdict": "tie"}').value is None
    assert json_verdict(("1", "2"), '{"rationale": "", "verdict": "2"}').value == 0.0


@pytest.mark.parametrize("score", [1, 7, 10])
def test_a_score_is_its_number(score: int) -> None:
    assert json_score((1, 10), f'{{"rationale": "fine", "score": {score}}}').value == score
    assert json_score((-5, 5), '{"rationale": "", "score": 0}').value == 0.0  # 0 is a score (pitfall 39)


@pytest.mark.parametrize(
    "score",
    [
        "0",
        "11",
        "-3",
        "7.0",
        "7.5",
        "1e1",
        '"7"',
        "null",
        "true",
        "[7]",
        "7/10",
        "NaN",
        "Infinity",
        "1e999",
        "9" * 5000,
    ],
)
def test_a_score_that_is_not_on_the_scale_is_none(score: str) -> None:
    verdict = json_score((1, 10), f'{{"rationale": "", "score": {score}}}')
    assert verdict.value is None and verdict.note


def test_half_a_character_can_be_stored() -> None:
    verdict = json_verdict(AB, '{"rationale": "half \\ud83d of it", "verdict": "A"}')
    assert verdict.value == 1.0 and verdict.note.encode()


PIECES = ["{", "}", '"', ":", ",", " ", "[", "]", "\\", "\n", "verdict", "rationale", "A", "B", "tie", "```json", WHOLE]
PIECES += ['"verdict": "A"', '"verdict": "B"', '"rationale": "x"', '{"rationale": "y", "verdict": "B"}', "true", "1"]


def verdicts_in(text: str) -> list[Any]:
    """Every object with a verdict that stands anywhere in the text, found by trying all its parts."""
    found = []
    for start in (i for i, c in enumerate(text) if c == "{"):
        for end in (i for i, c in enumerate(text) if c == "}"):
            try:
                value = json.loads(text[start : end + 1])
            except ValueError:
                continue
            if isinstance(value, dict) and "verdict" in value:
                found.append(value)
    return found


@settings(max_examples=800, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join) | st.text())
def test_random_text_gives_a_verdict_only_where_one_is(text: str) -> None:
    verdict = json_verdict(ABT, text)
    inside = verdicts_in(text)
    if verdict.value is not None:
        assert len(inside) == 1 and inside[0].keys() == {"rationale", "verdict"}
        assert {"A": 1.0, "B": 0.0, "tie": 0.5}[inside[0]["verdict"]] == verdict.value
    elif text.strip() == WHOLE:
        raise AssertionError("the plain verdict must be read")
    assert (label_verdict(ABT, {}, text).value is not None) == (text.strip() in ABT)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from("ABCX"), st.floats()))
def test_random_numbers_give_a_probability_or_nothing(logprobs: dict[str, float]) -> None:
    value = label_verdict(("A", "B", "C"), logprobs, "").value
    assert value is None or 0 <= value <= 1


# The protocol: a question as a request, a body as an answer

BY_LABEL = Question("j", "judge", ({"role": "user", "content": "?"},), labels=AB)
BY_SCHEMA = Question("j", "judge", ({"role": "user", "content": "?"},), schema=score_schema((1, 5)), max_tokens=64)


def body(text: Any = "A", tokens: Any = None, finish: str = "stop", **fields: Any) -> str:
    choice = {"message": {"content": text}, "logprobs": {"content": tokens}, "finish_reason": finish}
    return json.dumps({"choices": [choice], **fields})


def token(text: str, p: float, *top: tuple[str, float]) -> dict[str, Any]:
    listed = [{"token": t, "logprob": math.log(q)} for t, q in top]
    return {"token": text, "logprob": math.log(p), "top_logprobs": listed}


def test_requests_are_greedy_and_ask_for_the_form() -> None:
    asked = request(BY_LABEL, "m")
    assert asked["model"] == "m" and asked["messages"] == [{"role": "user", "content": "?"}]
    assert (asked["temperature"], asked["max_tokens"], asked["logprobs"], asked["top_logprobs"]) == (0, 1, True, 20)
    asked = request(BY_SCHEMA, "m")
    assert (asked["temperature"], asked["max_tokens"]) == (0, 64) and "logprobs" not in asked
    form = asked["response_format"]
    assert form["type"] == "json_schema" and form["json_schema"]["strict"] is True
    assert form["json_schema"]["schema"] == {
        "type": "object",
        "properties": {"rationale": {"type": "string"}, "score": {"type": "integer", "minimum": 1, "maximum": 5}},
        "required": ["rationale", "score"],
        "additionalProperties": False,
    }


def test_log_probs_are_the_first_tokens_summed_over_the_space_around_it() -> None:
    first = token("A", 0.5, ("A", 0.5), (" A", 0.1), ("A\n", 0.05), (" B", 0.2), ("a", 0.1), ("AB", 0.05))
    said = read(body("A", [first]), BY_LABEL)
    assert said.error == ""
    assert said.logprobs == {"A": pytest.approx(math.log(0.65)), "B": pytest.approx(math.log(0.2))}
    alone = read(body("A", [token("A", 0.9)]), BY_LABEL)  # a server that lists no others
    assert alone.logprobs == {"A": pytest.approx(math.log(0.9))}


UNREADABLE: Mapping[str, tuple[str, str]] = {
    "more tokens than one": (body("A or B", [token("A", 0.9, ("A", 0.9)), token(" or", 0.9)]), "more came"),
    "a text that is not its token": (body("A or B", [token("A", 0.9, ("A", 0.9))]), "more came"),
    "another token": (body("I", [token("I", 0.9, ("I", 0.9), ("The", 0.1))]), "no label"),
    "log-probs that are none": (body("A", [{"token": "A", "logprob": 3.5, "top_logprobs": []}]), "log-prob 3.5"),
    "log-probs that are text": (body("A", [{"token": "A", "logprob": "-1", "top_logprobs": []}]), "log-prob '-1'"),
    "nan": (body("A", [{"token": "A", "logprob": math.nan, "top_logprobs": []}]), "log-prob nan"),
    "no text": (body(None), "no text"),
    "a list": (body(["A"]), "no text"),
    "no choices": ('{"choices": []}', "no text"),
    "choices are text": ('{"choices": "A"}', "no text"),
    "not an object": ('"A"', "no text"),
    "an error with status 200": ('{"error": {"message": "overloaded"}}', "no text"),
    "cut": (body("A")[:-3], "cut or no JSON"),
    "html": ("<html>Bad gateway</html>", "cut or no JSON"),
    "empty": ("", "cut or no JSON"),
    "filtered": (body("A", finish="content_filter"), "content filter"),
    "refused": ('{"choices": [{"message": {"content": "A", "refusal": "I cannot."}}]}', "refused"),
    "both": (body("A and B"), "no label"),
    "too deep": ("[" * 100_000, "no JSON"),
}


@pytest.mark.parametrize(("text", "why"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_body_that_holds_no_answer_says_why(text: str, why: str) -> None:
    said = read(text, BY_LABEL)
    assert why in said.error and said.logprobs == {}
    assert said.text is not None and len(said.text) <= KEPT


def test_what_was_cut_at_the_limit_is_no_answer_though_it_looks_whole() -> None:
    whole = '{"rationale": "", "score": 3}'
    assert read(body(whole), BY_SCHEMA).error == ""
    assert "cut at 64 tokens" in read(body(whole, finish="length"), BY_SCHEMA).error
    assert read(body("A", finish="length"), BY_LABEL).error == ""  # one token is all that was asked for


def test_tokens_are_counted_where_the_server_says() -> None:
    said = read(body(usage={"prompt_tokens": 7, "completion_tokens": 1}), BY_LABEL)
    assert (said.prompt_tokens, said.completion_tokens) == (7, 1)
    for usage in (None, {}, {"prompt_tokens": "7"}, {"prompt_tokens": -1, "completion_tokens": True}):
        said = read(body(usage=usage), BY_LABEL)
        assert (said.prompt_tokens, said.completion_tokens) == (None, None)


KEYS = st.sampled_from(["choices", "message", "content", "logprobs", "token", "logprob", "top_logprobs", "usage"])
LEAVES = st.none() | st.booleans() | st.floats() | st.text()


@settings(max_examples=200, deadline=None)
@given(st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner)))
def test_no_body_breaks_the_reader(value: Any) -> None:
    assert read(json.dumps(value), BY_LABEL).error
