"""Questions to an endpoint with OpenAI's protocol: concurrent, with a time limit and a record per call."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sparring.judges.calls import HOPELESS, Calls, NoReply, failed
from sparring.judges.chat import Said, read, request
from sparring.judges.dispatch import dispatch
from sparring.judges.llm_client import Question, Reply
from sparring.judges.secrets import hide, is_loopback, sendable, variable
from sparring.loop.errors import EnvironmentProblem, StepError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

NO_KEY = "no-key"  # sent to a server on this machine if the environment has no key


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
        prices = (price_in, price_out)
        self.calls = Calls("endpoint.", model, concurrency, timeout, attempts, backoff, requests_per_minute, *prices)
        self.model, self.base_url, self.api_key_env = model, base_url, api_key_env
        self._key()

    @property
    def weights(self) -> Sequence[str]:
        return ()

    def close(self) -> None:
        """Do nothing: nothing outlives a call of `ask`."""

    def ask(self, questions: Sequence[Question]) -> Iterator[list[Reply]]:
        """Replies as they come, see judges.dispatch."""
        return dispatch(questions, self.calls.concurrency, self._connect, self._answer)

    def _connect(self) -> "AsyncOpenAI":
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        return AsyncOpenAI(
            api_key=self._key(),
            base_url=self.base_url,
            timeout=self.calls.timeout,
            max_retries=0,
            # No proxy of the environment reaches this machine.
            http_client=DefaultAsyncHttpxClient(trust_env=not is_loopback(self.base_url)),
        )

    async def _answer(self, client: "AsyncOpenAI", question: Question) -> Reply:
        outcome = await self.calls.ask(question, lambda: self._call(client, question))
        said = outcome.answer
        if said is None:
            return Reply(question, None, {}, outcome.error, outcome.calls, outcome.status)
        return Reply(question, said.text, said.logprobs, "", outcome.calls)

    async def _call(self, client: "AsyncOpenAI", question: Question) -> Said:
        import openai

        try:
            raw = await client.chat.completions.with_raw_response.create(**request(question, self.model))
            return read(self._hide(raw.http_response.text), question)
        except openai.APITimeoutError:
            raise TimeoutError from None
        except openai.APIStatusError as error:
            status, message = error.status_code, self._hide(error.message)[:500]
            if status in HOPELESS:
                raise StepError(
                    f"{self.base_url or 'the endpoint'} answered {status} ({message}); expected a model {self.model!r} "
                    f"for the key in ${self.api_key_env}. Correct endpoint.base_url, model or the key; earlier answers "
                    "are kept"
                ) from None  # the error's own text may show the key
            raise failed(status, error.response.headers, message) from None
        except openai.APIConnectionError as error:
            raise NoReply(self._hide(f"no connection: {error.__cause__ or error}")) from None

    def _key(self) -> str:
        key = variable(self.api_key_env) or (NO_KEY if is_loopback(self.base_url) else "")
        if not sendable(key):
            raise EnvironmentProblem(
                f"there is no key in ${self.api_key_env}; expected the key of {self.base_url or 'api.openai.com'}: "
                f"export {self.api_key_env}=..., or name another variable as endpoint.api_key_env"
            )
        return key

    def _hide(self, text: str) -> str:
        """The text with the key hidden: a server may repeat it."""
        return hide(text, {self._key()} - {NO_KEY})
