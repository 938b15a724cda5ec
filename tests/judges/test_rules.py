import json
from collections.abc import Mapping
from typing import Any, Literal

import pytest

from sparring.judges.ifeval import check_of
from sparring.judges.rules import CHUNK, RulesJudge, check_prompt
from sparring.loop.errors import ConfigError, DataError
from sparring.loop.types import Completion, Group, Judgement, Prompt
from tests.helpers.paths import DATA

GOLDEN = DATA / "verifier_ifeval_gpt4_verdicts.jsonl"


def group(meta: Mapping[str, Any], *texts: str, finish: Literal["stop", "length"] = "stop") -> Group:
    prompt = Prompt.make([{"role": "user", "content": "Say something."}], "train", "test", meta)
    return Group(prompt, tuple(completion(prompt.id, k, text, finish) for k, text in enumerate(texts)))


def completion(prompt_id: str, sample: int, text: str, finish: Literal["stop", "length"]) -> Completion:
    name = f"completion_{prompt_id}_{sample}"
    return Completion(name, "run", 1, prompt_id, "policy", sample, "policy", text, (), (), finish, 1.0, 1.0, 0)


def judged(judge: RulesJudge, *groups: Group) -> list[Judgement]:
    return [judgement for chunk in judge.judge(groups) for judgement in chunk]


def values(judge: RulesJudge, meta: Mapping[str, Any], *texts: str) -> list[float | None]:
    return [judgement.value for judgement in judged(judge, group(meta, *texts))]


def ifeval(*instructions: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {"instruction_id_list": [i for i, _ in instructions], "kwargs": [k for _, k in instructions]}


TWO = ifeval(("punctuation:no_comma", {}), ("startend:quotation", {}))

# instruction, its arguments, a text that meets it, one that does not
VERDICTS: list[tuple[str, dict[str, Any], str, str]] = [
    ("change_case:english_capital", {}, "THIS IS A NICE DAY FOR A WALK.", "This is a nice day for a walk."),
    ("change_case:english_lowercase", {}, "this is a nice day for a walk.", "This is a nice day for a walk."),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"}, "A BIG day", "A"),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "less than"}, "A", "A BIG day"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Why so?"}, "why so? Because.", "Because. Why so?"),
    ("combination:two_responses", {}, "One.\n******\nTwo.", "One.\n***\nTwo."),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "Dear [name] of [town],", "Dear [name],"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nP.S. Write soon.", "Bye. PS write soon."),
    ("detectable_format:constrained_response", {}, "My answer is yes.", "Yes."),
    ("detectable_format:json_format", {}, '```json\n{"answer": 1}\n```', 'Here: {"answer": 1}'),
    ("detectable_format:multiple_sections", {"section_spliter": "Section", "num_sections": 2},
     "Section 1\nA\nSection 2\nB", "Section 1\nA\nPart 2\nB"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a\n* b\n* c"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and *b*", "*a* and b"),
    ("detectable_format:title", {}, "<<My day>>\nIt was fine.", "<< >>\nIt was <fine>."),
    ("keywords:existence", {"keywords": ["sun", "sea"]}, "The Sun and the sea.", "The sun alone."),
    ("keywords:forbidden_words", {"forbidden_words": ["sun"]}, "A sunny day.", "The Sun shines."),
    ("keywords:frequency", {"keyword": "sun", "frequency": 2, "relation": "at least"}, "Sun, sun.", "Sun."),
    ("keywords:letter_frequency", {"letter": "e", "let_frequency": 2, "let_relation": "less than"}, "Send", "Seen"),
    ("keywords:letter_frequency", {"letter": "!", "let_frequency": 2, "let_relation": "at least"}, "Go! Go!", "Go! ee"),
    ("language:response_language", {"language": "fr"}, "Bonjour, je suis très content de vous voir ici.",
     "Hello, I am very happy to see you here."),
    ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "well"},
     "Well, it is.", "It is, well."),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n\nb"),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"},
     "Dr. Smith left. We stayed.", "Dr. Smith left."),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, "Two words.", "Now three words."),
    ("punctuation:no_comma", {}, "Yes and no.", "Yes, and no."),
    ("startend:end_checker", {"end_phrase": "The end."}, "So it was. The end. ", "The end. Or is it?"),
    ("startend:quotation", {}, ' "So it is." ', '"So" it is.'),
]  # fmt: skip


@pytest.mark.parametrize(("instruction", "kwargs", "good", "bad"), VERDICTS)
def test_each_instruction_has_its_strict_verdict(instruction: str, kwargs: dict[str, Any], good: str, bad: str) -> None:
    assert values(RulesJudge(), ifeval((instruction, kwargs)), good, bad) == [1.0, 0.0]


def test_value_is_the_share_of_instructions_met_and_the_rationale_names_the_rest() -> None:
    all_met, half, none = judged(RulesJudge(), group(TWO, '"Yes."', "Yes.", "Yes, sir."))
    assert (all_met.value, all_met.rationale) == (1.0, "")
    assert (half.value, half.rationale) == (0.5, "1/2: missed startend:quotation")
    assert (none.value, none.rationale) == (0.0, "0/2: missed punctuation:no_comma, startend:quotation")


def test_arguments_that_are_none_count_as_absent() -> None:
    assert values(RulesJudge(), ifeval(("punctuation:no_comma", {"num_words": None})), "Yes.") == [1.0]


def test_a_prompt_without_rules_gets_no_answer() -> None:
    (judgement,) = judged(RulesJudge(), group({"gold": "Hello."}, ""))
    assert judgement.value is None
    assert judgement.rationale.startswith("no rule")


def test_a_blank_completion_follows_nothing() -> None:
    (judgement,) = judged(RulesJudge(), group(ifeval(("punctuation:no_comma", {})), " \n"))
    assert (judgement.value, judgement.rationale) == (0.0, "empty")


def test_a_truncated_completion_is_judged_as_it_stands_unless_it_shall_fail() -> None:
    cut = group(ifeval(("punctuation:no_comma", {})), "Yes and", finish="length")
    assert judged(RulesJudge(), cut)[0].value == 1.0
    (failed,) = judged(RulesJudge(truncated="fail"), cut)
    assert (failed.value, failed.rationale) == (0.0, "truncated")


def test_json_nested_too_deep_to_read_is_not_json() -> None:
    assert values(RulesJudge(), ifeval(("detectable_format:json_format", {})), "[" * 200_000) == [0.0]


MALFORMED: list[tuple[dict[str, Any], str]] = [
    (ifeval(("punctuation:no_commas", {})), "punctuation:no_commas"),
    ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": []}, "one length"),
    ({"instruction_id_list": ["punctuation:no_comma"]}, "one length"),
    ({"instruction_id_list": "punctuation:no_comma", "kwargs": [{}]}, "two lists"),
    (ifeval(("length_constraints:number_words", {"num_words": 5})), "relation is None"),
    (ifeval(("length_constraints:number_words", {"num_words": -1, "relation": "at least"})), "num_words is -1"),
    (ifeval(("length_constraints:number_words", {"num_words": 5, "relation": "around"})), "around"),
    (ifeval(("punctuation:no_comma", {"num_words": 5})), "num_words"),
    (ifeval(("keywords:existence", {"keywords": ["a", "(c"]})), "missing )"),
    (ifeval(("keywords:existence", {"keywords": []})), "a list of words"),
    (ifeval(("language:response_language", {"language": "xx"})), "xx"),
    (ifeval(("length_constraints:nth_paragraph_first_word",
             {"num_paragraphs": 1, "nth_paragraph": 2, "first_word": "a"})), "nth_paragraph is 2"),
    ({"answer": "Paris"}, "Paris"),
    ({"answer": True}, "True"),
    ({"regex": "("}, "regular expression"),
    ({"min_words": "3"}, "whole number"),
    ({"min_words": 3, "max_words": 2}, "min_words <= max_words"),
    ({"choice": "yes"}, "list of texts"),
]  # fmt: skip


@pytest.mark.parametrize(("meta", "found"), MALFORMED)
def test_a_malformed_rule_is_refused_and_names_its_prompt(meta: dict[str, Any], found: str) -> None:
    malformed = group(meta, "Yes.")
    with pytest.raises(DataError) as refused:
        check_prompt(malformed.prompt)
    assert malformed.prompt.id in str(refused.value)
    assert found in str(refused.value)
    assert "correct the row" in str(refused.value)
    with pytest.raises(DataError):
        judged(RulesJudge(), malformed)


def test_a_maths_answer_is_right_or_wrong() -> None:
    right, wrong = judged(RulesJudge(), group({"answer": "1200"}, "She pays $1,200.00.", "She pays $12."))
    assert (right.value, right.rationale) == (1.0, "")
    assert (wrong.value, wrong.rationale) == (0.0, "0/1: missed answer")


def test_rules_of_a_row_and_options_of_the_judge_mean_the_same() -> None:
    texts = ("Yes.", "no", "maybe not today")
    for rule, expected in (
        ({"regex": "^[a-z]"}, [0.0, 1.0, 1.0]),
        ({"min_words": 2}, [0.0, 0.0, 1.0]),
        ({"max_words": 2}, [1.0, 1.0, 0.0]),
        ({"choice": ["yes", "No"]}, [1.0, 1.0, 0.0]),
    ):
        options: Any = rule
        assert values(RulesJudge(), rule, *texts) == values(RulesJudge(**options), {}, *texts) == expected


def test_options_are_further_instructions() -> None:
    assert values(RulesJudge(max_words=1), TWO, '"Yes sir."') == [2 / 3]


@pytest.mark.parametrize(
    "options",
    [{"regex": "("}, {"min_words": -1}, {"min_words": 2, "max_words": 1}, {"choice": []}, {"truncated": "keep"}],
)
def test_an_option_out_of_range_is_refused(options: Any) -> None:
    with pytest.raises(ConfigError, match="expected"):
        RulesJudge(**options)


def test_the_name_tells_judges_with_other_options_apart() -> None:
    assert RulesJudge().name == RulesJudge(truncated="judge").name == "rules"
    names = {RulesJudge(min_words=1).name, RulesJudge(min_words=2).name, RulesJudge(truncated="fail").name, "rules"}
    assert len(names) == 4
    assert all(name.startswith("rules") for name in names)


def test_judging_again_gives_the_same_records_in_bounded_chunks() -> None:
    groups = [group(ifeval(("change_case:english_lowercase", {})), *["ok then, fine: que sera"] * (CHUNK + 1))]
    chunks = list(RulesJudge().judge(groups))
    assert [len(chunk) for chunk in chunks] == [CHUNK, 1]
    assert list(RulesJudge().judge(groups)) == chunks
    assert len({judgement.value for chunk in chunks for judgement in chunk}) == 1
    assert len({judgement.id for chunk in chunks for judgement in chunk}) == CHUNK + 1


@pytest.mark.skipif(not GOLDEN.exists(), reason=f"no golden verdicts: {GOLDEN} (set SPARRING_TEST_DATA to its folder)")
def test_verdicts_agree_with_the_official_ones() -> None:
    rows = [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]
    checks = [
        (row["key"], instruction, check_of(instruction, kwargs)(row["response"]), official)
        for row in rows
        for instruction, kwargs, official in zip(row["instruction_id_list"], row["kwargs"], row["strict"], strict=True)
    ]
    assert len(checks) > 500
    assert [check for check in checks if check[2] != check[3]] == []
