"""Learning a judge's rationales beside the pairs: RDPO, arXiv:2407.14477."""

import json
from collections.abc import Sequence

from sparring.loop.errors import DataError
from sparring.loop.learning.batches import Row
from sparring.loop.learning.training_rows import PairRows
from sparring.loop.tokens import Template

QUESTION = """{question}

Of two answers to this, the first is preferred.

Preferred answer:
{chosen}

Other answer:
{rejected}

Why is it the better one?"""
LONGEST = 256  # tokens of a rationale that are learned


def asking(template: Template, messages: str, about: str, **parts: str) -> list[int]:
    """The prompt with its last message, the `question`, set into the text `about` together with the parts."""
    *before, last = json.loads(messages)
    question = about.format(question=last["content"], **parts)
    return template.prompt_ids([*before, {"role": "user", "content": question}])


def answer_text(template: Template, tokens: Sequence[int], prompt: Sequence[int]) -> str:
    """The text of an answer's tokens, without its thought."""
    text = str(template.tokenizer.decode(tokens, skip_special_tokens=True))
    return template.parts(text, tokens, prompt).answer or text


def rationale_rows(data: PairRows, template: Template) -> list[Row | None]:
    """For each pair, the question why its chosen answer is better, with the judge's rationale as the completion.

    None for a pair without a rationale. Raises DataError if no pair of the round has one.
    """
    rows: list[Row | None] = []
    columns = (data.table[name].to_pylist() for name in ("messages", "token_ids", "rationale"))
    for row, messages, answers, rationale in zip(data.rows, *columns, strict=True):
        if not rationale:
            rows.append(None)
            continue
        chosen, rejected = (answer_text(template, tokens, row.prompt) for tokens in answers[:2])
        prompt = asking(template, messages, QUESTION, chosen=chosen, rejected=rejected)
        rows.append(Row(prompt, (template.answer_ids(rationale)[:LONGEST],)))
    if not any(rows):
        raise DataError(
            "no pair of the round has a rationale, which nll_rationale learns from; use a judge that compares two "
            "answers and gives reasons (judge.kind: llm), or remove the regulariser"
        )
    return rows
