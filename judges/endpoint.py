"""Questions to an endpoint with OpenAI's protocol: concurrent, with a time limit and a record per call."""

import asyncio
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from queue import SimpleQueue
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sparring.judges.chat import Said, read, request
from sparring.judges.llm_client import Question, Reply, call_id
from sparring.judges.verdicts import storable
from sparring.loop.errors import ConfigError, EnvironmentProblem, StepError
from sparring.loop.judgements import NO_REPLY
from sparring.loop.types import JudgeCall, derive_seed

if TYPE_CHECKING:
    from openai import AsyncOpenAI

MAX_WAIT = 60.0  # seconds before another attempt, whatever the server asks for
NO_KEY = "no-key"  # sent to a server on this machine if the environment has no key
HOPELESS = (401, 403, 404)  # no question can be answered
Finished = SimpleQueue[Reply | None]  # None: no more will come


class Endpoint:
    """A client (see judges.llm_client) that asks a question up to `attempts` times, `concurrency` questions at a time.

    It retries after a timeout (`timeout` seconds per call), a lost connection, status 408, 409, 429 or 5xx, and a reply
    that does not answer the question. It waits `backoff` seconds, doubled each time, or as long as Retry-After says.
    401, 403 and 404 raise StepError. Any other status leaves the question without an answer. `price_in` and `price_out`
    are per million tokens. The key is read from the environment variable `api_key_env` and written nowhere.
    Raises ConfigError for an option out of range, and EnvironmentProblem if there is no key.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        concurrency: int = 8,
        timeout: float = 60.0,
        attempts: int = 4,
        backoff: float = 1.0,
        requests_per_minute: float | None = None,
        price_in: float | None = None,
        price_out: float | None = None,
    ) -> None:
        _check(int, concurrency=concurrency, attempts=attempts)
        _check(float, timeout=timeout, backoff=backoff, requests_per_minute=requests_per_minute)
        _check(float, price_in=price_in, price_out=price_out)
        self.model, self.base_url, self.api_key_env = model, base_url, api_key_env
        self.concurrency, self.timeout, self.attempts, self.backoff = concurrency, timeout, attempts, backoff
        self.prices = None if price_in is None or price_out is None else (price_in / 1e6, price_out / 1e6)
        self._gap = 60 / requests_per_minute if requests_per_minute else 0.0
        self._next_call = 0.0  # on time.monotonic's clock
        self._key()

    @property
    def weights(self) -> Sequence[str]:
        return ()

    def close(self) -> None:
        """Do nothing: nothing outlives a call of `ask`."""

    def ask(self, questions: Sequence[Question]) -> Iterator[list[Reply]]:
        """Replies as they come. At most `concurrency` questions are ahead of what the caller has stored.

        Closing the iterator ends the calls in progress and its thread.
        """
        if not questions:
            return
        loop, room, finished = asyncio.new_event_loop(), asyncio.Semaphore(self.concurrency), Finished()
        work = loop.create_task(self._answers(questions, room, finished))
        try:
            with ThreadPoolExecutor(1, "endpoint") as thread:
                done = thread.submit(_drive, loop, work, finished)
                try:
                    more = True
                    while more:
                        chunk, more = _drain(finished)
                        if chunk:
                            yield chunk
                            # The caller comes back when the chunk is stored. Only then may more questions be asked.
                            loop.call_soon_threadsafe(_release, room, len(chunk))
                finally:
                    loop.call_soon_threadsafe(work.cancel)
            done.result()
        finally:
            loop.close()

    async def _answers(self, questions: Sequence[Question], room: asyncio.Semaphore, finished: Finished) -> None:
        from openai import AsyncOpenAI

        client = AsyncOpenAI(api_key=self._key(), base_url=self.base_url, timeout=self.timeout, max_retries=0)

        async def answer(question: Question) -> None:
            finished.put(await self._answer(client, question))

        try:
            async with client, asyncio.TaskGroup() as group:
                for question in questions:
                    await room.acquire()
                    group.create_task(answer(question))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _answer(self, client: "AsyncOpenAI", question: Question) -> Reply:
        calls: list[JudgeCall] = []
        for attempt in range(1, self.attempts + 1):
            await self._turn()
            began = time.monotonic()
            outcome, wait = await self._call(client, question)
            calls.append(self._record(question, attempt, outcome, time.monotonic() - began))
            if not outcome.error:
                return Reply(question, outcome.text, outcome.logprobs, "", tuple(calls))
            if wait is None or attempt == self.attempts:
                break
            await asyncio.sleep(min(MAX_WAIT, max(wait, self._pause(question, attempt))))
        open_still = wait is not None and all(call.reply is None for call in calls)
        return Reply(question, None, {}, f"{NO_REPLY if open_still else ''}{outcome.error}", tuple(calls))

    async def _call(self, client: "AsyncOpenAI", question: Question) -> tuple[Said, float | None]:
        """The outcome, and the least seconds to wait before asking again; None: asking again is of no use."""
        import openai

        try:
            async with asyncio.timeout(self.timeout):  # for the whole call: the client's own timeout is per read
                raw = await client.chat.completions.with_raw_response.create(**request(question, self.model))
            return read(self._hide(raw.http_response.text), question), 0.0
        except (TimeoutError, openai.APITimeoutError):
            return Said(None, {}, f"no answer within {self.timeout:g} s"), 0.0
        except openai.APIStatusError as error:
            status, message = error.status_code, self._hide(error.message)[:500]
            if status in HOPELESS:
                raise StepError(
                    f"{self.base_url or 'the endpoint'} answered {status} ({message}); expected a model {self.model!r} "
                    f"for the key in ${self.api_key_env}. Correct endpoint.base_url, model or the key; earlier answers "
                    "are kept"
                ) from None  # the error's own text may show the key
            again = status in (408, 409, 429) or status >= 500
            return Said(None, {}, f"HTTP {status}: {message}"), retry_after(error.response.headers) if again else None
        except openai.APIConnectionError as error:
            return Said(None, {}, self._hide(f"no connection: {error.__cause__ or error}")), 0.0

    def _record(self, question: Question, attempt: int, outcome: Said, seconds: float) -> JudgeCall:
        tokens, cost = (outcome.prompt_tokens, outcome.completion_tokens), None
        if self.prices and tokens[0] is not None and tokens[1] is not None:
            cost = tokens[0] * self.prices[0] + tokens[1] * self.prices[1]
        id = call_id(question, attempt)
        return JudgeCall(
            id, question.judge, question.id, attempt, self.model, outcome.text, outcome.error, *tokens, cost, seconds
        )

    async def _turn(self) -> None:
        """Wait until `requests_per_minute` allows another request."""
        now = time.monotonic()
        at = max(now, self._next_call)
        self._next_call = at + self._gap
        await asyncio.sleep(at - now)

    def _pause(self, question: Question, attempt: int) -> float:
        """Seconds before the next attempt: doubled each time, and spread so that retries do not come all at once."""
        spread = 0.5 + derive_seed(question.id, attempt) / 2**32
        return float(self.backoff * 2 ** (attempt - 1) * spread)

    def _key(self) -> str:
        key = os.environ.get(self.api_key_env, "").strip() or (NO_KEY if _is_here(self.base_url) else "")
        if not key.isascii() or not key.isprintable() or not key:  # no header could carry it
            raise EnvironmentProblem(
                f"there is no key in ${self.api_key_env}; expected the key of {self.base_url or 'api.openai.com'}: "
                f"export {self.api_key_env}=..., or name another variable as endpoint.api_key_env"
            )
        return key

    def _hide(self, text: str) -> str:
        """The text with the key hidden: a server may repeat it."""
        return storable(text.replace(key, "***") if (key := self._key()) != NO_KEY else text)


def _drive(loop: asyncio.AbstractEventLoop, work: "asyncio.Task[None]", finished: Finished) -> None:
    try:
        loop.run_until_complete(work)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        finished.put(None)


def _drain(finished: Finished) -> tuple[list[Reply], bool]:
    """All replies that have finished, at least one, and whether more will come."""
    chunk, reply = [], finished.get()
    while reply is not None:
        chunk.append(reply)
        if finished.empty():
            return chunk, True
        reply = finished.get()
    return chunk, False


def _release(room: asyncio.Semaphore, places: int) -> None:
    for _ in range(places):
        room.release()


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds from a Retry-After header, which is a number or a date; 0.0 if it is missing or cannot be read."""
    header = headers.get("retry-after") or ""
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return 0.0


def _is_here(base_url: str | None) -> bool:
    host = urlsplit(base_url or "").hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _check(kind: type, **options: float | None) -> None:
    for name, value in options.items():
        if value is not None and not (isinstance(value, int | kind) and value is not True and value > 0):
            whole = "whole " if kind is int else ""
            raise ConfigError(f"endpoint.{name} is {value!r}; expected a {whole}number above 0")
