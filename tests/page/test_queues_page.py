"""The page of all queues, and the list of them in the dialog that switches queues."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from broker.queue import ReliableQueue
from tests.page.conftest import READ_TOKEN, Tab
from tests.page.test_access import faults
from tests.servers import App, Store, running, until

MANY = 10_000
IS_WIDE_ENOUGH = "document.documentElement.scrollWidth <= innerWidth"


@pytest.fixture(scope="module")
def own_servers(folder: Path) -> Iterator[tuple[str, Store]]:
    """The URL of an app that has its own Redis, and that Redis."""
    with (
        running(Store("valkey", folder / "queues")) as store,
        running(App(folder / "queues-app", REDIS_URL=store.url, WEB_CONCURRENCY="1")) as app,
    ):
        yield app.url, store


@pytest.fixture
def own_site(own_servers: tuple[str, Store]) -> tuple[str, Any]:
    """Return the URL of an app without queues, and another client of its Redis."""
    url, store = own_servers
    store.client().flushall()
    return url, store.client()


def names(tab: Tab) -> Locator:
    return tab.page.locator("#queues-list .queue-name")


def row(tab: Tab, name: str) -> Locator:
    return tab.page.locator(".queue-row").filter(has=tab.page.get_by_text(name, exact=True))


def bury(client: Any, name: str) -> None:
    queue = ReliableQueue(client, name)
    queue.push(b"bad")
    queue.release(queue.reserve().messages[0].id, dead=True)


def test_all_queues_at_a_glance(tabs: Callable[..., Tab], own_site: tuple[str, Any]) -> None:
    url, redis = own_site
    tab = tabs(url).open_queues()
    expect(tab.by_id("empty-title")).to_have_text("No queue has any messages")
    assert faults(tab) == []
    for name in ("audit", "orders", "sms"):
        redis.lpush(f"queue:{name}", "a", "b")
    expect(names(tab)).to_have_text(["audit", "orders", "sms"])
    # Queues with problems come first, with their reasons.
    bury(redis, "sms")
    expect(row(tab, "sms").locator(".why")).to_have_text("1 dead letter")
    expect(names(tab)).to_have_text(["sms", "audit", "orders"])
    expect(tab.by_id("summary")).to_have_text("3 queues · 1 with problems")
    expect(tab.page).to_have_title("(1) All queues")
    expect(row(tab, "sms").get_by_role("link", name="sms, 2 waiting, 1 dead letter")).to_be_visible()
    ReliableQueue(redis, "orders").pause()
    expect(row(tab, "orders").locator(".why")).to_have_text("paused")
    redis.lpush("queue:audit", *"xyz")
    expect(row(tab, "audit").locator(".count .cell-number")).to_have_text("5")
    assert faults(tab) == []
    # Order and filter.
    tab.by_id("queues-sort").select_option("count")
    expect(names(tab)).to_have_text(["audit", "orders", "sms"])
    tab.by_id("queues-filter").fill("S")
    expect(names(tab)).to_have_text(["orders", "sms"])
    tab.by_id("queues-filter").fill("none such")
    expect(tab.by_id("empty-title")).to_have_text("0 queues found")
    tab.by_id("queues-filter").fill("")
    # The keyboard alone.
    tab.press("ArrowDown", "ArrowDown", "End", "ArrowUp")
    assert tab.page.evaluate("document.activeElement.textContent") == "orders"
    tab.press("Enter")
    expect(tab.page).to_have_url(f"{url}/q/orders")
    expect(tab.by_id("live")).to_have_attribute("data-connection", "live")
    # The dialog that switches queues shows the same.
    tab.by_id("switch").click()
    expect(names(tab)).to_have_text(["sms", "orders", "audit"])
    expect(row(tab, "orders").locator("a").first).to_have_attribute("aria-current", "page")
    assert faults(tab) == []
    tab.page.keyboard.type("sm")
    expect(names(tab)).to_have_text(["sms"])
    tab.press("ArrowDown")
    assert tab.page.evaluate("document.activeElement.textContent") == "sms"
    row(tab, "sms").get_by_role("link", name="1 dead letter from sms").click()
    expect(tab.page).to_have_url(f"{url}/q/sms.dead")
    expect(tab.by_id("live")).to_have_attribute("data-connection", "live")
    tab.page.get_by_role("link", name="All queues").first.click()
    expect(tab.by_id("queues-sort")).to_have_value("count")  # it was saved
    expect(names(tab).last).to_have_text("sms")


def test_ten_thousand_queues_are_a_few_rows_on_a_phone_too(tabs: Callable[..., Tab], own_site: tuple[str, Any]) -> None:
    url, redis = own_site
    pipeline = redis.pipeline(transaction=False)
    for number in range(MANY):
        pipeline.lpush(f"queue:{number:05}.a-long-name-{'x' * 90 if number == 3 else ''}", "a")
    pipeline.execute()
    bury(redis, "09999.a-long-name-")
    tab = tabs(url, width=390, height=844, has_touch=True, is_mobile=True, color_scheme="dark").open_queues()
    expect(tab.by_id("summary")).to_have_text("10,000 queues · 1 with problems")
    expect(names(tab).first).to_have_text("09999.a-long-name-")
    assert names(tab).count() < 40
    assert tab.page.evaluate(IS_WIDE_ENOUGH)
    assert faults(tab) == []
    view = tab.by_id("queues-view")
    view.evaluate("view => { view.scrollTop = view.scrollHeight / 2 }")
    expect(row(tab, "05000.a-long-name-")).to_be_visible()
    assert names(tab).count() < 40
    redis.lpush("queue:05000.a-long-name-", "b", "c")
    expect(row(tab, "05000.a-long-name-").locator(".count")).to_contain_text("3")
    ReliableQueue(redis, "05000.a-long-name-").reserve(600)
    expect(row(tab, "05000.a-long-name-").locator(".why-more")).to_have_text("1 reserved")
    view.evaluate("view => { view.scrollTop = view.scrollHeight }")
    expect(names(tab).last).to_have_text("09998.a-long-name-")
    until(lambda: names(tab).count() < 40)


def test_tabs_share_the_only_stream_and_a_reader_can_follow_it(
    tabs: Callable[..., Tab], token_site: App, seed: Callable[..., None]
) -> None:
    tab = tabs(token_site.url)
    tab.page.goto(f"{tab.url}/queues")
    tab.sign_in(READ_TOKEN)
    expect(tab.page).to_have_url(f"{tab.url}/queues")
    expect(tab.by_id("live")).to_have_attribute("data-connection", "live")
    other = Tab(tab.page.context.new_page(), tab.url, tab.name).open_queues()
    seed("a")
    late = Tab(tab.page.context.new_page(), tab.url, tab.name).open_queues()
    for one in (tab, other, late):
        one.by_id("queues-filter").fill(tab.name)
        expect(row(one, tab.name)).to_be_visible()
