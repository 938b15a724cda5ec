"""The page's server, on loopback and behind a token. Nothing it sends tells which model wrote an answer.

A browser runs pages of other sites beside this one. So a request must name this machine as its host (else another host
name could resolve to it) and carry the token in a cookie that other sites cannot send. A request that changes something
must also carry a second token, in a header that only this page knows.
"""

import re
import secrets
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import get_args

import uvicorn
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from sparring.judges.human import Choice
from sparring.loop.errors import EnvironmentProblem, SparError
from sparring.people.session import Session

LOOPBACK = "127.0.0.1"
HOST = re.compile(r"(127\.0\.0\.1|localhost)(:\d{1,5})?")  # any port, because ssh may forward it
FOLDER = Path(__file__).parent
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    question: str
    choice: Choice


def people_app(session: Session, token: str, cookie: str = "sparring") -> Starlette:
    """The page for one person. `cookie` is unique to this server, because servers of one machine share cookies."""
    page_token = secrets.token_urlsafe(32)

    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        refused = _refused(request, token, cookie, page_token)
        response = PlainTextResponse(refused, 403) if refused else await call_next(request)
        response.headers.update(HEADERS)
        return response

    def page(request: Request) -> Response:
        # Not a redirect: after a link from another site, its request would lack the cookie.
        response = HTMLResponse((FOLDER / "page.html").read_text(encoding="utf-8").replace("PAGE_TOKEN", page_token))
        response.set_cookie(cookie, token, httponly=True, samesite="strict", path="/")
        return response

    def state(request: Request) -> Response:
        return JSONResponse(session.state())

    async def answer(request: Request) -> Response:
        return await run_in_threadpool(_answer, session, await request.body())

    routes = [
        Route("/", page),
        Route("/page.js", _file("page.js", "text/javascript")),
        Route("/page.css", _file("page.css", "text/css")),
        Route("/favicon.ico", lambda request: Response(status_code=204)),
        Route("/state", state),
        Route("/answer", answer, methods=["POST"]),
    ]
    return Starlette(routes=routes, middleware=[Middleware(BaseHTTPMiddleware, dispatch=guard)])


def _answer(session: Session, body: bytes) -> Response:
    try:
        answer = Answer.model_validate_json(body)
    except ValidationError:
        return _problem(400, f"expected a question and a choice, one of {', '.join(get_args(Choice))}")
    if not session.has(answer.question):
        return _problem(404, "this question does not belong to this session; reload the page")
    try:
        kept = session.answer(answer.question, answer.choice)
    except SparError as error:
        return _problem(503, str(error))
    return JSONResponse({"kept": kept, **session.state()})


def _problem(status: int, message: str) -> Response:
    return JSONResponse({"problem": message}, status)


def _refused(request: Request, token: str, cookie: str, page_token: str) -> str | None:
    """Why a request is refused; None when it is allowed."""
    if not HOST.fullmatch(request.headers.get("host", "")):
        return "wrong host: open the address that spar printed, at 127.0.0.1 or localhost"
    sent = request.cookies.get(cookie) or ""
    if request.url.path == "/":
        sent = request.query_params.get("token") or sent
    if not _same(sent, token):
        return "no token, or an old one; open the address that spar printed"
    if request.method not in ("GET", "HEAD") and not _same(request.headers.get("x-page-token", ""), page_token):
        return "this page belongs to an earlier session; open the address that spar printed"
    return None


def _same(one: str, other: str) -> bool:
    return secrets.compare_digest(one.encode(), other.encode())


def _file(name: str, kind: str) -> Callable[[Request], Response]:
    return lambda request: Response((FOLDER / name).read_bytes(), media_type=kind)


def listen(port: int) -> socket.socket:
    """A socket on loopback; port 0 takes any free port. Raises EnvironmentProblem."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((LOOPBACK, port))
        sock.listen()
    except OSError as error:
        sock.close()
        message = f"port {port} cannot be used ({error.strerror}); choose another --port, or leave it out"
        raise EnvironmentProblem(message) from error
    return sock


def people_server(session: Session, sock: socket.socket) -> tuple[uvicorn.Server, str]:
    """A server for `run(sockets=[sock])`, and the page's address, which contains the token."""
    token, port = secrets.token_urlsafe(32), sock.getsockname()[1]
    config = uvicorn.Config(
        people_app(session, token, f"sparring_{port}"),
        log_level="warning",
        access_log=False,
        loop="asyncio",
        lifespan="off",
        ws="none",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=10,
    )
    return uvicorn.Server(config), f"http://{LOOPBACK}:{port}/?token={token}"
