"""Following the queue: changes made elsewhere, the charts, lost connections, and lost responses."""

import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.page.conftest import Tab
from tests.servers import App, Store


def test_two_tabs_and_curl_see_the_changes_of_each_other(tabs: Callable[..., Tab], site: App, name: str) -> None:
    one, two = tabs().open(), tabs().open()
    one.by_id("push-text").fill("from one")
    one.by_id("push-go").click()
    two.shows("from one")
    api = f"{site.url}/api/queue/{name}"
    subprocess.run(["curl", "-sSf", "-d", "message=from curl", f"{api}/push"], check=True, timeout=20)
    one.shows("from one", "from curl")
    two.shows("from one", "from curl")
    two.by_id("pop").click()
    one.shows("from curl")
    popped = subprocess.run(["curl", "-sSf", "-X", "POST", f"{api}/pop"], check=True, timeout=20, capture_output=True)
    assert b"from curl" in popped.stdout
    for tab in (one, two):
        expect(tab.by_id("empty")).to_be_visible()
        expect(tab.by_id("count")).to_have_text("0")


def test_the_chart_follows_the_depth_and_outlives_a_reload(tab: Tab, valkey: Store, name: str) -> None:
    for count in (3, 7):
        valkey.client().lpush("queue:" + name, *(["x"] * (count - int(tab.by_id("count").inner_text()))))
        expect(tab.by_id("count")).to_have_text(str(count))
    label = "Queue depth over the last minute: from 0 to 7, now 7"
    expect(tab.by_id("chart")).to_have_attribute("aria-label", label)
    assert tab.by_id("chart-line").get_attribute("d").count("V") == 2  # type: ignore[union-attr]
    expect(tab.by_id("chart-top")).to_have_text("10")
    valkey.client().rpop("queue:" + name, 6)
    expect(tab.by_id("count")).to_have_text("1")
    tab.page.reload()
    expect(tab.by_id("chart")).to_have_attribute("aria-label", re.compile("from 0 to 7, now 1"))


@pytest.mark.soak
def test_the_page_survives_an_outage_of_redis(
    tabs: Callable[..., Tab], serve: Callable[..., App], own_store: Any
) -> None:
    store = own_store("valkey", "--appendonly", "yes")
    app = serve(REDIS_URL=store.url)
    tab = tabs(url=app.url).open()
    tab.by_id("push-text").fill("kept")
    tab.by_id("push-go").click()
    tab.shows("kept")
    store.end()
    expect(tab.by_id("live")).to_have_text("Redis is unavailable")
    expect(tab.by_id("absent")).to_contain_text("This page reconnects automatically.")
    tab.by_id("pop").click()
    expect(tab.page.get_by_role("alert")).to_contain_text("Redis is unavailable; nothing was changed.")
    late = tabs(url=app.url).open(connection="fault")
    store.start()
    expect(late.by_id("live")).to_have_text("Live")
    late.shows("kept")
    expect(tab.by_id("live")).to_have_text("Live")
    expect(tab.by_id("absent")).to_be_hidden()
    tab.shows("kept")
    tab.by_id("pop").click()
    expect(tab.in_hand().locator(".preview")).to_have_text("kept")
    expect(tab.page.get_by_role("alert")).to_have_count(0)


def test_the_page_survives_a_restart_of_the_server(
    tabs: Callable[..., Tab], serve: Callable[..., App], valkey: Store
) -> None:
    # The server waits until idle connections end, which by default takes 5 s.
    app = serve(REDIS_URL=valkey.url, GUNICORN_CMD_ARGS="--keep-alive=1", WEB_CONCURRENCY="1")
    tab = tabs(url=app.url).open()
    app.end()
    expect(tab.by_id("live")).to_have_text("Reconnecting")
    app.start()
    expect(tab.by_id("live")).to_have_text("Live")
    valkey.client().lpush("queue:" + tab.name, "after")
    tab.shows("after")


@pytest.mark.soak
def test_the_page_survives_an_outage_of_the_network(tab: Tab, valkey: Store, name: str) -> None:
    tab.page.context.set_offline(True)
    expect(tab.by_id("live")).to_have_text("Reconnecting")
    tab.by_id("push-text").fill("not lost")
    tab.by_id("push-go").click()
    expect(tab.page.get_by_role("alert")).to_contain_text("No response. Your text is still here;")
    expect(tab.by_id("push-text")).to_have_value("not lost")
    tab.page.context.set_offline(False)
    expect(tab.by_id("live")).to_have_text("Live")
    tab.by_id("push-go").click()
    tab.shows("not lost")
    expect(tab.page.get_by_role("alert")).to_have_count(0)


def test_a_push_whose_response_is_lost_is_stored_once(tab: Tab, valkey: Store, name: str) -> None:
    lost: list[str] = []

    def lose(route: Any) -> Any:  # the server does the work, and the response never arrives
        if lost:
            return route.continue_()
        route.fetch()
        lost.append(route.request.headers["idempotency-key"])
        return route.abort()

    tab.page.route("**/push", lose)
    tab.by_id("push-text").fill("once")
    tab.by_id("push-go").click()
    expect(tab.by_id("toasts")).to_contain_text("1 message pushed")
    tab.shows("once")
    assert len(lost) == 1
    assert valkey.client().llen("queue:" + name) == 1


def test_a_pop_whose_response_is_lost_loses_no_message(tab: Tab, valkey: Store, name: str) -> None:
    valkey.client().lpush("queue:" + name, "first", "second")
    tab.shows("first", "second")
    lost: list[Any] = []

    def lose(route: Any) -> Any:
        if lost:
            return route.continue_()
        lost.append(route.fetch())
        return route.abort()

    tab.page.route("**/pop", lose)
    tab.by_id("pop").click()
    expect(tab.in_hand().locator(".preview")).to_have_text("first")
    tab.shows("second")


def test_a_key_that_is_not_a_list_is_reported(tabs: Callable[..., Tab], valkey: Store, name: str) -> None:
    valkey.client().set("queue:" + name, "no list")
    tab = tabs().open(connection="fault")
    expect(tab.by_id("live")).to_have_text("Redis error")
    expect(tab.by_id("absent")).to_have_text("The Redis key of this queue is not a list.")
    valkey.client().delete("queue:" + name)
    expect(tab.by_id("live")).to_have_text("Live")


def test_a_hidden_tab_stops_following_until_it_is_visible_again(
    tabs: Callable[..., Tab], valkey: Store, name: str
) -> None:
    tab = tabs().open()
    tab.page.clock.install()
    valkey.client().lpush("queue:" + name, "before")
    tab.shows("before")
    hide = """hidden => {
        Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    tab.page.evaluate(hide, True)
    tab.page.clock.fast_forward(5100)
    expect(tab.by_id("live")).to_have_text("Not updating")
    expect(tab.page).to_have_title(name)  # its last state may be outdated
    expect(tab.by_id("chart")).to_have_attribute("aria-label", re.compile("not updating"))
    expect(tab.by_id("rate-in")).to_have_text("–/s in")
    valkey.client().lpush("queue:" + name, "unseen")
    tab.page.evaluate(hide, False)
    tab.shows("before", "unseen")
    expect(tab.by_id("live")).to_have_text("Live")
    expect(tab.page).to_have_title(f"(2) {name}")
    line = tab.by_id("chart-line").get_attribute("d") or ""
    assert line.count("M") == 2, "the chart has no gap for the time in which the tab was hidden"


def test_all_tabs_of_a_queue_share_one_stream(tabs: Callable[..., Tab], valkey: Store, name: str) -> None:
    tab = tabs()
    streams: list[str] = []
    tab.page.context.on("request", lambda request: streams.append(request.url) if "/events" in request.url else None)
    tab.open()
    others = [tab.page.context.new_page() for _ in range(6)]  # more than the connections that a browser opens
    for other in others:
        other.goto(f"{tab.url}/q/{name}")
        expect(other.locator("#live")).to_have_text("Live")
    assert len(streams) == 1
    others[-1].locator("#push-text").fill("seen by all")
    others[-1].locator("#push-go").click()
    for page in (tab.page, *others):
        expect(page.locator("#rows .row .preview")).to_have_text(["seen by all"])
    # The tab that has the stream is closed, and another takes over.
    tab.page.close()
    valkey.client().lpush("queue:" + name, "after that")
    for other in others:
        expect(other.locator("#rows .row .preview")).to_have_text(["seen by all", "after that"])
    assert len(streams) == 2


def test_a_tab_opened_in_the_background_follows_once_it_is_visible(tabs: Callable[..., Tab], valkey: Store) -> None:
    tab = tabs()
    streams: list[str] = []
    tab.page.on("request", lambda request: streams.append(request.url) if "/events" in request.url else None)
    tab.page.add_init_script("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
    tab.open(connection="idle")
    assert streams == []
    tab.page.evaluate(
        """() => {
        Object.defineProperty(document, "hidden", { value: false, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    )
    expect(tab.by_id("live")).to_have_text("Live")


def test_the_page_says_that_the_server_is_slow(tabs: Callable[..., Tab], seed: Callable[..., None]) -> None:
    tab = tabs().open()
    seed("a")
    tab.page.clock.install()
    with tab.delaying("**/pop"):
        with tab.page.expect_request("**/pop"):
            tab.by_id("pop").click()
        tab.page.clock.fast_forward(3100)
        expect(tab.by_id("toasts")).to_contain_text("The server has not responded yet…")


def test_without_scripts_the_page_says_so_and_shows_no_connection(tabs: Callable[..., Tab]) -> None:
    tab = tabs(java_script_enabled=False)
    tab.page.goto(f"{tab.url}/q/{tab.name}")
    expect(tab.page.locator("noscript p")).to_be_visible()
    expect(tab.by_id("live")).to_be_hidden()


def test_errors_of_an_outage_disappear_after_it(tab: Tab) -> None:
    tab.page.context.set_offline(True)
    expect(tab.by_id("live")).to_have_text("Reconnecting")
    tab.by_id("reserve").click()
    expect(tab.page.get_by_role("alert")).to_have_count(1)
    tab.page.context.set_offline(False)
    expect(tab.by_id("live")).to_have_text("Live")
    expect(tab.page.get_by_role("alert")).to_have_count(0)


def test_a_new_tab_shows_the_history_from_before_it_was_opened(
    tabs: Callable[..., Tab], serve: Callable[..., App], valkey: Store
) -> None:
    site = serve(REDIS_URL=valkey.url)  # the shared one has recorded the queues of many tests
    tab = tabs(site.url).open()
    api = f"{site.url}/api/queue/{tab.name}"
    subprocess.run(["curl", "-sSf", "-d", '{"messages":["a","b","c"]}', f"{api}/push"], check=True, timeout=20)
    valkey.client().lpush("queue:" + tab.name, *"wxyz")
    expect(tab.by_id("count")).to_have_text("7")
    subprocess.run(["curl", "-sSf", "-d", "max=7", f"{api}/pop"], check=True, timeout=20)
    rates = re.compile("up to 0.[3-7] in and 0.7 out")
    expect(tab.by_id("rates")).to_have_attribute("aria-label", rates)  # once a step of ten seconds has ended
    expect(tab.by_id("rate-out")).to_have_text("0.7/s out")
    new = tabs(site.url).open()
    beside = tab.page.context.new_page()  # which gets the history from the tab that has the stream
    beside.goto(f"{tab.url}/q/{tab.name}")
    for page in (new.page, beside):
        expect(page.locator("#count")).to_have_text("0")
        expect(page.locator("#chart")).to_have_attribute("aria-label", re.compile("from 0 to 7, now 0"))
        expect(page.locator("#rates")).to_have_attribute("aria-label", rates)
        for line in ("chart-line", "rates-in-line", "rates-out-line"):
            assert "H" in str(page.locator("#" + line).get_attribute("d"))


def test_any_other_page_can_use_the_client_module(tab: Tab, name: str) -> None:
    tab.page.goto(tab.url + "/nowhere")
    result = tab.page.evaluate(
        """async (name) => {
            const { QueueClient } = await import("/static/js/client.js");
            const queue = new QueueClient(name);
            const counts = [];
            const seen = new Promise((done) => {
                const stop = queue.events({ queue: ({ count }) => counts.push(count) === 2 && (stop(), done()) });
            });
            const waiting = new QueueClient(name + ".other").pop({ wait: 30 });
            await new QueueClient(name + ".other").push({ price: 1.5 });
            while (!counts.length) await new Promise(requestAnimationFrame);
            await queue.push(["a", "b"]);
            await seen;
            const failed = await queue.remove(0, "z").catch((error) => [error.name, error.code, error.status]);
            return [counts, await waiting, await queue.pop(), await queue.pop({ max: 5 }), await queue.pop(), failed];
        }""",
        name,
    )
    assert result == [[0, 2], '{"price":1.5}', "a", ["b"], None, ["QueueError", "stale", 409]]
