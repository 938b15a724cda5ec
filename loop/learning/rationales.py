"""A judge's reasons as something to learn: RDPO, arXiv:2407.14477."""

import json

from sparring.loop.errors import DataError
from sparring.loop.learning.batches import Row
from sparring.loop.learning.training_rows import TrainingRows
from sparring.loop.tokens import Template

ASKED = """{question}

Of two answers to this, the first is preferred.

Preferred answer:
{chosen}

Other answer:
{rejected}

Why is it the better one?"""
LONGEST = 256  # tokens of a rationale that are learned


def rationale_rows(data: TrainingRows, folder: str) -> list[Row | None]:
    """For each pair, the question why its chosen answer is better, and the judge's rationale as the completion.

    None where the judge gave none. Raises DataError where no pair of the round has one.
    """
    template = Template.of(folder)
    tokenizer = template.tokenizer
    found: list[Row | None] = []
    for messages, answers, rationale in zip(
        data.table["messages"].to_pylist(),
        data.table["token_ids"].to_pylist(),
        data.table["rationale"].to_pylist(),
        strict=True,
    ):
        if not rationale:
            found.append(None)
            continue
        *before, last = json.loads(messages)
        chosen, rejected = (tokenizer.decode(tokens, skip_special_tokens=True) for tokens in answers[:2])
        asked = ASKED.format(question=last["content"], chosen=chosen, rejected=rejected)
        prompt = template.prompt_ids([*before, {"role": "user", "content": asked}])
        tokens = [*tokenizer.encode(rationale, add_special_tokens=False), tokenizer.eos_token_id]
        found.append(Row(prompt, (tokens[:LONGEST],)))
    if not any(found):
        raise DataError(
            "no pair of the round has a rationale, and nll_rationale learns from nothing else; take a judge that gives "
            "reasons for comparing two answers (judge.kind: llm), or leave the regulariser out"
        )
    return found
