"""The page of all queues, and the list of them in the dialog that switches queues."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from broker.queue import ReliableQueue
from tests.page.conftest import Tab
from tests.page.test_access import faults
from tests.servers import App, Store, until

MANY = 10_000
IS_WIDE_ENOUGH = "document.documentElement.scrollWidth <= innerWidth"


@pytest.fixture
def own_site(own_store: Callable[..., Store], serve: Callable[..., App]) -> tuple[str, Any]:
    """An app whose Redis has no queues of other tests: its address, and another client of its Redis."""
    store = own_store()
    return serve(REDIS_URL=store.url, WEB_CONCURRENCY="1").url, store.client()


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
    # What is in trouble comes first, and says why.
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
    # The same in the dialog that switches queues, which leads back too.
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
    expect(tab.by_id("queues-sort")).to_have_value("count")  # it is remembered
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


def test_tabs_share_the_stream_and_a_reader_may_follow_it(
    tabs: Callable[..., Tab], serve: Callable[..., App], own_store: Callable[..., Store]
) -> None:
    store = own_store()
    app = serve(
        REDIS_URL=store.url,
        API_TOKEN="a-token-that-writes",
        READ_TOKEN="a-token-that-reads",
        MAX_BLOCKED_CLIENTS="1",
        WEB_CONCURRENCY="1",
    )
    tab = tabs(app.url)
    tab.page.goto(f"{app.url}/queues")
    tab.by_id("token").fill("a-token-that-reads")
    tab.press("Enter")
    expect(tab.page).to_have_url(f"{app.url}/queues")
    expect(tab.by_id("live")).to_have_attribute("data-connection", "live")
    other = Tab(tab.page.context.new_page(), app.url, tab.name).open_queues()
    store.client().lpush("queue:jobs", "a")
    for one in (tab, other):
        expect(names(one)).to_have_text(["jobs"])
    late = Tab(tab.page.context.new_page(), app.url, tab.name).open_queues()
    expect(names(late)).to_have_text(["jobs"])
