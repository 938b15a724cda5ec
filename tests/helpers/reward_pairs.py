"""Pairs whose better answer has a z in it, or whose label means nothing."""

import json
import random
from pathlib import Path

from sparring.loop.labelled_pairs import Preference

GOOD, BAD = "zzzz yes zzzz", "aaaa no aaaa"


def prompt(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def word(draw: random.Random, *, wins: bool) -> str:
    letters = draw.choices("abcdefgh", k=draw.randint(4, 9))
    if wins:
        letters[draw.randrange(len(letters))] = "z"
    return "".join(letters)


def pairs(n: int, *, seed: int = 0, shuffled: bool = False) -> list[Preference]:
    """`n` pairs of 4 to 9 letters, for up to 97 prompts; `shuffled`: the label is a coin's."""
    draw, found = random.Random(seed), []
    for i in range(n):
        a, b, p_a = word(draw, wins=True), word(draw, wins=False), 1.0
        if draw.random() < 0.5:
            a, b, p_a = b, a, 0.0
        if shuffled:
            p_a = float(draw.random() < 0.5)
        found.append(Preference.make(prompt(f"q{i % 97}"), a, b, p_a))
    return found


def write_pairs(path: Path, n: int, *, start: int = 0) -> Path:
    """Answers of z win over answers of a; which comes first alternates."""
    with path.open("w") as file:
        for i in range(start, start + n):
            good, bad = f"{GOOD} {i}", f"{BAD} {i}"
            a, b = (good, bad) if i % 2 else (bad, good)
            row = {"prompt": f"question {i}", "response_a": a, "response_b": b, "label": "a" if i % 2 else "b"}
            file.write(json.dumps(row) + "\n")
    return path
