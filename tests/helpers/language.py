"""An engine that writes a language of a few lines, whose probabilities a test knows; it is drawn by the seeds it gets.

An answer is `lines` lines of one letter, x with p = 0.55 or y with 0.45, and after the last letter the end token.
"""

import random
from collections.abc import Sequence
from math import log
from pathlib import Path

from sparring.loop.sampling.requests import Answer, GreedyReply, GreedyRequest, Request
from sparring.loop.tokens import Template
from sparring.loop.types import Checkpoint

P = {"x": 0.55, "y": 0.45}


class Language:
    """`asked` keeps every call of `generate`."""

    dtype = "float32"
    probed = False

    def __init__(self, folder: Path, lines: int, *, context: int = 200) -> None:
        self.context, self.lines = context, lines
        self.tokenizer = Template.of(str(folder)).tokenizer
        (self.x, self.y, self.newline) = (self.tokenizer.encode(c)[0] for c in "xy\n")
        self.start = len(self.tokenizer.encode("<|im_start|>assistant\n"))
        self.asked: list[Sequence[Request]] = []

    def load(self, checkpoint: Checkpoint) -> bool:
        return False

    def restart(self, checkpoint: Checkpoint) -> None:
        self.load(checkpoint)

    def generate(self, requests: Sequence[Request]) -> list[list[Answer]]:
        assert requests
        self.asked.append(requests)
        return [[self._answer(r, random.Random(r.seed + i)) for i in range(r.n)] for r in requests]

    def _answer(self, request: Request, dice: random.Random) -> Answer:
        ids = list(request.prompt_ids)
        mark = self.tokenizer.convert_tokens_to_ids("<|im_start|>")
        begun = ids[len(ids) - ids[::-1].index(mark) - 1 + self.start :]
        tokens, logprobs = list[int](), list[float]()
        while len(tokens) < request.max_tokens and self.tokenizer.eos_token_id not in tokens:
            token, p = self._next([*begun, *tokens], dice)
            tokens.append(token)
            logprobs.append(log(p))
        ended = tokens[-1] == self.tokenizer.eos_token_id
        return Answer(
            self.tokenizer.decode(tokens, skip_special_tokens=True), tokens, logprobs, "stop" if ended else "length"
        )

    def _next(self, answer: list[int], dice: random.Random) -> tuple[int, float]:
        if len(answer) == 2 * self.lines - 1:
            return self.tokenizer.eos_token_id, 1.0
        if len(answer) % 2:
            return self.newline, 1.0
        letter = "x" if dice.random() < P["x"] else "y"
        return (self.x if letter == "x" else self.y), P[letter]

    def ask(self, requests: Sequence[GreedyRequest]) -> list[GreedyReply]:
        raise NotImplementedError

    def prompt_logprobs(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        raise NotImplementedError

    def sleep(self) -> None:
        pass

    def close(self) -> None:
        pass
