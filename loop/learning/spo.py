"""Learning how much of an answer is missing, beside the pairs: SPO, arXiv:2409.17791.

The paper removes key content from an answer to several degrees, and a self-supervised module predicts the degree beside
the preference loss. How it extracts content, the degrees and the module are not public, so this is our reading. Key
content is the words with the highest tf-idf among the round's chosen answers. The module is the policy itself: the
prompt asks for the degree, and the completion is one digit. So there is no head to keep beside the weights.
"""

from collections import Counter
from collections.abc import Sequence
from math import log

from sparring.loop.learning.batches import Row
from sparring.loop.learning.rationales import answer_text, asking
from sparring.loop.learning.training_rows import PairRows
from sparring.loop.tokens import Template

DEGREES = 3  # degree d removes the share d / DEGREES of the words
QUESTION = """{question}

An answer to this, from which words may have been removed:
{answer}

How much was removed? 0: nothing, 1: a third, 2: two thirds. Answer with one digit."""


def degree_rows(data: PairRows, template: Template) -> list[Row | None]:
    """For each pair, the question how much of its chosen answer is missing, with the digit as the completion.

    Row i has degree i mod 3, so that all degrees are equally frequent.
    """
    tokenizer = template.tokenizer
    chosen = (tokens[0] for tokens in data.table["token_ids"].to_pylist())
    answers = [answer_text(template, tokens, row.prompt).split() for tokens, row in zip(chosen, data.rows, strict=True)]
    rows: list[Row | None] = []
    for i, (messages, weights) in enumerate(zip(data.table["messages"].to_pylist(), tf_idf(answers), strict=True)):
        left = without_key_content(answers[i], weights, i % DEGREES)
        prompt = asking(template, messages, QUESTION, answer=" ".join(left))
        rows.append(Row(prompt, (tokenizer.encode(str(i % DEGREES), add_special_tokens=False),)))
    return rows


def tf_idf(answers: Sequence[Sequence[str]]) -> list[list[float]]:
    """For each word of each answer, its count in the answer times log(answers / answers that have the word)."""
    within = Counter(word for answer in answers for word in set(answer))
    counts = [Counter(answer) for answer in answers]
    return [
        [count[word] * log(len(answers) / within[word]) for word in answer]
        for answer, count in zip(answers, counts, strict=True)
    ]


def without_key_content(words: Sequence[str], weights: Sequence[float], degree: int) -> list[str]:
    """The words in order, without the heaviest share degree / DEGREES of them; ties drop earlier words first."""
    heaviest = sorted(range(len(words)), key=lambda k: (-weights[k], k))[: len(words) * degree // DEGREES]
    gone = set(heaviest)
    return [word for k, word in enumerate(words) if k not in gone]
