"""The page in a real browser, and the command that serves it: driven by keys, killed, started again, ended."""

import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from sparring.people.server import listen, people_server
from sparring.store.db import rows
from sparring.store.store import DuckStore
from tests.helpers.paths import ROOT
from tests.helpers.people import MARKUP, answered_store, number, said, session_of
from tests.helpers.spar import environment, obey_ctrl_c

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
READ = 210  # milliseconds, a little more than the page waits before it takes an answer

PRESS_AT_ONCE = """() => {
    const press = () => document.dispatchEvent(new KeyboardEvent("keydown", { key: "t" }));
    new MutationObserver(() => setTimeout(press)).observe(document.getElementById("left"), { childList: true });
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@dataclass
class Watched:
    """A page with everything that went wrong on it, and every address that it asked for."""

    page: "Page"
    problems: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.set_default_timeout(20_000)

    def open(self, address: str) -> "Watched":
        self.page.goto(address)
        self.page.locator("#progress:not(:empty)").wait_for()
        return self

    def shown(self) -> tuple[str, str, str]:
        return tuple(self.page.locator(f"#{id}").inner_text() for id in ("prompt", "left", "right"))  # type: ignore[return-value]

    def better(self) -> str:
        _, left, right = self.shown()
        return "ArrowLeft" if number(left) > number(right) else "ArrowRight"

    def press(self, key: str) -> None:
        self.page.wait_for_timeout(READ)
        self.page.keyboard.press(key)

    def judge(self, done: int) -> None:
        """Choose the greater number and wait until the page counts `done`."""
        self.press(self.better())
        self.counts(done)

    def counts(self, done: int) -> None:
        self.page.locator("#progress", has_text=re.compile(rf"^{done} of ")).wait_for()


@dataclass
class Command:
    process: subprocess.Popen[str]
    address: str

    def end(self) -> str:
        """As Ctrl-C does; returns what it said on stderr."""
        self.process.send_signal(signal.SIGINT)
        _, said = self.process.communicate(timeout=20)
        assert self.process.returncode == 0, said
        return said


@contextmanager
def serving(store: Path, *arguments: object) -> Iterator[Command]:
    command = [sys.executable, "-m", "sparring.cli", "judge", "people", *map(str, arguments), "--store", str(store)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=pipe, stderr=pipe, text=True, preexec_fn=obey_ctrl_c
    ) as process:
        try:
            assert process.stdout is not None
            yield Command(process, process.stdout.readline().strip())
        finally:
            process.kill()


@contextmanager
def in_thread(store: DuckStore) -> Iterator[str]:
    with listen(0) as sock:
        server, address = people_server(session_of(store), sock)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            yield address
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


@pytest.mark.timeout(240)
def test_twenty_judgements_by_keys_through_a_kill(browser: "Browser", tmp_path: Path) -> None:
    store = answered_store(tmp_path / "s.duckdb", 20, misjudged=5)
    context = browser.new_context()
    with serving(store.db.path, "--who", "ann") as command:
        one = Watched(context.new_page()).open(command.address)
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{43}", command.address)
        assert "token" not in one.page.url
        for done in range(1, 5):
            one.judge(done)

        one.page.wait_for_timeout(READ)  # the second press of a double one
        key = one.better()
        one.page.keyboard.press(key)
        one.page.keyboard.press(key)
        one.counts(5)
        one.page.evaluate(PRESS_AT_ONCE)  # before anyone can have read the question
        one.judge(6)
        one.page.wait_for_timeout(READ)  # a key that is held down
        key = one.better()
        one.page.keyboard.down(key)
        one.counts(7)
        one.page.wait_for_timeout(READ)
        one.page.keyboard.down(key)
        one.page.wait_for_timeout(READ)
        one.page.keyboard.up(key)
        one.counts(7)

        before = one.shown()
        one.page.reload()
        one.counts(7)
        assert one.shown() == before

        two = Watched(context.new_page()).open(command.address.partition("?")[0])  # the cookie is enough
        assert two.shown() == before
        two.judge(8)
        one.page.bring_to_front()
        assert one.shown() == before
        one.press({"ArrowLeft": "ArrowRight", "ArrowRight": "ArrowLeft"}[one.better()])
        one.page.locator("#told", has_text="judged elsewhere").wait_for()
        one.counts(8)

        assert one.problems == two.problems == []
        origin = command.address.partition("?")[0]
        assert all(address.startswith(origin) for address in one.asked + two.asked)
        left = one.shown()
        command.process.kill()
        command.process.wait()
        one.press(one.better())
        one.page.locator("#problem", has_text="Not stored yet: spar does not answer").wait_for()
        assert one.shown() == left
    assert len(said(store)) == 8

    with serving(store.db.path, "--who", "ann") as command:
        page = Watched(context.new_page()).open(command.address)
        assert page.shown() == left
        for done in range(9, 21):
            page.judge(done)
        page.page.locator("#end", has_text="All 20 are judged and stored").wait_for()
        assert page.problems == []
        told = command.end()  # while the page is open

    found = said(store)
    assert len(found) == len({row["judgement_id"] for row in found}) == 20
    assert len({frozenset((row["completion_id"], row["rival_id"])) for row in found}) == 20
    for row in found:
        assert row["value"] == float(number(row["text"]) > number(row["rival_text"]))
    assert {(row["order"], row["value"]) for row in found} == {(0, 0.0), (0, 1.0), (1, 0.0), (1, 1.0)}
    assert "people:ann: 12 judged now, 0 skipped" in told
    assert "agrees with rules on 75% of 20, opposed on 25%" in told


@pytest.mark.timeout(240)
def test_every_key_and_button_says_what_it_shows(browser: "Browser", tmp_path: Path) -> None:
    keys = {
        **dict.fromkeys(("ArrowLeft", "h", "1", "H", "1 is better"), "left"),
        **dict.fromkeys(("ArrowRight", "l", "2", "2 is better"), "right"),
        **dict.fromkeys(("t", "ArrowDown", "tie"), "tie"),
        **dict.fromkeys(("s", " ", "skip"), "skip"),
    }
    store = answered_store(tmp_path / "s.duckdb", len(keys) + 1)
    with in_thread(store) as address:
        watched = Watched(browser.new_page(viewport={"width": 1280, "height": 900})).open(address)
        chosen: dict[str, tuple[str, str]] = {}
        for key, choice in keys.items():
            before = watched.shown()
            chosen[before[0]] = (choice, before[1])
            if len(key) > 1 and not key.startswith("Arrow"):
                watched.page.wait_for_timeout(READ)
                watched.page.get_by_role("button", name=key).click()
            else:
                watched.press(key)
            watched.page.locator("#told", has_text="Skipped" if choice == "skip" else "Stored").wait_for()
            watched.page.locator("#prompt").get_by_text(before[0], exact=True).wait_for(state="detached")
        watched.press("Control+l")
        watched.press("x")
        watched.page.wait_for_timeout(READ)
        assert watched.page.locator("#progress").inner_text().startswith(f"{len(keys) - 3} of {len(keys) + 1}")
        assert watched.problems == []
    with store.db.read() as con:
        prompts = rows(
            con,
            "SELECT completion_id, messages ->> '$[0].content' AS t FROM completions JOIN prompts p USING (prompt_id)",
        )
    asked = {row["completion_id"]: row["t"] for row in prompts}
    found = said(store)
    assert len(found) == len(keys)
    for row in found:
        choice, left = chosen[asked[row["completion_id"]]]
        on_left = number(row["text"]) == number(left)
        assert row["order"] == (0 if on_left else 1)
        wins = {"left": float(on_left), "right": float(not on_left), "tie": 0.5, "skip": None}
        assert row["value"] == wins[choice]


@pytest.mark.timeout(240)
def test_texts_are_text_at_any_width_and_a_busy_store_loses_nothing(browser: "Browser", tmp_path: Path) -> None:
    store = answered_store(tmp_path / "s.duckdb", 3)
    with in_thread(store) as address:
        watched = Watched(browser.new_page(viewport={"width": 1280, "height": 800})).open(address)
        page = watched.page
        for text in watched.shown():
            assert MARKUP in text
        assert page.locator("#left *, #right *, #prompt .text *").count() == 0
        assert page.evaluate("window.ran === undefined && document.scripts.length === 1")
        for width in (1280, 400):
            page.set_viewport_size({"width": width, "height": 500})
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            left, right = (page.locator(f"#{id}").bounding_box() for id in ("left", "right"))
            assert (
                left
                and right
                and (right["y"] > left["y"] + left["height"] if width == 400 else right["y"] == left["y"])
            )
        page.keyboard.press("Tab")
        focused = page.locator("button:focus-visible")
        assert focused.evaluate("element => getComputedStyle(element).outlineStyle") == "solid"

        assert page.evaluate("document.documentElement.scrollHeight > window.innerHeight")
        watched.press("ArrowDown")  # there is something to scroll: not a tie
        page.wait_for_timeout(READ)
        assert page.evaluate("window.scrollY") > 0
        assert said(store) == []
        assert watched.problems == []

        with FileLock(str(store.db.path) + ".lock"):
            watched.press(watched.better())
            page.locator("#problem", has_text="Not stored yet: another process has held").wait_for()
            watched.press("t")  # nothing else counts meanwhile
        watched.counts(1)
        assert page.locator("#problem").inner_text() == ""
        (row,) = said(store)
        assert row["value"] == float(number(row["text"]) > number(row["rival_text"]))
