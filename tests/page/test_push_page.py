"""The push box: typing, sending, and failed pushes. `test_files_page` is about pushing files."""

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Locator, expect

from tests.page.conftest import Tab, stored
from tests.servers import App


def test_push_by_mouse(tab: Tab, redis: Any, name: str) -> None:
    tab.by_id("push-text").fill("hello\nworld 👍🏽")
    tab.by_id("push-go").click()
    tab.shows("hello ↵ world 👍🏽")
    expect(tab.by_id("push-text")).to_have_value("")
    assert stored(redis, name) == ["hello\nworld 👍🏽".encode()]


def test_push_by_keyboard(tab: Tab) -> None:
    tab.by_id("push-text").focus()
    tab.page.keyboard.type("first")
    tab.press("Control+Enter")
    tab.shows("first")
    tab.page.keyboard.type("second")
    tab.press("Tab", "Tab", "Tab", "Enter")
    tab.shows("first", "second")
    assert tab.focused() == "push-text"


def test_push_to_the_front(tab: Tab, seed: Callable[..., None]) -> None:
    seed("old")
    tab.by_id("push-text").fill("urgent")
    tab.by_id("push-front").check()
    tab.by_id("push-go").click()
    tab.shows("urgent", "old")


def test_push_one_message_per_line(tab: Tab, redis: Any, name: str) -> None:
    tab.by_id("push-text").fill("one\n\n two \nthree")
    tab.by_id("push-each").check()
    tab.by_id("push-go").click()
    tab.shows("one", " two ", "three")
    assert stored(redis, name) == [b"one", b" two ", b"three"]


def test_push_more_lines_than_fit_into_one_request(tab: Tab, redis: Any, name: str) -> None:
    tab.page.evaluate("text => navigator.clipboard.writeText(text)", "\n".join(f"line {i}" for i in range(2500)))
    tab.by_id("push-text").focus()
    tab.press("Control+v")
    tab.by_id("push-each").check()
    tab.by_id("push-go").click()
    expect(tab.by_id("count")).to_have_text("2,500")
    assert stored(redis, name) == [f"line {i}".encode() for i in range(2500)]


def test_an_empty_field_pushes_nothing_and_the_page_says_why(tab: Tab, redis: Any, name: str) -> None:
    tab.by_id("push-go").click()
    expect(tab.page.get_by_role("alert")).to_have_text("A message cannot be empty.×")
    assert stored(redis, name) == []


def test_a_message_that_is_too_large_is_refused_before_it_is_sent(tabs: Callable[..., Tab], small_site: App) -> None:
    tab = tabs(url=small_site.url).open()
    sent: list[str] = []
    tab.page.on("request", lambda request: sent.append(request.url) if "/push" in request.url else None)
    tab.by_id("push-text").fill("é" * 512 + "x")
    tab.by_id("push-go").click()
    alert = tab.page.get_by_role("alert").locator(".text")
    expect(alert).to_have_text("The message is too large (limit: 1 KiB).")
    expect(tab.by_id("push-text")).to_have_value("é" * 512 + "x")
    assert sent == []
    tab.by_id("push-each").check()
    tab.by_id("push-text").fill("é\n" * 512 + "x")  # no line is too large
    tab.by_id("push-go").click()
    expect(tab.by_id("count")).to_have_text("513")


def test_typed_text_outlives_an_error_and_a_reload(tab: Tab, redis: Any, name: str) -> None:
    redis.set("queue:" + name, "not a list")
    tab.by_id("push-text").fill("precious")
    tab.by_id("push-go").click()
    expect(tab.page.get_by_role("alert")).to_contain_text("is not a list")
    expect(tab.by_id("push-text")).to_have_value("precious")
    tab.page.reload()
    expect(tab.by_id("push-text")).to_have_value("precious")
    redis.delete("queue:" + name)


def test_typing_can_continue_while_a_push_is_being_sent(tab: Tab) -> None:
    tab.by_id("push-text").focus()
    with tab.delaying("**/push"):
        with tab.page.expect_request("**/push"):
            for word in ("first", "second", "third"):
                tab.page.keyboard.type(word)
                tab.press("Control+Enter")
                expect(tab.by_id("push-text")).to_have_value("")
        tab.page.keyboard.type("a fo")
    tab.page.keyboard.type("urth")
    tab.shows("first", "second", "third")
    expect(tab.by_id("push-text")).to_have_value("a fourth")


def unsent(tab: Tab) -> Locator:
    return tab.page.locator("#unsent .preview")


def test_failed_pushes_stay_apart_from_the_text_being_typed(tab: Tab, redis: Any, name: str) -> None:
    redis.set("queue:" + name, "not a list")
    with tab.delaying("**/push"), tab.page.expect_request("**/push"):
        for word in ("first", "second\nlines"):
            tab.by_id("push-text").fill(word)
            tab.by_id("push-each").set_checked(word != "first")
            tab.by_id("push-go").click()
        tab.by_id("push-text").fill("thi")
    expect(tab.page.get_by_role("alert")).to_contain_text("is not a list")
    expect(unsent(tab)).to_have_text(["first", "second ↵ lines"])
    tab.by_id("push-text").press_sequentially("rd")
    tab.page.reload()
    expect(tab.by_id("push-text")).to_have_value("third")
    expect(tab.by_id("push-each")).to_be_checked()
    expect(unsent(tab)).to_have_text(["first", "second ↵ lines"])
    redis.delete("queue:" + name)
    for _ in range(2):
        tab.page.get_by_role("button", name="Push again").first.click()
    tab.shows("first", "second", "lines")
    expect(unsent(tab)).to_have_count(0)
    expect(tab.by_id("push-text")).to_have_value("third")


def test_a_failed_push_can_be_edited_and_discarded(tab: Tab, redis: Any, name: str) -> None:
    redis.set("queue:" + name, "not a list")
    with tab.delaying("**/push?front*"), tab.page.expect_request("**/push?front*"):
        tab.by_id("push-text").fill("first")
        tab.by_id("push-front").check()
        tab.by_id("push-go").click()
        tab.by_id("push-text").fill("second")
    expect(unsent(tab)).to_have_text(["first"])
    tab.page.get_by_role("button", name="Edit").click()
    expect(tab.by_id("push-text")).to_have_value("first")
    expect(tab.by_id("push-front")).to_be_checked()
    expect(unsent(tab)).to_have_text(["second"])
    tab.by_id("push-text").fill("")
    tab.by_id("unsent").get_by_role("button", name="Discard").click()
    expect(unsent(tab)).to_have_count(0)
    tab.page.get_by_role("button", name="Undo").click()
    expect(tab.by_id("push-text")).to_have_value("second")
    redis.delete("queue:" + name)


def test_a_push_whose_response_is_lost_in_a_reload_is_stored_once(tab: Tab, redis: Any, name: str) -> None:
    tab.by_id("push-text").fill("once")
    tab.page.route("**/push", lambda route: route.fetch() and None)  # stored, but without a response
    tab.by_id("push-go").click()
    tab.shows("once")
    tab.page.reload()
    expect(tab.by_id("push-text")).to_have_value("once")
    tab.page.unroute("**/push")
    tab.by_id("push-go").click()
    expect(tab.by_id("toasts")).to_contain_text("1 message pushed")
    assert stored(redis, name) == [b"once"]


def test_many_lines_can_be_pushed_to_the_front(tab: Tab, redis: Any, name: str) -> None:
    redis.lpush("queue:" + name, "old")
    lines = [f"line {i}" for i in range(1500)]
    tab.by_id("push-text").evaluate("(text, lines) => { text.value = lines.join('\\n'); }", lines)
    tab.by_id("push-each").check()
    tab.by_id("push-front").check()
    tab.by_id("push-go").click()
    expect(tab.by_id("count")).to_have_text("1,501")
    assert stored(redis, name) == [*(line.encode() for line in lines), b"old"]


def test_a_double_click_pushes_and_puts_back_once_without_an_error(tab: Tab, redis: Any, name: str) -> None:
    tab.by_id("push-text").fill("hello")
    tab.by_id("push-go").dblclick()
    tab.shows("hello")
    expect(tab.page.get_by_role("alert")).to_have_count(0)
    tab.by_id("pop").click()
    expect(tab.in_hand()).to_have_count(1)
    tab.in_hand().get_by_role("button", name="Put back").dblclick()
    tab.shows("hello")
    expect(tab.in_hand()).to_have_count(0)
    assert stored(redis, name) == [b"hello"]


def test_typed_lines_that_were_not_pushed_stay(tab: Tab, redis: Any, name: str) -> None:
    lines = ["x" * 1000] * 1500 + ["never"]  # more than one slice
    tab.by_id("push-text").evaluate("(text, lines) => { text.value = lines.join('\\n'); }", lines)
    tab.by_id("push-each").check()
    asked: list[Any] = []

    def cut(route: Any) -> None:
        asked.append(route)
        route.continue_() if len(asked) == 1 else route.abort()

    tab.page.route("**/push?each=line", cut)
    tab.by_id("push-go").click()
    expect(tab.page.get_by_role("alert")).to_be_visible()
    left = tab.by_id("push-text").input_value().split("\n")
    assert left[-1] == "never"
    assert redis.llen("queue:" + name) + len(left) == 1501
