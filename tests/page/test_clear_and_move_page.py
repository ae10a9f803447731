"""Clear and its undo, move to another queue, and the way back of dead letters."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.page.conftest import Tab, stored


def test_clear_asks_for_the_name_and_is_undone(tab: Tab, seed: Callable[..., None], redis: Any, name: str) -> None:
    seed("a", "b", "c")
    tab.by_id("clear").click()
    expect(tab.by_id("clearing-text")).to_contain_text("3 waiting messages will be removed.")
    expect(tab.by_id("clearing-go")).to_be_disabled()
    tab.by_id("clearing-name").fill(name + "x")
    expect(tab.by_id("clearing-go")).to_be_disabled()
    tab.by_id("clearing-name").fill(name)
    tab.by_id("clearing-go").click()
    expect(tab.by_id("count")).to_have_text("0")
    expect(tab.by_id("undo-text")).to_have_text("3 messages cleared")
    tab.by_id("undo-go").click()
    tab.shows("a", "b", "c")
    assert stored(redis, name) == [b"a", b"b", b"c"]


def test_clear_and_undo_by_keyboard_also_after_a_reload(tab: Tab, seed: Callable[..., None], name: str) -> None:
    seed("a", "b")
    tab.shows("a", "b")
    tab.by_id("clear").focus()
    tab.press("Enter")
    assert tab.focused() == "clearing-name"
    tab.page.keyboard.type(name)
    tab.press("Enter")
    expect(tab.by_id("count")).to_have_text("0")
    expect(tab.by_id("undo-go")).to_be_focused()
    tab.page.reload()
    expect(tab.by_id("undo-text")).to_have_text("2 messages cleared")
    tab.by_id("undo-go").focus()
    tab.press("Enter")
    tab.shows("a", "b")


def test_two_clears_are_both_undone(tab: Tab, seed: Callable[..., None], name: str) -> None:
    for message in ("first", "second"):
        seed(message)
        tab.shows(message)
        tab.by_id("clear").click()
        tab.page.keyboard.type(name)
        tab.press("Enter")
        expect(tab.by_id("count")).to_have_text("0")
    tab.by_id("undo-go").click()
    tab.shows("second")
    tab.by_id("undo-go").click()
    expect(tab.rows()).to_have_count(2)
    expect(tab.by_id("undo")).to_be_hidden()


def test_clear_is_left_by_escape(tab: Tab, seed: Callable[..., None], name: str) -> None:
    seed("a")
    tab.by_id("clear").click()
    tab.page.keyboard.type(name)
    tab.press("Escape")
    expect(tab.by_id("clearing")).to_be_hidden()
    expect(tab.by_id("clear")).to_be_focused()
    tab.shows("a")


def test_move_some_to_another_queue(tab: Tab, seed: Callable[..., None], redis: Any, name: str) -> None:
    seed("a", "b", "c")
    tab.by_id("move").click()
    tab.page.keyboard.type(name + ".later")
    tab.by_id("moving-max").fill("2")
    tab.press("Enter")
    tab.shows("c")
    expect(tab.by_id("toasts")).to_contain_text(f"2 messages moved to {name}.later")
    assert stored(redis, name + ".later") == [b"a", b"b"]
    tab.page.get_by_role("link", name=f"Open {name}.later").click()
    tab.shows("a", "b")


def test_dead_letters_are_seen_and_moved_back(tab: Tab, seed: Callable[..., None], redis: Any, name: str) -> None:
    redis.lpush(f"{{queue:{name}}}:dead", "bad one", "bad two")
    expect(tab.by_id("dead")).to_have_text("2")
    tab.by_id("dead-link").click()
    expect(tab.page).to_have_url(f"{tab.url}/q/{name}.dead")
    tab.shows("bad one", "bad two")
    tab.by_id("dead-back").click()
    expect(tab.by_id("count")).to_have_text("0")
    tab.page.get_by_role("link", name=f"Open {name}", exact=True).first.click()
    tab.shows("bad one", "bad two")
    assert stored(redis, name) == [b"bad one", b"bad two"]


def test_clearing_what_is_empty_by_now_offers_no_undo(tab: Tab, redis: Any, name: str) -> None:
    redis.lpush("queue:" + name, "hello")
    tab.shows("hello")
    tab.by_id("clear").click()
    redis.delete("queue:" + name)
    tab.by_id("clearing-name").fill(name)
    tab.by_id("clearing-go").click()
    expect(tab.by_id("toasts")).to_contain_text("0 messages cleared")
    expect(tab.by_id("undo")).to_be_hidden()


def test_an_undo_that_is_gone_is_not_offered_again(tab: Tab, redis: Any, name: str) -> None:
    redis.lpush("queue:" + name, "hello")
    tab.shows("hello")
    tab.by_id("clear").click()
    tab.by_id("clearing-name").fill(name)
    tab.by_id("clearing-go").click()
    expect(tab.by_id("undo")).to_be_visible()
    redis.delete(*redis.keys("{queue:" + name + "}:cleared:*"))
    tab.by_id("undo-go").click()
    expect(tab.page.get_by_role("alert")).to_contain_text("has expired")
    expect(tab.by_id("undo")).to_be_hidden()


@pytest.mark.parametrize("target", [".", ".."])
def test_a_move_to_what_no_address_can_hold_is_refused(tab: Tab, redis: Any, name: str, target: str) -> None:
    redis.lpush("queue:" + name, "hello")
    tab.shows("hello")
    tab.by_id("move").click()
    tab.by_id("moving-to").fill(target)
    tab.press("Enter")
    expect(tab.page.get_by_role("alert")).to_contain_text("A queue name has")
    assert stored(redis, name) == [b"hello"]


def test_a_move_to_the_queue_itself_is_refused(tab: Tab, seed: Callable[..., None], redis: Any, name: str) -> None:
    seed("hello")
    tab.shows("hello")
    tab.by_id("move").click()
    tab.by_id("moving-to").fill(name)
    tab.press("Enter")
    expect(tab.page.get_by_role("alert")).to_contain_text("A queue cannot be moved to itself.")
    assert stored(redis, name) == [b"hello"]


def test_dead_letters_say_how_often_they_were_delivered(tab: Tab, redis: Any, name: str) -> None:
    redis.lpush(f"{{queue:{name}}}:dead", "bad")
    tab.open(name + ".dead")
    note = f"Messages from {name} that were buried, or delivered 5 times without an ack."
    expect(tab.page.locator(".waiting .note").first).to_contain_text(note)


def test_a_name_that_is_new_is_said_to_be_while_it_is_typed(tab: Tab, seed: Callable[..., None], name: str) -> None:
    seed("a")
    tab.shows("a")
    tab.by_id("move").click()
    tab.by_id("moving-to").fill(name + "x")
    expect(tab.by_id("moving-new")).to_have_text("This is a new queue.")
    tab.by_id("moving-to").fill(name)
    expect(tab.by_id("moving-new")).to_have_text("")


def test_a_move_into_a_new_queue_is_undone_unless_that_has_changed(
    tab: Tab, seed: Callable[..., None], redis: Any, name: str
) -> None:
    seed("a", "b")
    back = tab.by_id("toasts").get_by_role("button", name="Move back")
    for target, offered in [(f"{name}x", True), (f"{name}y", True), (f"{name}z", False)]:
        redis.lpush(f"queue:{name}z", "older")
        expect(tab.by_id("count")).to_have_text("2")
        tab.by_id("move").click()
        tab.by_id("moving-to").fill(target)
        tab.press("Enter")
        expect(tab.by_id("toasts")).to_contain_text(f"2 messages moved to {target}")
        if not offered:
            assert back.count() == 0
            break
        if target == f"{name}y":
            redis.lpush(f"queue:{target}", "newer")
            back.click()
            expect(tab.page.get_by_role("alert")).to_contain_text(f"{target} has changed since")
            assert stored(redis, target) == [b"a", b"b", b"newer"]
            seed("a", "b")
        else:
            back.click()
            tab.shows("a", "b")
            assert not redis.exists(f"queue:{target}")


def test_dead_letters_are_offered_a_move_to_where_they_came_from(tab: Tab, redis: Any, name: str) -> None:
    redis.lpush(f"{{queue:{name}}}:dead", "bad")
    tab.open(name + ".dead")
    tab.shows("bad")
    tab.by_id("move").click()
    expect(tab.by_id("moving-to")).to_have_value(name)


def test_a_clear_under_a_filter_says_that_it_means_all(tab: Tab, seed: Callable[..., None]) -> None:
    seed("a", "b")
    tab.shows("a", "b")
    tab.by_id("filter").fill("a")
    tab.by_id("clear").click()
    expect(tab.by_id("clearing-text")).to_contain_text("2 waiting messages will be removed.")
    expect(tab.by_id("clearing-text")).to_contain_text("not only those that the filter shows")


def test_dead_letters_of_dead_letters_are_offered_only_where_there_are_some(tab: Tab, redis: Any, name: str) -> None:
    tab.open(name + ".dead")
    expect(tab.by_id("dead-link")).to_be_hidden()
    redis.lpush(f"{{queue:{name}}}:dead:dead", "twice dead")
    expect(tab.by_id("dead-link")).to_be_visible()
