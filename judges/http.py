"""A judge that is a service of the user's: answers go there as JSON over HTTP, and a score for each comes back."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sparring.judges.calls import HOPELESS, Calls, NoReply, check_positive, failed
from sparring.judges.dispatch import dispatch
from sparring.judges.score_reply import Scored, read_scores
from sparring.judges.secrets import Headers, is_loopback, sendable
from sparring.judges.verdicts import Verdict
from sparring.loop import traits
from sparring.loop.errors import ConfigError, StepError
from sparring.loop.judgements import Pointwise, score_id, unjudged
from sparring.loop.types import Completion, Group, JudgeCall, Judgement, JudgementStatus, Prompt

if TYPE_CHECKING:
    from httpx import AsyncClient, Response

KEPT = 500  # characters of a message of the service


@dataclass(frozen=True)
class Batch:
    """Answers that one request is about. Its calls are counted under the judgement of the first one."""

    judge: str
    rows: Sequence[tuple[Prompt, Completion]]

    @property
    def id(self) -> str:
        return score_id(self.judge, self.rows[0][1])

    @property
    def body(self) -> str:
        """The request, in ASCII: JSON can escape half a surrogate pair, which UTF-8 cannot hold."""
        return json.dumps(
            {"rows": [{"id": c.id, "prompt": p.messages, "completion": c.text, "meta": p.meta} for p, c in self.rows]}
        )

    @property
    def about_one_prompt(self) -> bool:
        return len({prompt.id for prompt, _ in self.rows}) == 1

    def judgements(self, verdicts: Sequence[Verdict], status: JudgementStatus) -> list[Judgement]:
        """`status`: of those without a value."""
        return [
            Judgement(score_id(self.judge, c), self.judge, c.id, None, "", "", 0, verdict.value, verdict.note, status)
            for (_, c), verdict in zip(self.rows, verdicts, strict=True)
        ]


@traits.judge(
    canaries=True,
    reached_by=(
        *("url", "headers", "batch_size", "concurrency", "timeout", "attempts", "backoff", "requests_per_minute"),
    ),
)
class HTTPJudge(Pointwise):
    """POSTs answers to `url`, up to `batch_size` per request, and reads a score for each from the reply.

    The request is {"rows": [{"id", "prompt": [messages], "completion", "meta"}, ...]}, the reply {"scores": [a number,
    or null for no answer, ...]} in the same order, with "rationales" beside if there are any (see read_scores).
    `name` and `version` name the judge: change the version when the service scores differently. The other options say
    how it is reached. `headers` may name environment variables, as in {"Authorization": "Bearer $TOKEN"}; their values
    are never stored. A request is repeated up to `attempts` times as judges.calls says; 401, 403, 404 and redirects
    raise StepError. Raises ConfigError for an option out of range, EnvironmentProblem for a variable that is not set.
    """

    def __init__(
        self,
        *,
        url: str,
        name: str,
        version: str = "1",
        batch_size: int = 16,
        concurrency: int = 8,
        timeout: float = 60.0,
        attempts: int = 4,
        backoff: float = 1.0,
        requests_per_minute: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        _check_url(url)
        _check_words(name=name, version=version)
        check_positive("judge http: ", int, batch_size=batch_size)
        self.url, self.batch_size, self.name = url, batch_size, f"http-{name}@{version}"
        self.headers = Headers(headers or {})
        model = f"{name}@{version}"
        self.calls = Calls("judge http: ", model, concurrency, timeout, attempts, backoff, requests_per_minute)

    def judge(self, groups: Sequence[Group]) -> Iterator[list[Judgement | JudgeCall]]:
        rows = [(group.prompt, completion) for group in groups for completion in unjudged(group)]
        starts = range(0, len(rows), self.batch_size)
        batches = [Batch(self.name, rows[start : start + self.batch_size]) for start in starts]
        for answers in dispatch(batches, self.calls.concurrency, self._connect, self._answer):
            yield [record for records in answers for record in records]

    def _connect(self) -> "AsyncClient":
        from httpx import AsyncClient, Limits

        return AsyncClient(
            headers=self.headers.read(),
            timeout=None,  # judges.calls limits the whole call
            limits=Limits(max_connections=self.calls.concurrency),
            trust_env=not is_loopback(self.url),  # no proxy reaches this machine
        )

    async def _answer(self, client: "AsyncClient", batch: Batch) -> list[Judgement | JudgeCall]:
        outcome = await self.calls.ask(batch, lambda: self._call(client, batch))
        silent = [Verdict(None, outcome.error)] * len(batch.rows)
        verdicts = outcome.answer.verdicts if outcome.answer else silent
        return [*batch.judgements(verdicts, outcome.status), *outcome.calls]

    async def _call(self, client: "AsyncClient", batch: Batch) -> Scored:
        import httpx

        try:
            response = await client.post(self.url, content=batch.body, headers={"Content-Type": "application/json"})
        except httpx.RequestError as error:
            raise NoReply(self.headers.hide(f"no connection: {str(error) or type(error).__name__}")) from None
        message = self.headers.hide(response.text)[:KEPT]
        # A message may repeat what was sent, and a row is stored, and forgotten, with its own prompt.
        kept = message if batch.about_one_prompt else ""
        if response.is_success:
            return self._read(response.content, len(batch.rows), kept)
        if response.is_redirect or response.status_code in HOPELESS:
            raise StepError(self._refusal(response, message))
        raise failed(
            response.status_code, response.headers, kept or httpx.codes.get_reason_phrase(response.status_code)
        )

    def _read(self, body: bytes, count: int, kept: str) -> Scored:
        verdicts = read_scores(body, count)
        if isinstance(verdicts, str):
            return Scored(kept, verdicts)
        verdicts = [Verdict(verdict.value, self.headers.hide(verdict.note)) for verdict in verdicts]
        return Scored(json.dumps([verdict.value for verdict in verdicts]), verdicts=verdicts)

    def _refusal(self, response: "Response", message: str) -> str:
        to = self.headers.hide(response.headers.get("location", ""))
        return (
            f"{self.url} answered {response.status_code} ({f'a redirect to {to}' if to else message}); expected "
            "scores. Correct judge.url or judge.headers (redirects are not followed). What was answered before is kept"
        )


def _check_url(url: object) -> None:
    if isinstance(url, str) and "@" in url.partition("?")[0]:  # not shown: what stands before it may be a password
        raise ConfigError(
            "judge http: url has an @, and configs are stored with the password before it; put that in an environment "
            'variable and write headers: {Authorization: "Basic $NAME"}, and %40 for an @ in a path'
        )
    try:
        parts = urlsplit(url) if isinstance(url, str) and sendable(url) else None
        valid = parts and parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # brackets around what is no IPv6 address, or a port that is none
        valid = False
    if not valid:
        raise ConfigError(f"judge http: url is {url!r}; expected one such as http://localhost:8000/score")


def _check_words(**words: object) -> None:
    for option, word in words.items():
        if not isinstance(word, str) or not re.fullmatch(r"[\w.+-]{1,64}", word):
            raise ConfigError(
                f"judge http: {option} is {word!r}; expected text in quotes, of up to 64 letters, digits or . _ + -"
            )
