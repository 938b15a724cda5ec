"""Calls of a service over HTTP: retried with growing waits, limited in time and rate, and each one counted."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar

from sparring.judges.llm_client import Asked, call_id
from sparring.loop.errors import ConfigError
from sparring.loop.types import JudgeCall, JudgementStatus, derive_seed

MAX_WAIT = 60.0  # seconds before another attempt, whatever a server asks for
HOPELESS = (401, 403, 404)  # no question will ever be answered


class NoReply(Exception):
    """Nothing came back from a call. `wait`: least seconds before the next attempt; None: asking again is of no use."""

    def __init__(self, why: str, wait: float | None = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


@dataclass(frozen=True)
class Heard:
    """What a call brought: the text that is kept of it. `error` is "" when it answers the question."""

    text: str
    error: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


H = TypeVar("H", bound=Heard)


@dataclass(frozen=True)
class Outcome(Generic[H]):
    """What a question came to. `answer` None: there is none, and `error` says why."""

    answer: H | None
    error: str
    calls: tuple[JudgeCall, ...]
    status: JudgementStatus = "abstained"  # of a judgement to which this outcome gives no value


@dataclass
class Calls:
    """Asks a question up to `attempts` times, `timeout` seconds each.

    It is asked again, after `backoff` seconds doubled each time or what the server asks for, when nothing came back
    (see NoReply) or what came is no answer. Raises ConfigError for an option out of range; `what` names them.
    """

    what: str
    model: str
    concurrency: int
    timeout: float
    attempts: int
    backoff: float
    requests_per_minute: float | None = None
    price_in: float | None = None  # per million tokens
    price_out: float | None = None
    _next_call: float = field(default=0.0, init=False)  # on time.monotonic's clock

    def __post_init__(self) -> None:
        check_positive(self.what, int, concurrency=self.concurrency, attempts=self.attempts)
        for option in ("timeout", "backoff", "requests_per_minute", "price_in", "price_out"):
            check_positive(self.what, float, **{option: getattr(self, option)})

    async def ask(self, question: Asked, call: Callable[[], Awaitable[H]]) -> Outcome[H]:
        calls: list[JudgeCall] = []
        for attempt in range(1, self.attempts + 1):
            await self._turn()
            began = time.monotonic()
            heard, error, wait = await self._attempt(call)
            calls.append(self._record(question, attempt, heard, error, time.monotonic() - began))
            if not error:
                return Outcome(heard, "", tuple(calls))
            if wait is None or attempt == self.attempts:
                break
            await asyncio.sleep(min(MAX_WAIT, max(wait, self._pause(question, attempt))))
        if wait is not None and all(call.reply is None for call in calls):
            return Outcome(None, f"no reply: {error}", tuple(calls), "unreached")
        return Outcome(None, error, tuple(calls))

    async def _attempt(self, call: Callable[[], Awaitable[H]]) -> tuple[H | None, str, float | None]:
        """What came, why it is no answer, and how many seconds to wait at least before the next attempt."""
        try:
            async with asyncio.timeout(self.timeout):  # of the whole call: a client's own is for each read
                heard = await call()
            return heard, heard.error, 0.0
        except TimeoutError:
            return None, f"no answer within {self.timeout:g} s", 0.0
        except NoReply as failure:
            return None, str(failure), failure.wait

    def _record(self, question: Asked, attempt: int, heard: Heard | None, error: str, seconds: float) -> JudgeCall:
        tokens = (heard.prompt_tokens, heard.completion_tokens) if heard else (None, None)
        text, name = heard.text if heard else None, call_id(question, attempt)
        return JudgeCall(
            name, question.judge, question.id, attempt, self.model, text, error, *tokens, self._cost(*tokens), seconds
        )

    def _cost(self, prompt_tokens: int | None, completion_tokens: int | None) -> float | None:
        if prompt_tokens is None or completion_tokens is None or self.price_in is None or self.price_out is None:
            return None
        return prompt_tokens * (self.price_in / 1e6) + completion_tokens * (self.price_out / 1e6)

    async def _turn(self) -> None:
        """Wait until another request may be made within `requests_per_minute`."""
        now = time.monotonic()
        at = max(now, self._next_call)
        self._next_call = at + (60 / self.requests_per_minute if self.requests_per_minute else 0.0)
        await asyncio.sleep(at - now)

    def _pause(self, question: Asked, attempt: int) -> float:
        """Seconds before the next attempt: doubled each time, and spread so that questions do not come back at once."""
        spread = 0.5 + derive_seed(question.id, attempt) / 2**32
        return float(self.backoff * 2 ** (attempt - 1) * spread)


def failed(status: int, headers: Mapping[str, str], message: str) -> NoReply:
    """The failure that a status stands for: 408, 409, 429 and 5xx may pass."""
    may_pass = status in (408, 409, 429) or status >= 500
    return NoReply(f"HTTP {status}: {message}", retry_after(headers) if may_pass else None)


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds from a Retry-After header, a number or a date; 0.0 where there is none that can be read."""
    given = headers.get("retry-after") or ""
    for seconds in (float, lambda date: parsedate_to_datetime(date).timestamp() - time.time()):
        with suppress(ValueError):
            return max(0.0, seconds(given))
    return 0.0


def check_positive(what: str, kind: type[int | float], **options: Any) -> None:
    for name, value in options.items():
        if value is not None and not (isinstance(value, (int, kind)) and value is not True and value > 0):
            whole = "whole " if kind is int else ""
            raise ConfigError(f"{what}{name} is {value!r}; expected a {whole}number above 0")
