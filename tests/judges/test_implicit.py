"""The implicit reward against a float64 forward pass of each answer by itself, without padding or batches."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from sparring.judges.implicit import ImplicitJudge
from sparring.loop.errors import ConfigError
from sparring.loop.learning.checkpoint import weights_sha256
from sparring.loop.tokens import Template
from sparring.loop.types import Completion, Group, Judgement, Prompt
from tests.helpers.tiny import build_tiny_model

TEXTS = ("Yes.", "No, I do not think so at all.", "Perhaps", "")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "other", seed=1)


def group(question: str = "Is it?", texts: Sequence[str] = TEXTS, **fields: object) -> Group:
    """Answers as a data set holds them: texts without tokens."""
    prompt = Prompt.make([{"role": "user", "content": question}], "train", "test", {})
    return Group(
        prompt,
        tuple(
            replace(
                Completion(
                    f"{prompt.id}/{k}", "run", 1, prompt.id, "", k, "dataset", text, (), (), "stop", 1.0, 1.0, 0
                ),
                **fields,
            )
            for k, text in enumerate(texts)
        ),
    )


def judged(judge: ImplicitJudge, *groups: Group) -> dict[str, Judgement]:
    return {j.completion_id: j for chunk in judge.judge(groups) for j in chunk}


def values(judge: ImplicitJudge, *groups: Group) -> list[float | None]:
    found = judged(judge, *groups)
    return [found[c.id].value for g in groups for c in g.completions]


def logprob(folder: Path, prompt: Prompt, tokens: Sequence[int]) -> float:
    """log P in float64, one answer a forward pass."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    ids = [*Template.of(str(folder)).prompt_ids(prompt.messages), *tokens]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    first = len(ids) - len(tokens)
    table = torch.log_softmax(logits, -1)
    return float(sum(table[first + k - 1, token] for k, token in enumerate(tokens)))


def spelled(folder: Path, text: str) -> list[int]:
    """Tokens of a text with the end token: one a byte with the tiny tokenizer."""
    tokenizer = Template.of(str(folder)).tokenizer
    return [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def closed_form(policy: Path, reference: Path, of: Group) -> Iterator[tuple[float, int]]:
    for c in of.completions:
        tokens = spelled(policy, c.text)
        yield logprob(policy, of.prompt, tokens) - logprob(reference, of.prompt, tokens), len(tokens)


def test_the_score_is_beta_times_the_log_ratio(tiny: Path, other: Path) -> None:
    judge = ImplicitJudge(policy=str(tiny), reference=str(other), beta=0.5)
    wanted = [0.5 * ratio for ratio, _ in closed_form(tiny, other, group())]
    assert max(map(abs, wanted)) > 1  # the models differ, so the score says something
    assert values(judge, group()) == pytest.approx(wanted, abs=2e-4)  # float32 sums of hundreds of nats


def test_length_normalised_divides_by_the_tokens(tiny: Path, other: Path) -> None:
    judge = ImplicitJudge(policy=str(tiny), reference=str(other), beta=0.5, length_normalised=True)
    ratios = list(closed_form(tiny, other, group()))
    assert [n for _, n in ratios] == [len(text) + 1 for text in TEXTS]
    assert values(judge, group()) == pytest.approx([0.5 * ratio / n for ratio, n in ratios], abs=1e-4)


def test_policy_and_reference_change_places_and_the_sign_changes(tiny: Path, other: Path) -> None:
    one = values(ImplicitJudge(policy=str(tiny), reference=str(other)), group())
    back = values(ImplicitJudge(policy=str(other), reference=str(tiny)), group())
    assert one == [-value for value in back if value is not None]


def test_a_policy_that_is_its_reference_prefers_nothing(tiny: Path) -> None:
    judge = ImplicitJudge(policy=str(tiny), reference=str(tiny), token_budget=64)
    assert values(judge, group(), group("Why?" * 9)) == [0.0] * 8


def test_neighbours_and_padding_change_no_score(tiny: Path, other: Path) -> None:
    short, long = group(texts=TEXTS[:2]), group("Tell me more of it. " * 8)
    alone = ImplicitJudge(policy=str(tiny), reference=str(other), token_budget=1)
    together = ImplicitJudge(policy=str(tiny), reference=str(other), token_budget=10_000)
    assert values(alone, short, long) == pytest.approx(values(together, short, long), abs=1e-5)
    assert alone.name == together.name


def test_sampled_tokens_are_taken_as_they_are_and_foreign_ones_are_not(tiny: Path, other: Path) -> None:
    judge = ImplicitJudge(policy=str(tiny), reference=str(other))
    (from_text,) = values(judge, group(texts=["Yes."]))
    sampled = spelled(tiny, "Yes.")
    assert values(judge, group(texts=["Yes."], token_ids=sampled)) == [from_text]
    assert values(judge, group(texts=["Yes."], token_ids=[5, 6, 7])) == [from_text]
    # An answer that was cut off has no end token; nor has one that a stop word ended, which its tokens alone tell.
    cut = values(judge, group(texts=["Yes."], token_ids=sampled[:-1], finish_reason="length"))
    assert cut != [from_text]
    assert values(judge, group(texts=["Yes."], finish_reason="length")) == cut
    assert values(judge, group(texts=["Yes."], token_ids=sampled[:-1])) == cut


def test_what_cannot_be_scored_is_no_answer(tiny: Path, other: Path) -> None:
    judge = ImplicitJudge(policy=str(tiny), reference=str(other))
    found = judged(judge, group(texts=["x" * 600, "fine"]))
    long, fine = found.values()
    assert long.value is None
    assert "512 positions" in long.rationale
    assert fine.value is not None
    (nothing,) = judged(judge, group(texts=[""], finish_reason="length")).values()
    assert nothing.value is None
    assert "no tokens" in nothing.rationale


def test_it_asks_only_what_is_missing(tiny: Path, other: Path) -> None:
    judge = ImplicitJudge(policy=str(tiny), reference=str(other))
    whole = group()
    known = judged(judge, whole)
    half = replace(whole, judged=tuple(known.values())[:3])
    assert judge.missing(half) == 1
    rest = judged(judge, half)
    assert {c: known[c].id for c in rest} == {c: j.id for c, j in rest.items()}
    assert {*rest} == {*known} - {j.completion_id for j in half.judged}
    assert list(judge.judge([replace(whole, judged=tuple(known.values()))])) == []


def test_the_name_tells_weights_and_options_apart(tiny: Path, other: Path) -> None:
    one, two = str(tiny), str(other)
    judges = [
        ImplicitJudge(policy=one, reference=two),
        ImplicitJudge(policy=two, reference=one),
        ImplicitJudge(policy=one, reference=two, beta=0.2),
        ImplicitJudge(policy=one, reference=two, length_normalised=True),
    ]
    assert len({judge.name for judge in judges}) == 4
    assert all(judge.name.startswith("implicit-") for judge in judges)
    assert judges[0].weights == (weights_sha256(tiny), weights_sha256(other)) == judges[1].weights[::-1]


@pytest.mark.parametrize("options", [{"beta": 0.0}, {"token_budget": 0}, {"dtype": "float16"}])
def test_an_option_out_of_range_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        ImplicitJudge(policy="a", reference="b", **options)  # type: ignore[arg-type]


def test_a_reference_of_another_family_is_refused(tiny: Path, tmp_path: Path) -> None:
    import json
    import shutil

    stranger = tmp_path / "stranger"
    shutil.copytree(tiny, stranger)
    tokenizer = json.loads((stranger / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    words["!"], words['"'] = words['"'], words["!"]
    (stranger / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ConfigError, match="different vocabularies"):
        judged(ImplicitJudge(policy=str(tiny), reference=str(stranger)), group())
