"""Pop, reserve and put back: the messages in hand stay on the page and are never lost."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.page.conftest import Tab, stored
from tests.servers import App


def test_empty_and_too_large_messages_of_other_clients_can_be_popped_put_back_and_removed(
    tabs: Callable[..., Tab], small_site: App, redis: Any, name: str
) -> None:
    tab = tabs(url=small_site.url).open()
    messages = [b"", b"x" * 5000, b"\xff" * 5000]
    redis.lpush("queue:" + name, *messages)
    expect(tab.rows()).to_have_count(3)
    for left in (2, 1, 0):
        tab.by_id("pop").click()
        expect(tab.by_id("count")).to_have_text(str(left))
    tab.by_id("put-all-back").click()
    expect(tab.in_hand()).to_have_count(0)
    assert stored(redis, name) == messages
    for left in (2, 1, 0):
        tab.page.get_by_role("button", name="Remove message 1").click()
        expect(tab.by_id("count")).to_have_text(str(left))
    tab.in_hand().get_by_role("button", name="Put back").last.click()
    expect(tab.by_id("count")).to_have_text("1")
    assert stored(redis, name) == messages[:1]


def test_a_slow_put_back_is_not_repeated_and_does_not_move_the_focus(tab: Tab, redis: Any, name: str) -> None:
    redis.lpush("queue:" + name, "hello")
    tab.by_id("pop").click()
    back = tab.in_hand().get_by_role("button", name="Put back")
    with tab.delaying("**/push?front*"):
        with tab.page.expect_request("**/push?front*"):
            back.click()
        back.evaluate("button => button.click()")
        tab.by_id("push-text").click()
    tab.shows("hello")
    expect(tab.in_hand()).to_have_count(0)
    assert tab.focused() == "push-text"
    assert stored(redis, name) == [b"hello"]


def test_a_message_that_arrives_when_waiting_is_stopped_is_not_lost(tab: Tab, redis: Any, name: str) -> None:
    def stop(route: Any) -> None:
        if "wait=" not in route.request.url:
            route.continue_()
            return
        route.fetch()  # it is popped, and the response arrives too late
        tab.by_id("take-stop").evaluate("button => button.click()")

    redis.lpush("queue:" + name, "hello")
    tab.page.route("**/pop*", stop)
    tab.page.locator(".more summary").click()
    tab.by_id("take-wait").fill("20")
    tab.by_id("pop").click()
    expect(tab.in_hand()).to_contain_text(["hello"])
    assert stored(redis, name) == []


@pytest.mark.soak
def test_more_than_one_response_can_hold_is_put_back_in_order(tab: Tab, redis: Any, name: str) -> None:
    messages = [b"%02d" % i + b"x" * 1_000_000 for i in range(18)]
    redis.lpush("queue:" + name, *messages)
    tab.page.locator(".more summary").click()
    tab.by_id("take-max").fill("100")
    tab.by_id("pop").click()
    expect(tab.in_hand()).not_to_have_count(0)
    tab.by_id("pop").click()
    expect(tab.in_hand()).to_have_count(18)
    expect(tab.by_id("count")).to_have_text("0")
    tab.by_id("put-all-back").click()
    expect(tab.in_hand()).to_have_count(0)
    assert stored(redis, name) == messages


def test_pop_and_put_back_by_mouse(tab: Tab, seed: Callable[..., None], redis: Any, name: str) -> None:
    seed("one", "two")
    tab.by_id("pop").click()
    tab.shows("two")
    expect(tab.in_hand().locator(".preview")).to_have_text("one")
    tab.in_hand().get_by_role("button", name="Put back").click()
    tab.shows("one", "two")
    expect(tab.in_hand()).to_have_count(0)
    assert stored(redis, name) == [b"one", b"two"]


def test_pop_and_put_back_by_keyboard(tab: Tab, seed: Callable[..., None]) -> None:
    seed("one", "two")
    tab.shows("one", "two")
    tab.by_id("push-text").focus()
    while tab.focused() != "pop":
        tab.press("Tab")
    tab.press("Enter")
    tab.shows("two")
    while "back" not in tab.focused():
        tab.press("Tab")
    tab.press("Enter")
    tab.shows("one", "two")
    assert tab.focused() == "pop"


def test_put_back_loses_no_byte(tab: Tab, seed: Callable[..., None], redis: Any, name: str) -> None:
    messages = [b"\xff\x00\x01raw", "é\u2028\r\n\x00 end ".encode(), b'{"a": 1.10}', b" "]
    seed(*messages, b"other")
    expect(tab.rows()).to_have_count(5)
    for left in (4, 3, 2, 1):
        tab.by_id("pop").click()
        expect(tab.by_id("count")).to_have_text(str(left))
    tab.by_id("put-all-back").click()
    expect(tab.rows()).to_have_count(5)
    assert stored(redis, name) == [*messages, b"other"]


def test_several_messages_are_popped_and_put_back_in_order(
    tab: Tab, seed: Callable[..., None], redis: Any, name: str
) -> None:
    seed(*(f"m{i}" for i in range(8)))
    tab.page.get_by_text("Options").click()
    tab.by_id("take-max").fill("5")
    tab.by_id("pop").click()
    tab.shows("m5", "m6", "m7")
    expect(tab.in_hand().locator(".preview")).to_have_text(["m4", "m3", "m2", "m1", "m0"])
    tab.page.get_by_role("button", name="Put all back").click()
    tab.shows(*(f"m{i}" for i in range(8)))
    assert stored(redis, name) == [f"m{i}".encode() for i in range(8)]


def test_a_popped_message_outlives_a_reload(tab: Tab, seed: Callable[..., None]) -> None:
    seed("precious")
    tab.by_id("pop").click()
    expect(tab.in_hand()).to_have_count(1)
    tab.page.reload()
    expect(tab.in_hand().locator(".preview")).to_have_text("precious")
    tab.in_hand().get_by_role("button", name="Put back").click()
    tab.shows("precious")


def test_a_discarded_message_can_be_restored(tab: Tab, seed: Callable[..., None]) -> None:
    seed("precious")
    tab.by_id("pop").click()
    tab.in_hand().get_by_role("button", name="Discard").click()
    expect(tab.in_hand()).to_have_count(0)
    tab.by_id("toasts").get_by_role("button", name="Undo").click()
    expect(tab.in_hand().locator(".preview")).to_have_text("precious")


def test_pop_from_an_empty_queue_says_so(tab: Tab) -> None:
    tab.by_id("pop").click()
    expect(tab.by_id("take-status")).to_have_text("The queue is empty")
    expect(tab.page.get_by_role("alert")).to_have_count(0)


def test_pop_waits_for_a_message(tab: Tab, seed: Callable[..., None]) -> None:
    tab.page.get_by_text("Options").click()
    tab.by_id("take-wait").fill("60")
    tab.by_id("pop").click()
    expect(tab.by_id("waiters")).to_have_text("1 consumer waiting")
    seed("at last")
    expect(tab.in_hand().locator(".preview")).to_have_text("at last")
    expect(tab.by_id("waiters")).to_have_text("No consumer is waiting")


def test_a_pop_that_is_stopped_takes_nothing(tab: Tab, seed: Callable[..., None]) -> None:
    tab.page.get_by_text("Options").click()
    tab.by_id("take-wait").fill("60")
    tab.by_id("pop").click()
    tab.by_id("take-stop").click()
    expect(tab.by_id("take-stop")).to_be_hidden()
    expect(tab.by_id("waiters")).to_have_text("No consumer is waiting")
    seed("safe")
    tab.shows("safe")
    expect(tab.in_hand()).to_have_count(0)


def test_reserve_then_ack(tab: Tab, seed: Callable[..., None], redis: Any, name: str) -> None:
    seed("work")
    tab.by_id("reserve").click()
    expect(tab.by_id("reserved")).to_have_text("1")
    expect(tab.in_hand().locator(".message-card-head")).to_contain_text("Reserved")
    tab.in_hand().get_by_role("button", name="Done (ack)").click()
    expect(tab.by_id("reserved")).to_have_text("0")
    expect(tab.in_hand()).to_have_count(0)
    assert stored(redis, name) == []


def test_reserve_then_more_time_then_put_back(tab: Tab, seed: Callable[..., None]) -> None:
    seed("work", "other")
    tab.by_id("reserve").click()
    tab.shows("other")
    tab.in_hand().get_by_role("button", name="More time").click()
    expect(tab.by_id("toasts")).to_contain_text("Reserved for 30 seconds from now")
    tab.in_hand().get_by_role("button", name="Put back").click()
    tab.shows("work", "other")


def test_a_lease_that_has_ended_is_shown(tab: Tab, seed: Callable[..., None]) -> None:
    seed("work")
    tab.page.get_by_text("Options").click()
    tab.by_id("take-lease").fill("1")
    tab.by_id("reserve").click()
    expect(tab.in_hand().locator(".left")).to_have_text("Time is up; it went back to the queue")
    tab.shows("work")


def test_the_last_lease_that_ends_makes_a_dead_letter(tab: Tab, seed: Callable[..., None], name: str) -> None:
    seed("work")
    for _ in range(4):
        tab.post("release", id=tab.post("reserve")["id"])
    tab.page.get_by_text("Options").click()
    tab.by_id("take-lease").fill("1")
    tab.by_id("reserve").click()
    expect(tab.in_hand().locator(".left")).to_contain_text("delivery 5 of 5")
    expect(tab.in_hand().locator(".left")).to_have_text("Time is up; it is now a dead letter")
    expect(tab.by_id("dead")).to_have_text("1")
    tab.in_hand().get_by_role("button", name="Close").click()
    expect(tab.in_hand()).to_have_count(0)
    expect(tab.by_id("toasts").get_by_role("button", name="Undo")).to_have_count(0)


def test_a_proxys_page_in_place_of_a_pops_response_loses_nothing(tab: Tab, seed: Callable[..., None]) -> None:
    seed("precious")
    answers = iter(["lost"])

    def answer(route: Any) -> None:
        if next(answers, None):
            route.fetch()  # it is popped, and a proxy responds in place of the server
            route.fulfill(status=502, body="<h1>Bad Gateway</h1>", content_type="text/html")
        else:
            route.continue_()

    tab.page.route("**/pop", answer)
    tab.by_id("pop").click()
    expect(tab.in_hand().locator(".preview")).to_have_text("precious")


def test_a_copy_of_the_tab_does_not_put_a_message_back_a_second_time(
    tab: Tab, seed: Callable[..., None], redis: Any, name: str
) -> None:
    seed("once")
    tab.by_id("pop").click()
    expect(tab.in_hand()).to_have_count(1)
    with tab.page.expect_popup() as popup:  # it gets a copy of this tab's storage, as a duplicated tab does
        tab.page.evaluate("window.open(location.href)")
    copy = popup.value
    expect(copy.locator("#taken .message-card")).to_have_count(1)
    tab.in_hand().get_by_role("button", name="Put back").click()
    tab.shows("once")
    copy.locator("#taken").get_by_role("button", name="Put back").click()
    expect(copy.locator("#taken .message-card")).to_have_count(0)
    assert stored(redis, name) == [b"once"]


def test_the_options_outlive_a_reload(tab: Tab) -> None:
    tab.page.get_by_text("Options").click()
    tab.by_id("take-lease").fill("600")
    tab.by_id("take-max").fill("5")
    tab.press("Tab")
    tab.page.reload()
    expect(tab.by_id("take-lease")).to_have_value("600")
    expect(tab.by_id("take-max")).to_have_value("5")


def test_popped_messages_outlive_their_tab_and_being_discarded(
    tabs: Callable[..., Tab], seed: Callable[..., None], redis: Any, name: str
) -> None:
    tab = tabs().open()
    seed("one", "two")
    for message in ("one", "two"):
        tab.by_id("pop").click()
        expect(tab.in_hand().first.locator(".preview")).to_have_text(message)
    expect(tab.by_id("recent")).to_be_hidden()
    tab.in_hand().first.get_by_role("button", name="Discard").click()
    expect(tab.by_id("recent-count")).to_have_text("1")
    other = tab.page.context.new_page()
    tab.page.close()
    other.goto(f"{tab.url}/q/{name}")
    expect(other.locator("#recent-count")).to_have_text("2")
    other.locator("#recent summary").click()
    expect(other.locator("#recent .preview")).to_have_text(["two", "one"])
    other.locator("#recent").get_by_role("button", name="Put back").first.click()
    expect(other.locator("#rows .row .preview")).to_have_text(["two"])
    expect(other.locator("#recent-count")).to_have_text("1")
    assert stored(redis, name) == [b"two"]
