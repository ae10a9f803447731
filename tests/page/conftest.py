"""Fixtures for the page tests: a real Chromium on the real page.

At the end of a test, every tab checks that no script failed, no policy was violated and no other site was contacted.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, Route, expect, sync_playwright

from tests.servers import App, Store, running

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP queue.test 127.0.0.1",  # a name that is not localhost, over plain HTTP
]
TOKEN, READ_TOKEN = "a-token-that-writes", "a-token-that-reads"
expect.set_options(timeout=20_000)


class Tab:
    """A tab on a queue's page."""

    def __init__(self, page: Page, url: str, name: str) -> None:
        self.page, self.url, self.name = page, url, name
        self.faults: list[str] = []
        self.foreign: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", self._check_message)
        page.on("request", self._check_request)

    def _check_message(self, message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text or "Content-Security-Policy" in message.text:
            self.faults.append(message.text)

    def _check_request(self, request: Request) -> None:
        if urlsplit(request.url).scheme in ("http", "https", "ws") and not request.url.startswith(self.url + "/"):
            self.foreign.append(request.url)

    def check(self) -> None:
        """Fail if something went wrong that the test itself does not look at."""
        assert self.faults == []
        assert self.foreign == []

    @contextmanager
    def delaying(self, address: str) -> Iterator[None]:
        """Delay requests until the block ends. Their route stays, as removing it could lose a request on its way."""
        delayed: list[Route] | None = []
        self.page.route(address, lambda route: route.continue_() if delayed is None else delayed.append(route))
        yield
        waiting, delayed = delayed or [], None
        for route in waiting:
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

    def sign_in(self, token: str) -> None:
        self.by_id("token").fill(token)
        self.press("Enter")

    def post(self, operation: str, **fields: Any) -> Any:
        """Call an operation on the tab's queue as another client, and return its answer."""
        url = f"{self.url}/api/queue/{self.name}/{operation}"
        return self.page.request.post(url, data=fields or None).json()

    def by_id(self, id: str) -> Locator:
        return self.page.locator("#" + id)

    def rows(self) -> Locator:
        return self.page.locator("#rows .row .preview")

    def in_hand(self) -> Locator:
        """Return the cards of the messages that were popped, removed or reserved."""
        return self.page.locator("#taken .message-card")

    def in_flight(self) -> Locator:
        """Return the cards in the dialog of reserved or delayed messages."""
        return self.page.locator("#held-list .message-card")

    def shows(self, *messages: str) -> None:
        """Wait until the list shows exactly these messages, next to be popped first."""
        expect(self.rows()).to_have_text(list(messages))

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def focused(self) -> str:
        """Return the id, or else the class, or else the tag, of the focused element."""
        found = "(({ id, className, tagName }) => id || className || tagName)(document.activeElement)"
        return str(self.page.evaluate(found))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium. If it is missing, these tests are skipped; in CI they fail."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not path:
        assert not os.environ.get("CI"), "chromium is not installed"
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def tabs(browser: Browser, site: App, name: str, serve: Any, own_store: Any) -> Iterator[Callable[..., Tab]]:
    """Open tabs on the test's own queue: tabs(width=390, color_scheme="dark"), each with its own cookies.

    They are closed before the servers that a test started, as a server that stops waits for its clients.
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
        tab.check()


@pytest.fixture(scope="session")
def shared_tab(browser: Browser, site: App) -> Iterator[Tab]:
    """A tab that all tests can use in turn: opening one takes longer than most of them."""
    permissions = ["clipboard-read", "clipboard-write"]
    context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-US", permissions=permissions)
    context.set_default_timeout(20_000)
    yield Tab(context.new_page(), site.url, "")
    context.close()


@pytest.fixture
def tab(shared_tab: Tab, name: str) -> Iterator[Tab]:
    """A live tab on the test's own queue, which is empty. A test that sets the clock needs a tab of `tabs` instead."""
    shared_tab.faults.clear()
    shared_tab.foreign.clear()
    yield shared_tab.open(name)
    page, context = shared_tab.page, shared_tab.page.context
    page.unroute_all(behavior="ignoreErrors")
    context.set_offline(False)
    page.evaluate("localStorage.clear()")
    context.clear_cookies()
    for other in context.pages:
        if other is not page:
            other.close()
    shared_tab.check()


@pytest.fixture(scope="session")
def token_site(valkey: Store, folder: Path) -> Iterator[App]:
    """An app that requires TOKEN or READ_TOKEN, is also reachable as queue.test, and allows one stream."""
    tokens = {"API_TOKEN": TOKEN, "READ_TOKEN": READ_TOKEN}
    limits = {"TRUSTED_HOSTS": "queue.test", "MAX_BLOCKED_CLIENTS": "1", "WEB_CONCURRENCY": "1"}
    with running(App(folder / "token", REDIS_URL=valkey.url, **tokens, **limits)) as app:
        yield app


@pytest.fixture(scope="session")
def small_site(valkey: Store, folder: Path) -> Iterator[App]:
    """An app that accepts messages of up to 1 KiB."""
    settings = {"MAX_MESSAGE_BYTES": "1024", "WEB_CONCURRENCY": "1"}
    with running(App(folder / "small", REDIS_URL=valkey.url, **settings)) as app:
        yield app


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
