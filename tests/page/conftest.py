"""Fixtures for the page tests: a real Chromium on the real page.

Every tab checks at its end that no script failed, no policy was violated and no other site was contacted.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, Route, expect, sync_playwright

from tests.servers import App, Store

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP queue.test 127.0.0.1",  # a name that is not localhost, over plain HTTP
]
expect.set_options(timeout=20_000)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium; where it is missing these tests are skipped, in CI they fail."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not path:
        assert not os.environ.get("CI"), "chromium is not installed"
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield started
        started.close()


class Tab:
    """A tab on a queue's page."""

    def __init__(self, page: Page, url: str, name: str) -> None:
        self.page, self.url, self.name = page, url, name
        self.faults: list[str] = []
        self.foreign: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", self._heard)
        page.on("request", self._asked)

    def _heard(self, message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text or "Content-Security-Policy" in message.text:
            self.faults.append(message.text)

    def _asked(self, request: Request) -> None:
        if urlsplit(request.url).scheme in ("http", "https", "ws") and not request.url.startswith(self.url + "/"):
            self.foreign.append(request.url)

    @contextmanager
    def holding(self, address: str) -> Iterator[None]:
        """Hold requests on their way until the end. Their route stays: to end it while one comes can lose that one."""
        held: list[Route] | None = []
        self.page.route(address, lambda route: route.continue_() if held is None else held.append(route))
        yield
        on_their_way, held = held or [], None
        for route in on_their_way:
            route.continue_()

    def open(self, name: str | None = None, connection: str = "live") -> "Tab":
        """Open the queue's page and wait until it is live."""
        self.name = name or self.name
        self.page.goto(f"{self.url}/q/{self.name}")
        expect(self.by_id("live")).to_have_attribute("data-connection", connection)
        return self

    def open_queues(self) -> "Tab":
        """Open the page of all queues and wait until it is live."""
        self.page.goto(f"{self.url}/queues")
        expect(self.by_id("live")).to_have_attribute("data-connection", "live")
        return self

    def by_id(self, id: str) -> Locator:
        return self.page.locator("#" + id)

    def rows(self) -> Locator:
        return self.page.locator("#rows .row .preview")

    def taken(self) -> Locator:
        return self.page.locator("#taken .message-card")

    def shows(self, *messages: str) -> None:
        """Wait until the list shows exactly these messages, next to be popped first."""
        expect(self.rows()).to_have_text(list(messages))

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def focused(self) -> str:
        """Return the id, or else the class, or else the tag, of what has the focus."""
        found = "(({ id, className, tagName }) => id || className || tagName)(document.activeElement)"
        return str(self.page.evaluate(found))


@pytest.fixture
def tabs(browser: Browser, site: App, name: str, serve: Any, own_store: Any) -> Iterator[Callable[..., Tab]]:
    """Open tabs on the test's own queue: tabs(width=390, color_scheme="dark"), each with cookies of its own.

    They are closed before the servers that a test started: a server that ends waits for who listens.
    """
    opened: list[Tab] = []

    def make(url: str = site.url, width: int = 1280, height: int = 800, **options: Any) -> Tab:
        context = browser.new_context(viewport={"width": width, "height": height}, **{"locale": "en-US", **options})
        context.set_default_timeout(20_000)
        opened.append(Tab(context.new_page(), url, name))
        return opened[-1]

    yield make
    for tab in opened:
        tab.page.context.close()
        assert tab.faults == []
        assert tab.foreign == []


@pytest.fixture
def tab(tabs: Callable[..., Tab]) -> Tab:
    """A live tab on the test's own queue, which is empty."""
    return tabs().open()


@pytest.fixture
def redis(valkey: Store) -> Any:
    """Another client of the site's Redis."""
    return valkey.client()


@pytest.fixture
def seed(redis: Any, name: str) -> Callable[..., None]:
    """Push messages to the test's queue as another Redis client."""

    def push(*messages: str | bytes) -> None:
        redis.lpush("queue:" + name, *messages)

    return push


def stored(redis: Any, name: str) -> list[bytes]:
    """Return the messages of a queue in pop order."""
    found: list[bytes] = redis.lrange("queue:" + name, 0, -1)
    return found[::-1]
