"""A store in which answers have numbers, so that a test can tell from the page alone which of two is better."""

import re
from pathlib import Path
from typing import Any

from sparring.judges.human import answered, people_judge
from sparring.loop.types import Record
from sparring.people.queue import groups_to_judge, questions_of
from sparring.people.session import Session
from sparring.store.db import rows
from sparring.store.store import DuckStore
from tests.helpers.records import INFO, RUN, checkpoint, completion, judgement, prompt, round_of

ANN = people_judge("ann")
SAID = """
SELECT j.*, c.text, r.text AS rival_text FROM judgements j JOIN completions c USING (completion_id)
JOIN completions r ON r.completion_id = j.rival_id WHERE j.judge = 'people:ann'
"""
MARKUP = "<script>window.ran = 1</script><img src=x onerror='window.ran = 2'></div><b>&amp;"


def number(text: str) -> int:
    """The number that an answer states: the greater one is the better answer."""
    found = re.search(r"value (\d+)", text)
    assert found, text
    return int(found.group(1))


def answered_store(path: Path, prompts: int, *, misjudged: int = 0) -> DuckStore:
    """One round, two answers a prompt, scored by the judge `rules` by their numbers, `misjudged` prompts wrongly."""
    policy = checkpoint("policy")
    asked = [prompt(f"Say a large number, {k}. {MARKUP}") for k in range(prompts)]
    rnd = round_of(1, policy, policy, asked)
    records: list[Record] = [INFO, policy, *asked, rnd]
    for k, p in enumerate(asked):
        values = (100 + k, k) if k % 3 else (k, 100 + k)
        made = [completion(rnd, p, i, text=f"value {v}\n{MARKUP}\n{'word' * 40}") for i, v in enumerate(values)]
        sign = -1 if k < misjudged else 1
        records += [*made, *(judgement(c, float(sign * v)) for c, v in zip(made, values, strict=True))]
    store = DuckStore(path, wait=0.3)
    store.add([records])
    return store


def session_of(store: DuckStore, seed: int = 0, limit: int | None = None) -> Session:
    groups = groups_to_judge(store, RUN, ANN.id, "train", None)
    done = answered(j for g in groups for j in g.judged)
    return Session(store, ANN, questions_of(store, RUN, groups, seed, limit), done)


def said(store: DuckStore) -> list[dict[str, Any]]:
    """What ann said, with both texts."""
    with store.db.read() as con:
        return rows(con, SAID)
