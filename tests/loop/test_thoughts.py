"""Thoughts apart from answers, in the forms in which models write them; and thoughts that were not closed."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparring.judges.rules import RulesJudge
from sparring.judges.verdicts import json_score
from sparring.loop.evaluator import RivalEvaluator
from sparring.loop.judgements import to_judge
from sparring.loop.pairing.pipeline import pairing
from sparring.loop.sampling.requests import parted
from sparring.loop.thoughts import MARKS, answer_of, marks_of, opens, split
from sparring.loop.tokens import Template
from sparring.loop.types import Experience, Group, Judgement, Pair, Prompt, PromptOutcome
from tests.helpers.chat_templates import THINKING, build_with
from tests.helpers.experience import ROUND, completion
from tests.helpers.tiny import CHATML

THINK = ("<think>", "</think>")


@pytest.mark.parametrize(
    ("text", "opened", "thought", "answer"),
    [
        ("4", False, None, "4"),
        ("<think>\n2 + 2\n</think>\n\n4", False, "2 + 2", "4"),
        ("\n<think></think>4", False, "", "4"),
        ("<think>2 + 2 is", False, "2 + 2 is", None),
        ("2 + 2</think>4", True, "2 + 2", "4"),
        ("2 + 2", True, "2 + 2", None),
        ("<think>2 + 2</think>4", True, "2 + 2", "4"),  # opened twice
        ("write <think> before </think> it", False, None, "write <think> before </think> it"),
        ("<think>a</think>b <think>c</think>", False, "a", "b <think>c</think>"),
    ],
)
def test_by_hand(text: str, opened: bool, thought: str | None, answer: str | None) -> None:
    assert split(text, THINK, opened=opened) == (thought, answer)


@given(st.text(), st.sampled_from(MARKS))
def test_a_text_without_a_mark_at_its_beginning_is_the_answer_as_it_is(text: str, marks: tuple[str, str]) -> None:
    if not text.lstrip().startswith(marks[0]):
        assert split(text, marks) == (None, text)


@given(st.text(), st.text(), st.sampled_from(MARKS), st.booleans())
def test_what_was_put_together_comes_apart(thought: str, answer: str, marks: tuple[str, str], opened: bool) -> None:
    thought, answer = thought.replace("<", "").replace("[", "").strip(), answer.lstrip()
    text = f"{'' if opened else marks[0]}{thought}{marks[1]}{answer}"
    assert split(text, marks, opened=opened) == (thought, answer)
    assert split(text.partition(marks[1])[0], marks, opened=opened) == (thought, None)


def test_whether_a_prompt_ends_inside_a_thought() -> None:
    assert opens("user\nhello\nassistant\n<think>\n", THINK)
    assert not opens("user\nwhat is <think>?\nassistant\n", THINK)
    assert not opens("assistant\n<think>\n\n</think>\n\n", THINK)


def test_a_model_has_the_marks_of_its_tokens_or_its_template() -> None:
    assert marks_of("no marks", ["<think>", "</think>"]) == THINK
    assert marks_of("a [THINK] b [/THINK]", []) == ("[THINK]", "[/THINK]")
    assert marks_of("only <think>", ["<|im_end|>"]) is None


@pytest.mark.parametrize("tokens", [("<think>", "</think>"), ()], ids=["tokens", "text"])
def test_of_sampled_tokens(tokens: tuple[str, ...], tmp_path: Path) -> None:
    template = Template.of(str(build_with(tmp_path, THINKING, tokens=tokens)))
    ids = template.tokenizer.encode("<think>12</think>\n7<|im_end|>", add_special_tokens=False)
    text = template.tokenizer.decode(ids, skip_special_tokens=True)
    assert template.parts(text, ids, template.prompt_ids([{"role": "user", "content": "x"}])) == ("12", "7")


def test_marks_that_decoding_drops(tmp_path: Path) -> None:
    """Special tokens are not in an engine's text: they are found among the ids."""
    marks = ("<|START_THINKING|>", "<|END_THINKING|>")
    template = Template.of(str(build_with(tmp_path, CHATML, tokens=marks)))
    ids = template.tokenizer.encode("<|START_THINKING|>12<|END_THINKING|>7<|im_end|>", add_special_tokens=False)
    text = template.tokenizer.decode(ids, skip_special_tokens=True)
    assert text == "127"
    assert template.parts(text, ids, []) == ("12", "7")
    assert template.parts("12", ids[:3], []) == ("12", None)


def test_a_model_that_does_not_think_keeps_its_text(tiny: Path) -> None:
    assert Template.of(str(tiny)).parts("<think>a</think> b", [1, 2], [3]) == (None, "<think>a</think> b")


PROMPT = Prompt("p", ({"role": "user", "content": "2 + 2?"},), meta={"answer": "4"})
# (text, thought) of each sample: a wrong thought before a right answer, the reverse, and a thought that was cut off
WRITTEN = [("4", "it is 5"), ("5", "it is 4"), ("", "it is 4, so")]


def experience(judged: bool = True) -> Experience:
    answers = tuple(replace(completion("p", i, text), thought=said) for i, (text, said) in enumerate(WRITTEN))
    found = Experience((Group(PROMPT, answers),), ())
    if not judged:
        return found
    rows = [row for chunk in RulesJudge().judge(to_judge(found, None, 0.5)) for row in chunk]
    return replace(found, judgements=tuple(rows))


def test_rules_read_the_answer_and_are_not_asked_without_one() -> None:
    judged: dict[str, Judgement] = {row.completion_id: row for row in experience().judgements}
    answers = experience().groups[0].completions
    assert [judged[c.id].value if c.id in judged else None for c in answers] == [1.0, 0.0, None]


@pytest.mark.parametrize("builder", ["best_worst", "all_margin", "gold", "group"])
def test_what_has_no_answer_is_never_learned_from(builder: str) -> None:
    records = pairing(builder)(ROUND, experience())
    cut = experience().groups[0].completions[2].id
    assert cut not in repr(records)
    if builder == "best_worst":
        (pair,) = (record for record in records if isinstance(record, Pair))
        assert (pair.chosen_id, pair.rejected_id) == tuple(c.id for c in experience().groups[0].completions[:2])


def test_a_prompt_without_any_answer_has_an_outcome() -> None:
    (group,) = experience().groups
    cut = replace(experience(), groups=(replace(group, completions=group.completions[2:]),), judgements=())
    (outcome,) = pairing("best_worst")(ROUND, cut)
    assert isinstance(outcome, PromptOutcome) and outcome.outcome == "abstained" and "thought" in outcome.reason


def test_a_held_out_completion_without_an_answer_has_not_passed_and_loses() -> None:
    """1 of 3 passes. Against one right answer: a tie, a loss, a loss. The mean is that of the two answers."""
    right = completion("p", 0, "4", "checkpoint_rival")
    rival = Experience((Group(PROMPT, (right,)),), ())
    rows = [row for chunk in RulesJudge().judge(to_judge(rival, None, 0.5)) for row in chunk]
    rival = replace(rival, judgements=tuple(rows))
    found = {e.metric: e for e in RivalEvaluator().evaluate(ROUND, experience(), rival, [])}
    assert (found["pass_rate"].value, found["pass_rate"].n) == (pytest.approx(1 / 3), 3)
    assert found["win_rate"].value == pytest.approx(1 / 6)
    assert (found["mean_score"].value, found["mean_score"].n) == (0.5, 2)
    assert found["unanswered"].value == pytest.approx(1 / 3)
    assert found["abstained"].value == 0.0  # the judge was not asked


def test_a_judge_that_thinks_is_read_after_its_thought() -> None:
    scale = (1, 10)
    assert json_score(scale, '<think>maybe {"score": 3}?</think>\n{"rationale": "good", "score": 8}').value == 8.0
    assert json_score(scale, 'maybe {"score": 3}?</think>{"rationale": "good", "score": 8}').value == 8.0
    cut = json_score(scale, '<think>{"rationale": "good", "score": 8}')
    assert cut.value is None and "not closed" in cut.note
    assert answer_of('{"rationale": "it says <think>", "score": 8}') == '{"rationale": "it says <think>", "score": 8}'


@pytest.mark.parametrize("builder", ["gold", "ranked"])
def test_another_answer_does_not_stand_in_for_the_policys(builder: str) -> None:
    """A reference's or dataset's answer beside thoughts that were not closed: the policy gave no answer."""
    (group,) = experience().groups
    other = replace(completion("p", 9, "4"), origin="dataset" if builder == "gold" else "reference")
    cut = replace(experience(), groups=(replace(group, completions=(group.completions[2], other)),), judgements=())
    (outcome,) = pairing(builder)(ROUND, cut)
    assert isinstance(outcome, PromptOutcome) and outcome.outcome == "abstained"


def test_a_given_answer_without_marks_is_an_answer(tmp_path: Path) -> None:
    """Also where the template opens a thought at the end of the prompt."""
    opening = THINKING.replace("{{ '<|im_start|>assistant\n' }}", "{{ '<|im_start|>assistant\\n<think>\n' }}")
    template = Template.of(str(build_with(tmp_path, opening, tokens=("<think>", "</think>"))))
    prompt = template.prompt_ids([{"role": "user", "content": "x"}])
    assert opens(template.tokenizer.decode(prompt), THINK)
    given = replace(completion("p", 0, "7"), token_ids=template.answer_ids("7"), origin="dataset")
    assert parted(given, template, prompt) == given
    sampled = parted(replace(given, origin="policy"), template, prompt)
    assert (sampled.thought, sampled.text, sampled.answered) == ("7", "", False)


def test_a_verdict_that_mentions_a_mark_is_read_as_it_is() -> None:
    assert json_score((1, 10), '{"rationale": "it forgot </think>", "score": 3}').value == 3.0
