"""One person at the page: the next question, and the answers on their way into the store."""

import secrets
import time
from collections.abc import Sequence, Set
from typing import Any

from sparring.judges.human import QUESTION, Both, Choice, Question
from sparring.loop.types import JudgeInfo
from sparring.store.store import DuckStore


class Session:
    """The questions of one person. `answered` are duels that this person judged before.

    A question is shown under a random name only. Judgements go to the store; skipped questions are remembered only
    here, so the next session asks them again.
    """

    def __init__(
        self, store: DuckStore, judge: JudgeInfo, questions: Sequence[Question], answered: Set[Both] = frozenset()
    ) -> None:
        self.store, self.judge = store, judge.id
        self._questions = {secrets.token_urlsafe(12): q for q in questions}
        self._judged = {name for name, q in self._questions.items() if q.both in answered}
        self._skipped: set[str] = set()
        self._before, self._start = len(self._judged), time.monotonic()
        store.add([[judge]])

    @property
    def judged_now(self) -> int:
        return len(self._judged) - self._before

    @property
    def skipped(self) -> int:
        return len(self._skipped)

    def has(self, name: str) -> bool:
        return name in self._questions

    def state(self) -> dict[str, Any]:
        """How far this person is, and the next question; None when none is left."""
        return {
            "done": len(self._judged),
            "total": len(self._questions),
            "skipped": len(self._skipped),
            "per_minute": round(60 * self.judged_now / max(1.0, time.monotonic() - self._start), 1),
            "question": self._next(),
        }

    def answer(self, name: str, choice: Choice) -> bool:
        """Store a choice; False when this duel was judged before, in which case the first judgement stays.

        Raises StoreError and StoreBusy when nothing was stored.
        """
        added = self.store.add([[self._questions[name].judgement(self.judge, choice)]])
        if choice == "skip":
            if name not in self._judged:
                self._skipped.add(name)
            return True
        self._judged.add(name)
        self._skipped.discard(name)
        return added == 1

    def _next(self) -> dict[str, Any] | None:
        gone = self._judged | self._skipped
        name = next((name for name in self._questions if name not in gone), None)
        if name is None:
            return None
        question = self._questions[name]
        left, right = question.shown(self.judge)
        prompt = [{"role": m["role"], "content": m["content"]} for m in question.prompt.messages]
        return {"name": name, "asked": QUESTION, "prompt": prompt, "left": left, "right": right}
