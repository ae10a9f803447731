"""Delayed and reserved messages, burying, dead letters, pause, and search."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tests.page.conftest import Tab, stored
from tests.servers import until


def reserve(tab: Tab, message: str, lease: float = 600) -> str:
    """Push a message and reserve it as another client; return its id."""
    tab.post("push", message=message)
    return str(tab.post("reserve", lease=lease)["id"])


# --- delays


def test_a_delayed_message_becomes_available_later(tab: Tab) -> None:
    tab.by_id("push-text").fill("in a second")
    tab.by_id("push-delay").fill("1")
    tab.by_id("push-go").click()
    expect(tab.by_id("toasts")).to_contain_text("1 message pushed; available at ")
    expect(tab.by_id("curl-line")).to_contain_text("push?delay=1")
    tab.shows("in a second")
    expect(tab.by_id("push-delay")).to_have_value("")


def test_a_delay_excludes_a_push_to_the_front_even_after_a_reload(tab: Tab) -> None:
    tab.by_id("push-delay").fill("60")
    expect(tab.by_id("push-front")).to_be_disabled()
    tab.page.reload()
    expect(tab.by_id("push-delay")).to_have_value("60")
    expect(tab.by_id("push-front")).to_be_disabled()
    tab.by_id("push-delay").fill("")
    tab.by_id("push-front").check()
    expect(tab.by_id("push-delay")).to_be_disabled()


# --- reserved and delayed messages


def test_reserved_messages_are_listed_and_the_list_follows_the_queue(tab: Tab) -> None:
    first = reserve(tab, "first")
    tab.post("release", id=first, reason="disk full")
    reserve(tab, "second")
    expect(tab.by_id("reserved")).to_have_text("1")
    tab.by_id("reserved-open").click()
    expect(tab.in_flight()).to_have_count(1)
    expect(tab.in_flight().locator(".preview")).to_have_text("first")
    expect(tab.in_flight().locator(".until")).to_contain_text("delivery 2 of 5")
    expect(tab.in_flight().locator(".until")).to_contain_text("back in the queue in 9 min")
    # Another client reserves the other one while the dialog is open.
    tab.in_flight().get_by_role("button", name="Put back").focus()
    tab.post("reserve", lease=30)
    expect(tab.in_flight().locator(".preview")).to_have_text(["second", "first"])
    assert tab.page.evaluate("document.activeElement.closest('.message-card').textContent").find("first") > 0
    expect(tab.by_id("curl-line")).to_contain_text("/reserved")


def test_a_message_reserved_elsewhere_can_be_extended_acked_and_put_back(tab: Tab, redis: Any, name: str) -> None:
    for message in ("one", "two"):
        reserve(tab, message, lease=60)
    expect(tab.by_id("reserved")).to_have_text("2")
    tab.by_id("reserved-open").click()
    expect(tab.in_flight()).to_have_count(2)
    card = tab.in_flight().filter(has_text="two")
    card.get_by_role("button", name="More time").click()
    expect(tab.by_id("held").locator(".toast")).to_contain_text("Reserved for 30 seconds from now")
    expect(card.locator(".until")).to_contain_text("back in the queue in 2")
    card.get_by_role("button", name="Done (ack)").click()
    expect(tab.in_flight()).to_have_count(1)
    tab.in_flight().get_by_role("button", name="Put back").click()
    expect(tab.in_flight()).to_have_count(0)
    expect(tab.by_id("held-status")).to_have_text("No reserved messages")
    expect(tab.by_id("held-title")).to_be_focused()
    assert stored(redis, name) == [b"one"]
    tab.press("Escape")
    expect(tab.by_id("reserved-open")).to_be_focused()


def test_a_message_that_is_acked_in_the_list_is_no_longer_in_hand(tab: Tab, seed: Callable[..., None]) -> None:
    seed("mine")
    tab.by_id("reserve").click()
    expect(tab.in_hand()).to_have_count(1)
    tab.by_id("reserved-open").click()
    tab.in_flight().get_by_role("button", name="Done (ack)").click()
    expect(tab.in_hand()).to_have_count(0)


def test_the_last_delivery_says_that_it_becomes_a_dead_letter(tab: Tab) -> None:
    reservation = reserve(tab, "work")
    for _ in range(4):
        tab.post("release", id=reservation)
        reservation = tab.post("reserve", lease=600)["id"]
    tab.by_id("reserved-open").click()
    expect(tab.in_flight().locator(".until")).to_contain_text("a dead letter in 9 min")
    expect(tab.in_flight().locator(".until")).to_contain_text("delivery 5 of 5")


def test_the_time_left_is_right_even_if_the_clock_is_wrong(tabs: Callable[..., Tab]) -> None:
    tab = tabs().open()
    reserve(tab, "work")
    tab.page.clock.install(time="2020-01-01T00:00:00")
    tab.by_id("reserved-open").click()
    expect(tab.in_flight().locator(".until")).to_contain_text("back in the queue in 9 min")


def test_delayed_messages_can_be_put_back_buried_or_removed(tab: Tab, redis: Any, name: str) -> None:
    for message in ("now", "never", "bad"):
        tab.post("push", message=message, delay=600)
    tab.by_id("delayed-open").click()
    expect(tab.in_flight()).to_have_count(3)
    expect(tab.in_flight().first.locator(".until")).to_contain_text("available in 9 min")
    tab.in_flight().filter(has_text="now").get_by_role("button", name="Put back").click()
    expect(tab.in_flight()).to_have_count(2)
    tab.in_flight().filter(has_text="bad").get_by_role("button", name="Delay or bury").click()
    tab.by_id("releasing-reason").fill("a duplicate")
    tab.by_id("releasing").get_by_role("button", name="Bury").click()
    expect(tab.in_flight()).to_have_count(1)
    tab.in_flight().get_by_role("button", name="Remove").click()
    expect(tab.in_flight()).to_have_count(0)
    assert stored(redis, name) == [b"now"]
    assert redis.lrange(f"{{queue:{name}}}:dead", 0, -1) == [b"bad"]
    tab.press("Escape")
    expect(tab.in_hand().locator(".preview")).to_have_text("never")  # a removed message can be put back
    tab.in_hand().get_by_role("button", name="Put back").click()
    tab.shows("never", "now")


def test_the_list_reads_only_the_beginnings_of_the_first_hundred_messages(tab: Tab) -> None:
    messages = [f"{i} " + "x" * 20_000 for i in range(120)]
    tab.post("push", messages=messages, delay=600)
    expect(tab.by_id("delayed")).to_have_text("120")
    with tab.page.expect_response("**/delayed?*") as answer:
        tab.by_id("delayed-open").click()
    assert len(answer.value.body()) < 100_000
    expect(tab.in_flight()).to_have_count(100)
    expect(tab.by_id("held-status")).to_have_text("Showing the first 100; 20 more")


# --- putting back later, and burying


def test_a_reserved_message_can_be_put_back_for_later(tab: Tab, seed: Callable[..., None]) -> None:
    seed("work")
    expect(tab.by_id("delayed-open")).to_be_hidden()
    tab.by_id("reserve").click()
    tab.in_hand().get_by_role("button", name="Delay or bury").click()
    tab.by_id("releasing-when").select_option("in 10 minutes")
    tab.by_id("releasing").get_by_role("button", name="Put back").click()
    expect(tab.by_id("toasts")).to_contain_text("Put back; available at ")
    expect(tab.in_hand()).to_have_count(0)
    expect(tab.by_id("delayed-open")).to_have_text("1 delayed")


def test_enter_in_the_reason_puts_the_message_back_instead_of_burying_it(tab: Tab, seed: Callable[..., None]) -> None:
    seed("work")
    tab.by_id("reserve").click()
    tab.in_hand().get_by_role("button", name="Delay or bury").click()
    tab.by_id("releasing-reason").fill("busy")
    tab.press("Enter")
    expect(tab.by_id("delayed")).to_have_text("1")
    expect(tab.by_id("dead")).to_have_text("0")


def test_a_dead_letter_says_why_and_when_it_died(tab: Tab, seed: Callable[..., None], name: str) -> None:
    seed("bad")
    tab.by_id("reserve").click()
    tab.in_hand().get_by_role("button", name="Delay or bury").click()
    tab.by_id("releasing-reason").fill("no such <b>customer</b>")
    tab.by_id("releasing").get_by_role("button", name="Bury").click()
    expect(tab.by_id("toasts")).to_contain_text("Moved to the dead letters")
    tab.open(name + ".dead")
    expect(tab.page.locator(".row .reason")).to_have_text("no such <b>customer</b>")
    tab.page.locator(".row .open").click()
    expect(tab.by_id("message-history")).to_contain_text("delivered 1 time · dead-lettered at ")
    expect(tab.by_id("message-history")).to_contain_text("no such <b>customer</b>")


def test_a_waiting_message_shows_its_last_failure_if_there_was_one(tab: Tab, seed: Callable[..., None]) -> None:
    reservation = reserve(tab, "retried")
    seed("fresh")
    tab.post("release", id=reservation, reason="timeout")
    tab.shows("retried", "fresh")
    tab.page.locator(".row .open").first.click()
    expect(tab.by_id("message-history")).to_contain_text("delivered 1 time · failed at ")
    expect(tab.by_id("message-history")).to_contain_text("timeout")
    tab.press("Escape")
    tab.page.locator(".row .open").nth(1).click()
    expect(tab.by_id("message-body")).to_have_text("fresh")
    expect(tab.by_id("message-history")).to_be_hidden()


# --- pause


def test_pause_and_resume_here_and_elsewhere(tab: Tab, seed: Callable[..., None], redis: Any, name: str) -> None:
    tab.post("pause")
    expect(tab.by_id("paused")).to_be_visible()
    tab.post("resume")
    expect(tab.by_id("paused")).to_be_hidden()
    seed("work")
    tab.by_id("pause").click()
    expect(tab.by_id("paused")).to_contain_text("Paused: Pop and Reserve return nothing.")
    expect(tab.by_id("resume")).to_be_focused()
    tab.by_id("pop").click()
    expect(tab.page.get_by_role("alert")).to_contain_text("The queue is paused")
    tab.by_id("reserve").click()
    expect(tab.by_id("take-status")).to_have_text("")  # a paused queue is not called empty
    expect(tab.in_hand()).to_have_count(0)
    assert stored(redis, name) == [b"work"]
    tab.by_id("resume").click()
    expect(tab.by_id("paused")).to_be_hidden()
    expect(tab.by_id("pause")).to_be_focused()
    tab.by_id("pop").click()
    expect(tab.in_hand().locator(".preview")).to_have_text("work")


# --- search


def hits(tab: Tab) -> Locator:
    return tab.page.locator("#search-hits .hit")


def search(tab: Tab, text: str) -> None:
    tab.by_id("filter").fill(text)
    tab.press("Enter")


def test_a_search_covers_the_whole_queue_and_whole_messages(tab: Tab, seed: Callable[..., None]) -> None:
    seed(*(f"order {i}" for i in range(3000)), "x" * 500 + "Needle & thread", "needle again")
    expect(tab.by_id("count")).to_have_text("3,002")
    search(tab, "needle")
    expect(hits(tab).locator(".position")).to_have_text(["3,001", "3,002"])
    expect(tab.by_id("search-status")).to_have_text("2 found")
    hits(tab).nth(1).get_by_role("button", name="Message 3,002: needle again").click()
    expect(tab.by_id("message-body")).to_have_text("needle again")
    tab.press("Escape")
    hits(tab).nth(1).get_by_role("button", name="Show message 3,002 in the list").click()
    expect(tab.page.locator(":focus .preview")).to_have_text("needle again")
    expect(tab.by_id("filter")).to_have_value("")
    expect(tab.by_id("search")).to_be_hidden()


def test_search_results_can_be_moved(tab: Tab, seed: Callable[..., None], redis: Any, name: str) -> None:
    seed("keep 1", "move 1", "keep 2", "move 2")
    tab.by_id("filter").fill("MOVE")
    tab.by_id("search-open").click()
    expect(hits(tab)).to_have_count(2)
    tab.by_id("search-move").click()
    expect(tab.by_id("moving-contains")).to_have_text("Only messages that contain “MOVE”.")
    tab.by_id("moving-to").fill(name + ".other")
    tab.press("Enter")
    expect(tab.by_id("search").locator(".toast")).to_contain_text(f"2 messages moved to {name}.other")
    expect(tab.by_id("search-status")).to_have_text("0 found")
    assert stored(redis, name) == [b"keep 1", b"keep 2"]
    assert stored(redis, name + ".other") == [b"move 1", b"move 2"]
    tab.press("Escape")
    tab.by_id("move").click()
    expect(tab.by_id("moving-contains")).to_be_hidden()


def test_a_search_can_be_stopped(tab: Tab, seed: Callable[..., None]) -> None:
    seed("needle")
    tab.page.route("**/all?contains*", lambda route: None)
    search(tab, "needle")
    expect(tab.by_id("search-status")).to_have_text("Searching…")
    tab.by_id("search-stop").click()
    expect(tab.by_id("search-status")).to_have_text("Stopped: 0 found so far")
    expect(tab.by_id("search-stop")).to_be_hidden()
    expect(tab.by_id("search-text")).to_be_focused()
    tab.page.unroute("**/all?contains*")
    tab.press("Enter")
    expect(tab.by_id("search-status")).to_have_text("1 found")


@pytest.mark.soak
def test_a_search_ends_at_a_thousand(tab: Tab, seed: Callable[..., None]) -> None:
    seed(*(f"order {i}" for i in range(1500)))
    search(tab, "order")
    expect(tab.by_id("search-status")).to_have_text("The first 1,000 matches; there may be more")
    expect(hits(tab)).to_have_count(1000)


# --- while other clients pop


def test_a_row_opens_its_own_message_although_others_were_popped(
    tab: Tab, seed: Callable[..., None], redis: Any, name: str
) -> None:
    seed(*(f"m{i}" for i in range(10)))
    tab.shows(*(f"m{i}" for i in range(10)))
    # Other clients pop between the click and the response.
    tab.page.route("**/all?offset=5&limit=1*", lambda route: (redis.rpop("queue:" + name, 3), route.continue_()))
    tab.page.locator(".row .open").nth(5).click()
    expect(tab.by_id("message-body")).to_have_text("m5")
    expect(tab.by_id("message-title")).to_have_text("Message 3")


def test_a_row_whose_message_is_gone_reports_it(tab: Tab, seed: Callable[..., None], redis: Any, name: str) -> None:
    seed("a", "b", "c")
    tab.shows("a", "b", "c")
    tab.page.route("**/all?offset=1&limit=1*", lambda route: (redis.rpop("queue:" + name, 2), route.continue_()))
    tab.page.locator(".row .open").nth(1).click()
    expect(tab.page.get_by_role("alert")).to_contain_text("This message has moved or is gone.")
    expect(tab.by_id("message")).to_be_hidden()


@pytest.mark.parametrize("locale", ["pt-BR", pytest.param("es", marks=pytest.mark.soak)])
def test_the_controls_fit_on_a_phone_in_every_language(tabs: Callable[..., Tab], locale: str) -> None:
    tab = tabs(width=360, height=740, locale=locale).open()
    reserve(tab, "work" * 100)
    tab.post("push", message="later", delay=600)
    tab.post("pause")
    expect(tab.by_id("paused")).to_be_visible()
    expect(tab.by_id("reserved")).to_have_text("1")
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 360
    tab.by_id("reserved-open").click()
    expect(tab.in_flight()).to_have_count(1)
    rights = "[...document.querySelectorAll('#held button')].map(one => one.getBoundingClientRect().right)"
    until(lambda: max(tab.page.evaluate(rights)) <= 360, 20)
