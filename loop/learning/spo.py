"""How much of an answer is missing, as something to learn: SPO, arXiv:2409.17791.

The paper removes key content from an answer to several degrees, and has a self-supervised module predict the degree
beside the preference loss. How it extracts content, the degrees and the module are not public: what follows is our
reading. Key content is the words with the highest tf-idf among the round's chosen answers, and the module is the policy
itself, which is asked for the degree and answers with one digit. So there is no head to keep beside the weights.
"""

import json
from collections import Counter
from collections.abc import Sequence
from math import log

from sparring.loop.learning.batches import Row
from sparring.loop.learning.training_rows import TrainingRows
from sparring.loop.tokens import Template

DEGREES = 3  # of these, degree d removes the share d / DEGREES of the words
ASKED = """{question}

An answer to this, from which words may have been removed:
{answer}

How much was removed? 0: nothing, 1: a third, 2: two thirds. Answer with one digit."""


def degree_rows(data: TrainingRows, folder: str) -> list[Row | None]:
    """For each pair, the question how much of its chosen answer is missing, and the digit as the completion.

    Row i asks for degree i mod 3, so that the degrees come equally often.
    """
    template = Template.of(folder)
    tokenizer = template.tokenizer
    answers = [
        tokenizer.decode(tokens[0], skip_special_tokens=True).split() for tokens in data.table["token_ids"].to_pylist()
    ]
    rows: list[Row | None] = []
    for i, (messages, weights) in enumerate(zip(data.table["messages"].to_pylist(), tf_idf(answers), strict=True)):
        *before, last = json.loads(messages)
        left = without_key_content(answers[i], weights, i % DEGREES)
        asked = ASKED.format(question=last["content"], answer=" ".join(left))
        prompt = template.prompt_ids([*before, {"role": "user", "content": asked}])
        rows.append(Row(prompt, (tokenizer.encode(str(i % DEGREES), add_special_tokens=False),)))
    return rows


def tf_idf(answers: Sequence[Sequence[str]]) -> list[list[float]]:
    """Of each word of each answer: how often the answer has it, times log(answers / answers that have it)."""
    within = Counter(word for answer in answers for word in set(answer))
    counts = [Counter(answer) for answer in answers]
    return [
        [count[word] * log(len(answers) / within[word]) for word in answer]
        for answer, count in zip(answers, counts, strict=True)
    ]


def without_key_content(words: Sequence[str], weights: Sequence[float], degree: int) -> list[str]:
    """The words in their order, without the share degree / DEGREES of them that weighs most, earlier ones first."""
    heaviest = sorted(range(len(words)), key=lambda k: (-weights[k], k))[: len(words) * degree // DEGREES]
    gone = set(heaviest)
    return [word for k, word in enumerate(words) if k not in gone]
