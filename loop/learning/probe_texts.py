"""The texts of the probe as token ids: rows with two completions, as an update has them, for any tokenizer."""

from collections.abc import Sequence
from itertools import chain, cycle, islice
from typing import Any

from sparring.loop.learning.batches import Row

PROMPT, COMPLETION = 48, 48  # tokens at most; the texts of a byte tokenizer are cut here
AFTER = 24  # tokens of a completion that lies beyond a window

# A prompt and two completions.
TEXTS = (
    (
        "What does the lighthouse keeper do in the evening? Tell me in one or two plain sentences.",
        "The lighthouse keeper writes one short letter every evening, and every morning the sea has taken it away. "
        "He never asks where the letters go; perhaps that is why he still writes them, year after year.",
        "At dusk he climbs 217 steps, trims the wick, and lights the lamp. Then he waits. Ships pass from left to "
        "right, and he notes the hour of each: 21:05, 22:40, 23:15, 0:30.",
    ),
    (
        "Give me the three largest cities of Portugal as JSON with population and river.",
        '{"cities": [{"name": "Lisbon", "population": 545796, "river": "Tagus"}, {"name": "Porto", "population": '
        '231800, "river": "Douro"}]}',
        '[["Lisbon", 545796, "Tejo"], ["Sintra", 385606, ""]]\n\nNote: these are municipalities; the order changes if '
        "you count metropolitan areas.",
    ),
    (
        "A train leaves at 9:40 and travels 150 km at 60 km/h. When does it arrive? Show your working.",
        "Time = distance / speed = 150 / 60 = 2.5 hours, which is 2 h 30 min.\n9:40 + 2:30 = 12:10.\n\n#### 12:10",
        "First, 150 divided by 60 is 2.4, so the trip takes two hours and 24 minutes. Adding that to 9:40 gives 11:64, "
        "that is 12:04.\n\n#### 12:04",
    ),
    (
        "Write a Python function that counts the vowels of a word, and explain it.",
        'def vowels(word: str) -> int:\n    return sum(letter in "aeiou" for letter in word.lower())\n\nIt looks at '
        "each letter once; True counts as 1.",
        "Sure! 1. Make a list of the vowels. 2. Loop over the word. 3. Add one for each match:\n\ncount = 0\nfor i in "
        "range(len(word)):\n    if word[i] in ['a', 'e', 'i', 'o', 'u', 'A', 'E']:",
    ),
)


def probe_rows(tokenizer: Any, ends: Sequence[int], positions: int, window: int | None) -> list[Row]:
    """Rows of at most `positions` tokens per answer, each of which ends with one of `ends`, the ids that end answers.

    The prompt of the last row is as long as `window`, if that is given and fits.
    """
    half = positions // 2
    end = cycle([[each] for each in ends] or [[]])

    def completion(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids[: min(COMPLETION, half) - 1] + next(end)

    prompts = [tokenizer(prompt)["input_ids"][: min(PROMPT, half)] for prompt, _, _ in TEXTS]
    rows = [Row(ids, (completion(a), completion(b))) for ids, (_, a, b) in zip(prompts, TEXTS, strict=True)]
    if window is not None and window + AFTER <= positions:
        far = list(islice(cycle(chain.from_iterable([*row.prompt, *row.completions[0]] for row in rows)), window))
        rows.append(Row(far, tuple(tokens[-AFTER:] for tokens in rows[0].completions)))
    return rows
