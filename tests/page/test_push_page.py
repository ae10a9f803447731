"""Everything the page can do, by mouse and by keyboard."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tests.page.conftest import Tab
from tests.servers import Store


@pytest.fixture
def redis(valkey: Store) -> Any:
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


# --- push


def test_push_by_mouse(tab: Tab, redis: Any, name: str) -> None:
    tab.at("push-text").fill("hello\nworld 👍🏽")
    tab.at("push-go").click()
    tab.shows("hello ↵ world 👍🏽")
    expect(tab.at("push-text")).to_have_value("")
    assert stored(redis, name) == ["hello\nworld 👍🏽".encode()]


def test_push_by_keyboard(tab: Tab) -> None:
    tab.at("push-text").focus()
    tab.page.keyboard.type("first")
    tab.press("Control+Enter")
    tab.shows("first")
    tab.page.keyboard.type("second")
    tab.press("Tab", "Tab", "Tab", "Enter")
    tab.shows("first", "second")
    assert tab.focused() == "push-text"


def test_push_to_be_popped_next(tab: Tab, seed: Callable[..., None]) -> None:
    seed("old")
    tab.at("push-text").fill("urgent")
    tab.at("push-next").check()
    tab.at("push-go").click()
    tab.shows("urgent", "old")


def test_push_a_message_a_line(tab: Tab, redis: Any, name: str) -> None:
    tab.at("push-text").fill("one\n\n two \nthree")
    tab.at("push-each").check()
    tab.at("push-go").click()
    tab.shows("one", " two ", "three")
    assert stored(redis, name) == [b"one", b" two ", b"three"]


def test_push_more_lines_than_one_request_takes(tabs: Callable[..., Tab], redis: Any, name: str) -> None:
    tab = tabs(permissions=["clipboard-read", "clipboard-write"]).open()
    tab.page.evaluate("text => navigator.clipboard.writeText(text)", "\n".join(f"line {i}" for i in range(2500)))
    tab.at("push-text").focus()
    tab.press("Control+v")
    tab.at("push-each").check()
    tab.at("push-go").click()
    expect(tab.at("count")).to_have_text("2,500")
    assert stored(redis, name) == [f"line {i}".encode() for i in range(2500)]


def test_nothing_is_pushed_from_an_empty_field_and_the_page_says_why(tab: Tab, redis: Any, name: str) -> None:
    tab.at("push-go").click()
    expect(tab.page.get_by_role("alert")).to_have_text("A message must not be empty.×")
    assert stored(redis, name) == []


def test_what_was_typed_outlives_a_refusal_and_a_reload(tab: Tab, redis: Any, name: str) -> None:
    redis.set("queue:" + name, "not a list")
    tab.at("push-text").fill("precious")
    tab.at("push-go").click()
    expect(tab.page.get_by_role("alert")).to_contain_text("something other than a list")
    expect(tab.at("push-text")).to_have_value("precious")
    tab.page.reload()
    expect(tab.at("push-text")).to_have_value("precious")
    redis.delete("queue:" + name)


def test_one_types_on_while_a_push_is_on_its_way(tab: Tab) -> None:
    tab.page.route("**/push", lambda route: None)  # held on its way
    tab.at("push-text").focus()
    with tab.page.expect_request("**/push"):
        for word in ("first", "second", "third"):
            tab.page.keyboard.type(word)
            tab.press("Control+Enter")
            expect(tab.at("push-text")).to_have_value("")
    tab.page.keyboard.type("a fo")
    tab.page.unroute("**/push")
    tab.page.keyboard.type("urth")
    tab.shows("first", "second", "third")
    expect(tab.at("push-text")).to_have_value("a fourth")


def unsent(tab: Tab) -> Locator:
    return tab.page.locator("#unsent .preview")


def test_what_did_not_get_in_stays_apart_from_what_is_typed(tab: Tab, redis: Any, name: str) -> None:
    redis.set("queue:" + name, "not a list")
    with tab.page.expect_request("**/push"):
        tab.page.route("**/push", lambda route: None)  # held on its way
        for word in ("first", "second\nlines"):
            tab.at("push-text").fill(word)
            tab.at("push-each").set_checked(word != "first")
            tab.at("push-go").click()
        tab.at("push-text").fill("thi")
    tab.page.unroute("**/push")
    expect(tab.page.get_by_role("alert")).to_contain_text("something other than a list")
    expect(unsent(tab)).to_have_text(["first", "second ↵ lines"])
    tab.at("push-text").press_sequentially("rd")
    tab.page.reload()
    expect(tab.at("push-text")).to_have_value("third")
    expect(tab.at("push-each")).to_be_checked()
    expect(unsent(tab)).to_have_text(["first", "second ↵ lines"])
    redis.delete("queue:" + name)
    for _ in range(2):
        tab.page.get_by_role("button", name="Push again").first.click()
    tab.shows("first", "second", "lines")
    expect(unsent(tab)).to_have_count(0)
    expect(tab.at("push-text")).to_have_value("third")


def test_what_did_not_get_in_can_be_edited_and_taken_off(tab: Tab, redis: Any, name: str) -> None:
    redis.set("queue:" + name, "not a list")
    with tab.page.expect_request("**/push?next*"):
        tab.page.route("**/push?next*", lambda route: None)
        tab.at("push-text").fill("first")
        tab.at("push-next").check()
        tab.at("push-go").click()
        tab.at("push-text").fill("second")
    tab.page.unroute("**/push?next*")
    expect(unsent(tab)).to_have_text(["first"])
    tab.page.get_by_role("button", name="Edit").click()
    expect(tab.at("push-text")).to_have_value("first")
    expect(tab.at("push-next")).to_be_checked()
    expect(unsent(tab)).to_have_text(["second"])
    tab.at("push-text").fill("")
    tab.at("unsent").get_by_role("button", name="Take off this list").click()
    expect(unsent(tab)).to_have_count(0)
    tab.page.get_by_role("button", name="Undo").click()
    expect(tab.at("push-text")).to_have_value("second")
    redis.delete("queue:" + name)


def test_a_push_whose_answer_a_reload_lost_happens_once(tab: Tab, redis: Any, name: str) -> None:
    tab.at("push-text").fill("once")
    tab.page.route("**/push", lambda route: route.fetch() and None)  # done, but not answered
    tab.at("push-go").click()
    tab.shows("once")
    tab.page.reload()
    expect(tab.at("push-text")).to_have_value("once")
    tab.page.unroute("**/push")
    tab.at("push-go").click()
    expect(tab.at("toasts")).to_contain_text("1 message pushed")
    assert stored(redis, name) == [b"once"]


def test_next_holds_for_more_lines_than_a_stream_begins_with(tab: Tab, redis: Any, name: str) -> None:
    redis.lpush("queue:" + name, "old")
    lines = [f"line {i}" for i in range(1500)]
    tab.at("push-text").evaluate("(text, lines) => { text.value = lines.join('\\n'); }", lines)
    tab.at("push-each").check()
    tab.at("push-next").check()
    tab.at("push-go").click()
    expect(tab.at("count")).to_have_text("1,501")
    assert stored(redis, name) == [*(line.encode() for line in lines), b"old"]


def test_a_double_click_pushes_and_puts_back_once_and_says_nothing_of_it(tab: Tab, redis: Any, name: str) -> None:
    tab.at("push-text").fill("hello")
    tab.at("push-go").dblclick()
    tab.shows("hello")
    expect(tab.page.get_by_role("alert")).to_have_count(0)
    tab.at("pop").click()
    expect(tab.taken()).to_have_count(1)
    tab.taken().get_by_role("button", name="Put back").dblclick()
    tab.shows("hello")
    expect(tab.taken()).to_have_count(0)
    assert stored(redis, name) == [b"hello"]


def test_a_put_back_that_takes_long_is_no_second_one_and_takes_no_focus(tab: Tab, redis: Any, name: str) -> None:
    redis.lpush("queue:" + name, "hello")
    tab.at("pop").click()
    back = tab.taken().get_by_role("button", name="Put back")
    with tab.page.expect_request("**/push?next*"):
        tab.page.route("**/push?next*", lambda route: None)
        back.click()
    back.evaluate("button => button.click()")
    tab.at("push-text").click()
    tab.page.unroute("**/push?next*")
    tab.shows("hello")
    expect(tab.taken()).to_have_count(0)
    assert tab.focused() == "push-text"
    assert stored(redis, name) == [b"hello"]


def test_a_message_on_its_way_when_the_wait_is_stopped_is_not_lost(tab: Tab, redis: Any, name: str) -> None:
    def hold(route: Any) -> None:
        if "wait=" not in route.request.url:
            route.continue_()
            return
        route.fetch()  # it is popped, and the answer comes too late
        tab.at("take-stop").evaluate("button => button.click()")

    redis.lpush("queue:" + name, "hello")
    tab.page.route("**/pop*", hold)
    tab.page.locator(".more summary").click()
    tab.at("take-wait").fill("20")
    tab.at("pop").click()
    expect(tab.taken()).to_contain_text(["hello"])
    assert stored(redis, name) == []


def test_more_than_one_request_takes_is_put_back_in_order(tab: Tab, redis: Any, name: str) -> None:
    messages = [b"%02d" % i + b"x" * 1_000_000 for i in range(25)]
    redis.lpush("queue:" + name, *messages)
    tab.page.locator(".more summary").click()
    tab.at("take-max").fill("100")
    tab.at("pop").click()
    expect(tab.taken()).not_to_have_count(0)
    tab.at("pop").click()
    expect(tab.taken()).to_have_count(25)
    expect(tab.at("count")).to_have_text("0")
    tab.at("put-all-back").click()
    expect(tab.taken()).to_have_count(0)
    assert stored(redis, name) == messages


def test_whole_files_go_in_in_their_order_and_a_failure_stays(tab: Tab, redis: Any, name: str, tmp_path: Path) -> None:
    for file in ("a.bin", "b.bin"):
        (tmp_path / file).write_text(file)
    refused: list[Any] = []

    def refuse_the_first(route: Any) -> None:
        if refused:
            route.continue_()
        else:
            refused.append(route)
            route.abort()

    tab.page.route("**/push", refuse_the_first)
    tab.at("push-file").set_input_files([tmp_path / "a.bin", tmp_path / "b.bin"])
    for file in ("a.bin", "b.bin"):
        expect(tab.at("dropped-title")).to_contain_text(f"Push {file} ")
        tab.page.get_by_role("button", name="One message").click()
    tab.shows("b.bin")
    expect(tab.at("toasts").get_by_role("alert")).to_contain_text("a.bin: ")


def test_push_a_file_a_message_a_line(tab: Tab, redis: Any, name: str, tmp_path: Path) -> None:
    lines = [f"{i} {'é' * (i % 40)}" for i in range(60_000)]  # more than one slice
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    tab.at("push-file").set_input_files(tmp_path / "lines.txt")
    tab.page.get_by_role("button", name="A message a line").click()
    expect(tab.at("count")).to_have_text("60,000")
    assert stored(redis, name) == [line.encode() for line in lines]
    expect(tab.at("toasts")).to_contain_text("60,000 messages pushed")


def test_push_a_file_as_one_message_byte_for_byte(tab: Tab, redis: Any, name: str, tmp_path: Path) -> None:
    data = bytes(range(256)) * 10
    (tmp_path / "picture.bin").write_bytes(data)
    tab.at("push-file").set_input_files(tmp_path / "picture.bin")
    tab.page.get_by_role("button", name="One message").click()
    expect(tab.at("count")).to_have_text("1")
    assert stored(redis, name) == [data]


def test_a_cancelled_push_says_how_many_went_in(tab: Tab, redis: Any, name: str, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_bytes(b"0123456789012345678901234567890\n" * 400_000)
    held: list[Any] = []

    def hold(route: Any) -> None:  # the third slice waits until the button was pressed
        if len(held) == 2:
            tab.at("push-cancel").evaluate("button => button.click()")
        held.append(route)
        route.continue_()

    tab.page.route("**/push?each=line", hold)
    tab.at("push-file").set_input_files(tmp_path / "lines.txt")
    tab.page.get_by_role("button", name="A message a line").click()
    expect(tab.at("toasts")).to_contain_text("Stopped: 98,304 messages of lines.txt went in")
    assert redis.llen("queue:" + name) == 98_304
    expect(tab.at("push-progress")).to_be_hidden()


def test_typed_lines_that_did_not_get_in_stay(tab: Tab, redis: Any, name: str) -> None:
    lines = ["x" * 1000] * 1500 + ["never"]  # more than one slice
    tab.at("push-text").evaluate("(text, lines) => { text.value = lines.join('\\n'); }", lines)
    tab.at("push-each").check()
    asked: list[Any] = []

    def cut(route: Any) -> None:
        asked.append(route)
        route.continue_() if len(asked) == 1 else route.abort()

    tab.page.route("**/push?each=line", cut)
    tab.at("push-go").click()
    expect(tab.page.get_by_role("alert")).to_be_visible()
    left = tab.at("push-text").input_value().split("\n")
    assert left[-1] == "never"
    assert redis.llen("queue:" + name) + len(left) == 1501


def test_several_files_are_offered_one_after_another(tab: Tab, redis: Any, name: str, tmp_path: Path) -> None:
    for file in ("one", "two", "three", "four"):
        (tmp_path / file).write_text(f"{file} a\n{file} b")
    tab.at("push-file").set_input_files([tmp_path / file for file in ("one", "two", "three", "four")])
    for file in ("one", "two"):
        expect(tab.at("dropped-title")).to_contain_text(f"Push {file} ")
        tab.page.get_by_role("button", name="A message a line").click()
    expect(tab.at("dropped-title")).to_contain_text("Push three ")
    tab.at("dropped").get_by_role("button", name="Cancel").click()
    expect(tab.at("dropped")).to_be_hidden()
    tab.shows("one a", "one b", "two a", "two b")


def test_a_file_that_is_no_text_stops_where_it_fails_and_says_so(
    tab: Tab, redis: Any, name: str, tmp_path: Path
) -> None:
    (tmp_path / "mixed.txt").write_bytes(b"good\nalso good\n\xff\xfe bad\nnever\n")
    tab.at("push-file").set_input_files(tmp_path / "mixed.txt")
    tab.page.get_by_role("button", name="A message a line").click()
    expect(tab.page.get_by_role("alert")).to_contain_text("The text is not valid UTF-8.")
    expect(tab.at("toasts")).to_contain_text("Stopped: 2 messages of mixed.txt went in")
    assert stored(redis, name) == [b"good", b"also good"]


def test_a_dropped_file_is_offered(tab: Tab) -> None:
    transfer = tab.page.evaluate_handle(
        "() => { const t = new DataTransfer(); t.items.add(new File(['a\\nb'], 'dropped.txt')); return t; }"
    )
    tab.page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
    expect(tab.at("drop")).to_be_visible()
    tab.page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    expect(tab.at("drop")).to_be_hidden()
    expect(tab.at("dropped-title")).to_have_text("Push dropped.txt (3 B)")
    tab.page.get_by_role("button", name="A message a line").click()
    tab.shows("a", "b")


# --- pop and put back


def test_pop_by_mouse_keeps_the_message_and_puts_it_back(
    tab: Tab, seed: Callable[..., None], redis: Any, name: str
) -> None:
    seed("one", "two")
    tab.at("pop").click()
    tab.shows("two")
    expect(tab.taken().locator(".preview")).to_have_text("one")
    tab.taken().get_by_role("button", name="Put back").click()
    tab.shows("one", "two")
    expect(tab.taken()).to_have_count(0)
    assert stored(redis, name) == [b"one", b"two"]


def test_pop_and_put_back_by_keyboard(tab: Tab, seed: Callable[..., None]) -> None:
    seed("one", "two")
    tab.shows("one", "two")
    tab.at("push-text").focus()
    while tab.focused() != "pop":
        tab.press("Tab")
    tab.press("Enter")
    tab.shows("two")
    while "back" not in tab.focused():
        tab.press("Tab")
    tab.press("Enter")
    tab.shows("one", "two")
    assert tab.focused() == "pop"


@pytest.mark.parametrize("message", [b"\xff\x00\x01raw", "é\u2028\r\n\x00 end ".encode(), b'{"a": 1.10}', b" "])
def test_put_back_loses_no_byte(tab: Tab, seed: Callable[..., None], redis: Any, name: str, message: bytes) -> None:
    seed(message, b"other")
    expect(tab.rows()).to_have_count(2)
    tab.at("pop").click()
    tab.shows("other")
    tab.taken().get_by_role("button", name="Put back").click()
    expect(tab.rows()).to_have_count(2)
    assert stored(redis, name) == [message, b"other"]


def test_many_are_popped_and_put_back_in_order(tab: Tab, seed: Callable[..., None], redis: Any, name: str) -> None:
    seed(*(f"m{i}" for i in range(8)))
    tab.page.get_by_text("Options").click()
    tab.at("take-max").fill("5")
    tab.at("pop").click()
    tab.shows("m5", "m6", "m7")
    expect(tab.taken().locator(".preview")).to_have_text(["m4", "m3", "m2", "m1", "m0"])
    tab.page.get_by_role("button", name="Put all back").click()
    tab.shows(*(f"m{i}" for i in range(8)))
    assert stored(redis, name) == [f"m{i}".encode() for i in range(8)]


def test_a_popped_message_outlives_a_reload(tab: Tab, seed: Callable[..., None]) -> None:
    seed("precious")
    tab.at("pop").click()
    expect(tab.taken()).to_have_count(1)
    tab.page.reload()
    expect(tab.taken().locator(".preview")).to_have_text("precious")
    tab.taken().get_by_role("button", name="Put back").click()
    tab.shows("precious")


def test_a_message_taken_off_the_list_comes_back(tab: Tab, seed: Callable[..., None]) -> None:
    seed("precious")
    tab.at("pop").click()
    tab.taken().get_by_role("button", name="Take off this list").click()
    expect(tab.taken()).to_have_count(0)
    tab.at("toasts").get_by_role("button", name="Undo").click()
    expect(tab.taken().locator(".preview")).to_have_text("precious")


def test_pop_from_an_empty_queue_says_so(tab: Tab) -> None:
    tab.at("pop").click()
    expect(tab.at("take-said")).to_have_text("The queue is empty")
    expect(tab.page.get_by_role("alert")).to_have_count(0)


def test_pop_waits_for_a_message(tab: Tab, seed: Callable[..., None]) -> None:
    tab.page.get_by_text("Options").click()
    tab.at("take-wait").fill("60")
    tab.at("pop").click()
    expect(tab.at("waiters")).to_have_text("1 consumer waiting")
    seed("at last")
    expect(tab.taken().locator(".preview")).to_have_text("at last")
    expect(tab.at("waiters")).to_have_text("Nobody is listening")


def test_who_stops_waiting_takes_nothing(tab: Tab, seed: Callable[..., None]) -> None:
    tab.page.get_by_text("Options").click()
    tab.at("take-wait").fill("60")
    tab.at("pop").click()
    tab.at("take-stop").click()
    expect(tab.at("take-stop")).to_be_hidden()
    expect(tab.at("waiters")).to_have_text("Nobody is listening")
    seed("safe")
    tab.shows("safe")
    expect(tab.taken()).to_have_count(0)


# --- reserve


def test_reserve_then_ack(tab: Tab, seed: Callable[..., None], redis: Any, name: str) -> None:
    seed("work")
    tab.at("reserve").click()
    expect(tab.at("reserved")).to_have_text("1")
    expect(tab.taken().locator(".took-head")).to_contain_text("Reserved")
    tab.taken().get_by_role("button", name="Done (ack)").click()
    expect(tab.at("reserved")).to_have_text("0")
    expect(tab.taken()).to_have_count(0)
    assert stored(redis, name) == []


def test_reserve_more_time_then_give_back(tab: Tab, seed: Callable[..., None]) -> None:
    seed("work", "other")
    tab.at("reserve").click()
    tab.shows("other")
    tab.taken().get_by_role("button", name="More time").click()
    expect(tab.at("toasts")).to_contain_text("Reserved for 30 seconds more")
    tab.taken().get_by_role("button", name="Give back").click()
    tab.shows("work", "other")


def test_a_reservation_that_ran_out_says_so(tab: Tab, seed: Callable[..., None]) -> None:
    seed("work")
    tab.page.get_by_text("Options").click()
    tab.at("take-lease").fill("1")
    tab.at("reserve").click()
    expect(tab.taken().locator(".left")).to_have_text("The time is over; it went back")
    tab.shows("work")


# --- remove


def test_remove_one_from_the_middle_by_mouse(tab: Tab, seed: Callable[..., None], redis: Any, name: str) -> None:
    seed("a", "b", "c")
    tab.page.get_by_role("button", name="Remove message 2").click()
    tab.shows("a", "c")
    expect(tab.taken().locator(".how")).to_have_text("Removed")
    expect(tab.taken().locator(".preview")).to_have_text("b")
    assert stored(redis, name) == [b"a", b"c"]


def test_remove_what_begins_as_text_and_is_none(tab: Tab, seed: Callable[..., None], redis: Any, name: str) -> None:
    seed("a", b"x" * 5000 + b"\xff", b"\xfe" * 5000)
    tab.page.get_by_role("button", name="Remove message 2").click()
    expect(tab.at("count")).to_have_text("2")
    tab.page.get_by_role("button", name="Remove message 2").click()
    tab.shows("a")
    assert stored(redis, name) == [b"a"]


def test_remove_by_keyboard(tab: Tab, seed: Callable[..., None]) -> None:
    seed("a", "b", "c")
    tab.shows("a", "b", "c")
    tab.page.locator(".row .open").first.focus()
    tab.press("ArrowDown", "Delete")
    tab.shows("a", "c")
    expect(tab.page.locator(".row .open").nth(1)).to_be_focused()


def test_what_moved_meanwhile_is_not_removed(tab: Tab, seed: Callable[..., None], redis: Any, name: str) -> None:
    seed("a", "b", "c")
    tab.shows("a", "b", "c")
    # Between the look and the click another consumer pops.
    tab.page.route("**/all?*", lambda route: (redis.rpop("queue:" + name), route.continue_()))
    tab.page.get_by_role("button", name="Remove message 2").click()
    expect(tab.page.get_by_role("alert")).to_contain_text("The queue moved meanwhile, so nothing was removed.")
    tab.shows("b", "c")
    assert stored(redis, name) == [b"b", b"c"]


# --- clear and undo


def test_clear_asks_for_the_name_and_is_undone(tab: Tab, seed: Callable[..., None], redis: Any, name: str) -> None:
    seed("a", "b", "c")
    tab.at("clear").click()
    expect(tab.at("clearing-text")).to_contain_text("3 waiting messages are taken away.")
    expect(tab.at("clearing-go")).to_be_disabled()
    tab.at("clearing-name").fill(name + "x")
    expect(tab.at("clearing-go")).to_be_disabled()
    tab.at("clearing-name").fill(name)
    tab.at("clearing-go").click()
    expect(tab.at("count")).to_have_text("0")
    expect(tab.at("undo-text")).to_have_text("3 messages cleared")
    tab.at("undo-go").click()
    tab.shows("a", "b", "c")
    assert stored(redis, name) == [b"a", b"b", b"c"]


def test_clear_and_undo_by_keyboard_also_after_a_reload(tab: Tab, seed: Callable[..., None], name: str) -> None:
    seed("a", "b")
    tab.shows("a", "b")
    tab.at("clear").focus()
    tab.press("Enter")
    assert tab.focused() == "clearing-name"
    tab.page.keyboard.type(name)
    tab.press("Enter")
    expect(tab.at("count")).to_have_text("0")
    expect(tab.at("undo-go")).to_be_focused()
    tab.page.reload()
    expect(tab.at("undo-text")).to_have_text("2 messages cleared")
    tab.at("undo-go").focus()
    tab.press("Enter")
    tab.shows("a", "b")


def test_two_clears_are_both_undone(tab: Tab, seed: Callable[..., None], name: str) -> None:
    for message in ("first", "second"):
        seed(message)
        tab.shows(message)
        tab.at("clear").click()
        tab.page.keyboard.type(name)
        tab.press("Enter")
        expect(tab.at("count")).to_have_text("0")
    tab.at("undo-go").click()
    tab.shows("second")
    tab.at("undo-go").click()
    expect(tab.rows()).to_have_count(2)
    expect(tab.at("undo")).to_be_hidden()


def test_clear_is_left_by_escape(tab: Tab, seed: Callable[..., None], name: str) -> None:
    seed("a")
    tab.at("clear").click()
    tab.page.keyboard.type(name)
    tab.press("Escape")
    expect(tab.at("clearing")).to_be_hidden()
    expect(tab.at("clear")).to_be_focused()
    tab.shows("a")


# --- move, switch, dead letters


def test_move_some_to_another_queue(tab: Tab, seed: Callable[..., None], redis: Any, name: str) -> None:
    seed("a", "b", "c")
    tab.at("move").click()
    tab.page.keyboard.type(name + ".later")
    tab.at("moving-max").fill("2")
    tab.press("Enter")
    tab.shows("c")
    expect(tab.at("toasts")).to_contain_text(f"2 messages moved to {name}.later")
    assert stored(redis, name + ".later") == [b"a", b"b"]
    tab.page.get_by_role("link", name=f"Open {name}.later").click()
    tab.shows("a", "b")


def test_open_a_queue_by_name_and_come_back(tab: Tab, seed: Callable[..., None], name: str) -> None:
    seed("here")
    tab.shows("here")
    tab.at("switch").focus()
    tab.press("Enter")
    tab.page.keyboard.type(name + ":new")
    tab.press("Enter")
    expect(tab.page).to_have_url(f"{tab.url}/q/{name}:new")
    expect(tab.page.locator("h1")).to_have_text(name + ":new")
    expect(tab.at("empty")).to_be_visible()
    tab.page.go_back()
    expect(tab.page).to_have_url(f"{tab.url}/q/{name}")
    tab.shows("here")
    tab.at("switch").click()
    link = tab.page.locator(f"#queues-list a[href$='/q/{name}']")
    expect(link).to_have_attribute("aria-current", "page")
    expect(link).to_contain_text("1")


def test_dead_letters_are_seen_and_moved_back(tab: Tab, seed: Callable[..., None], redis: Any, name: str) -> None:
    redis.lpush(f"{{queue:{name}}}:dead", "bad one", "bad two")
    expect(tab.at("dead")).to_have_text("2")
    tab.at("dead-link").click()
    expect(tab.page).to_have_url(f"{tab.url}/q/{name}.dead")
    tab.shows("bad one", "bad two")
    tab.at("dead-back").click()
    expect(tab.at("count")).to_have_text("0")
    tab.page.get_by_role("link", name=f"Open {name}", exact=True).first.click()
    tab.shows("bad one", "bad two")
    assert stored(redis, name) == [b"bad one", b"bad two"]


# --- teach


def run(line: str) -> None:
    subprocess.run(
        ["sh", "-c", line.replace("curl ", "curl -sS --fail ", 1)], check=True, timeout=20, capture_output=True
    )


@pytest.mark.parametrize("message", ["hello", "it's 50% & more", "@file", '{"a": [1.10]}', "two\nlines é", "a\x07b"])
def test_the_curl_line_of_a_push_does_the_same(tab: Tab, redis: Any, name: str, message: str) -> None:
    tab.at("push-text").fill(message)
    tab.at("push-go").click()
    expect(tab.at("count")).to_have_text("1")
    run(tab.at("teach-line").inner_text())
    expect(tab.at("count")).to_have_text("2")
    first, second = stored(redis, name)
    assert first == second == message.encode()


def test_every_act_shows_its_curl_line(tab: Tab, seed: Callable[..., None], redis: Any, name: str) -> None:
    line, api = tab.at("teach-line"), f"{tab.url}/api/queue/{name}"
    expect(line).to_have_text(f"curl -N {api}/events")
    seed("a", "b", "c", "d")
    tab.shows("a", "b", "c", "d")
    tab.at("pop").click()
    expect(line).to_have_text(f"curl -X POST {api}/pop")
    tab.shows("b", "c", "d")
    tab.taken().get_by_role("button", name="Put back").click()
    expect(line).to_have_text(f"curl -d message=a '{api}/push?next=1'")
    tab.shows("a", "b", "c", "d")
    tab.page.get_by_role("button", name="Remove message 2").click()
    expect(line).to_contain_text('{"position":1,"message":"b"}')
    tab.shows("a", "c", "d")
    tab.page.locator(".row .open").first.click()
    expect(line).to_have_text(f"curl '{api}/all?offset=0&limit=1'")
    expect(tab.at("message")).to_be_visible()
    tab.press("Escape")
    tab.at("clear").click()
    tab.page.keyboard.type(name)
    tab.press("Enter")
    expect(line).to_have_text(f"curl -X POST {api}/clear")
    tab.at("undo-go").click()
    expect(line).to_contain_text(f"{api}/restore")
    tab.shows("a", "c", "d")


def test_the_curl_line_of_an_empty_queue_makes_the_page_move(tabs: Callable[..., Tab]) -> None:
    tab = tabs(permissions=["clipboard-read", "clipboard-write"]).open()
    tab.at("empty-copy").click()
    expect(tab.at("empty-copy")).to_have_text("Copied")
    run(tab.page.evaluate("navigator.clipboard.readText()"))
    tab.shows("hello")


def test_clearing_what_is_empty_by_now_offers_no_undo(tab: Tab, redis: Any, name: str) -> None:
    redis.lpush("queue:" + name, "hello")
    tab.shows("hello")
    tab.at("clear").click()
    redis.delete("queue:" + name)
    tab.at("clearing-name").fill(name)
    tab.at("clearing-go").click()
    expect(tab.at("toasts")).to_contain_text("0 messages cleared")
    expect(tab.at("undo")).to_be_hidden()


def test_an_undo_that_is_gone_is_not_offered_again(tab: Tab, redis: Any, name: str) -> None:
    redis.lpush("queue:" + name, "hello")
    tab.shows("hello")
    tab.at("clear").click()
    tab.at("clearing-name").fill(name)
    tab.at("clearing-go").click()
    expect(tab.at("undo")).to_be_visible()
    redis.delete(*redis.keys("{queue:" + name + "}:cleared:*"))
    tab.at("undo-go").click()
    expect(tab.page.get_by_role("alert")).to_contain_text("not there any more")
    expect(tab.at("undo")).to_be_hidden()


@pytest.mark.parametrize("target", [".", ".."])
def test_a_move_to_what_no_address_can_hold_is_refused(tab: Tab, redis: Any, name: str, target: str) -> None:
    redis.lpush("queue:" + name, "hello")
    tab.shows("hello")
    tab.at("move").click()
    tab.at("moving-to").fill(target)
    tab.press("Enter")
    expect(tab.page.get_by_role("alert")).to_contain_text("A queue's name")
    assert stored(redis, name) == [b"hello"]


def test_a_selection_that_ends_beside_a_dialog_leaves_it_open(tab: Tab, redis: Any, name: str) -> None:
    redis.lpush("queue:" + name, "hello")
    tab.rows().first.click()
    tab.at("message").evaluate("dialog => Promise.all(dialog.getAnimations().map((one) => one.finished))")
    box = tab.at("message").bounding_box()
    assert box
    tab.page.mouse.move(box["x"] + 100, 300)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] - 100, 300)
    tab.page.mouse.up()
    assert tab.at("message").evaluate("dialog => dialog.open")
    tab.page.mouse.click(box["x"] + 3, 600)
    assert tab.at("message").evaluate("dialog => dialog.open")
    tab.page.mouse.click(box["x"] - 100, 300)
    expect(tab.at("message")).to_be_hidden()
