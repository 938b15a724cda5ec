"""Writes train.jsonl and eval.jsonl: short everyday requests with verifiable instructions, as IFEval rows.

    python examples/quickstart/make_prompts.py [FOLDER]

A task (a template filled with a topic) gets one kind of instruction, in a third of the rows a second one. Eval has
topics of its own, and never words an instruction as train does for the same template: it asks for the skill, not for
the memory. All words are in vocabulary.json, and all draws come from one seed: the same script gives the same bytes.
"""

import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEED = 20
ROWS = {"train": 435, "eval": 120}  # multiples of the number of kinds: every kind is met equally often
WITH_SECOND = 1 / 3  # share of rows with a second instruction
WORDINGS = 4  # ways to word each kind

Vocabulary = dict[str, list[dict[str, Any]]]
Instruction = tuple[str, dict[str, Any], str]  # id, kwargs, text


@dataclass(frozen=True)
class Task:
    text: str
    topic: str
    template: int  # its number within the theme
    words: list[str]  # words an answer may well use


def main(folder: Path) -> None:
    vocabulary = json.loads((Path(__file__).parent / "vocabulary.json").read_text(encoding="utf-8"))
    for split, size in ROWS.items():
        rng = random.Random(f"{SEED} {split}")
        lines = [json.dumps(row, ensure_ascii=False) for row in rows(rng, vocabulary, split, size)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def rows(rng: random.Random, vocabulary: Vocabulary, split: str, size: int) -> Iterator[dict[str, Any]]:
    tasks = rng.sample(list(every_task(vocabulary, split)), size)
    for task, first in zip(tasks, in_turn(rng, vocabulary["kinds"]), strict=False):
        made = [instruction(rng, task, first, wording(rng, split, task.template))]
        if rng.random() < WITH_SECOND:
            second = rng.choice([kind for kind in vocabulary["second_kinds"] if fits(first, kind)])
            made.append(instruction(rng, task, second, rng.randrange(WORDINGS)))
        yield row(task, made)


def every_task(vocabulary: Vocabulary, split: str) -> Iterator[Task]:
    for theme in vocabulary["themes"]:
        for number, template in enumerate(theme["templates"]):
            yield from (Task(template.format(topic), topic, number, theme["words"]) for topic in theme[split])


def in_turn(rng: random.Random, kinds: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every kind once, in random order, again and again: any stretch of the file has all of them."""
    while True:
        yield from rng.sample(kinds, len(kinds))


def wording(rng: random.Random, split: str, template: int) -> int:
    """Of the wordings with a template one belongs to eval, the other three to train."""
    return (template + (0 if split == "eval" else rng.randrange(1, WORDINGS))) % WORDINGS


def fits(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether a second instruction can be met together with the first: kinds of the same sort may contradict."""
    alone = ("keywords:", "length_constraints:")
    sorts = [kind["instruction_id"] for kind in (first, second)]
    return not any(sorts[0].startswith(prefix) and sorts[1].startswith(prefix) for prefix in alone)


def instruction(rng: random.Random, task: Task, kind: dict[str, Any], wording: int) -> Instruction:
    kwargs = {key: draw(rng, task, choices) for key, choices in kind["kwargs"].items()}
    shown = {key: quoted(key, value) if isinstance(value, list) else value for key, value in kwargs.items()}
    return kind["instruction_id"], kwargs, kind["wordings"][wording].format(**shown)


def draw(rng: random.Random, task: Task, choices: Any) -> Any:
    """An argument: one of a list of choices, a list of words of the theme, or the noun of the topic."""
    match choices:
        case "one word" | "two words":
            return rng.sample(task.words, 1 if choices == "one word" else 2)
        case "topic":
            return task.topic.split()[-1]
        case _:
            return rng.choice(choices)


def quoted(key: str, words: list[str]) -> str:
    return (" or " if key == "forbidden_words" else " and ").join(f'"{word}"' for word in words)


def row(task: Task, made: list[Instruction]) -> dict[str, Any]:
    ids, kwargs, texts = zip(*made, strict=True)
    return {"prompt": " ".join((task.text, *texts)), "instruction_id_list": ids, "kwargs": kwargs}


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
