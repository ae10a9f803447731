"""Clearing with undo, moving to another queue, and moving dead letters back."""

from collections.abc import Callable
from typing import Any

from playwright.sync_api import expect

from tests.page.conftest import Tab, stored


def clear(tab: Tab) -> None:
    tab.by_id("clear").click()
    tab.page.keyboard.type(tab.name)
    tab.press("Enter")
    expect(tab.by_id("count")).to_have_text("0")


def move(tab: Tab, target: str) -> None:
    tab.by_id("move").click()
    tab.by_id("moving-to").fill(target)
    tab.press("Enter")


def test_clear_asks_for_the_name_and_can_be_undone(tab: Tab, seed: Callable[..., None], redis: Any, name: str) -> None:
    seed("a", "b", "c")
    tab.by_id("filter").fill("a")
    tab.by_id("clear").click()
    expect(tab.by_id("clearing-text")).to_contain_text("3 waiting messages will be removed.")
    expect(tab.by_id("clearing-text")).to_contain_text("not only those that match the filter")
    expect(tab.by_id("clearing-go")).to_be_disabled()
    tab.by_id("clearing-name").fill(name + "x")
    expect(tab.by_id("clearing-go")).to_be_disabled()
    tab.by_id("clearing-name").fill(name)
    tab.by_id("clearing-go").click()
    expect(tab.by_id("count")).to_have_text("0")
    expect(tab.by_id("undo-text")).to_have_text("3 messages cleared")
    tab.by_id("filter").fill("")
    tab.by_id("undo-go").click()
    tab.shows("a", "b", "c")
    assert stored(redis, name) == [b"a", b"b", b"c"]


def test_clear_and_undo_work_by_keyboard_and_the_undo_outlives_a_reload(tab: Tab, seed: Callable[..., None]) -> None:
    seed("a", "b")
    tab.shows("a", "b")
    tab.by_id("clear").focus()
    tab.press("Enter")
    assert tab.focused() == "clearing-name"
    tab.press("Escape")
    expect(tab.by_id("clearing")).to_be_hidden()
    expect(tab.by_id("clear")).to_be_focused()
    tab.press("Enter")
    tab.page.keyboard.type(tab.name)
    tab.press("Enter")
    expect(tab.by_id("count")).to_have_text("0")
    expect(tab.by_id("undo-go")).to_be_focused()
    tab.page.reload()
    expect(tab.by_id("undo-text")).to_have_text("2 messages cleared")
    tab.by_id("undo-go").focus()
    tab.press("Enter")
    tab.shows("a", "b")


def test_a_dialog_that_is_opened_again_at_once_asks_again(tab: Tab, seed: Callable[..., None]) -> None:
    seed("a", "b")
    tab.shows("a", "b")
    tab.by_id("clear").click()
    tab.page.evaluate("document.querySelector('#clearing').close(); document.querySelector('#clear').click()")
    tab.by_id("clearing-name").fill(tab.name)
    tab.by_id("clearing-go").click()
    expect(tab.by_id("undo-text")).to_have_text("2 messages cleared")
    expect(tab.by_id("count")).to_have_text("0")


def test_two_clears_can_both_be_undone(tab: Tab, seed: Callable[..., None]) -> None:
    for message in ("first", "second"):
        seed(message)
        tab.shows(message)
        clear(tab)
    tab.by_id("undo-go").click()
    tab.shows("second")
    tab.by_id("undo-go").click()
    expect(tab.rows()).to_have_count(2)
    expect(tab.by_id("undo")).to_be_hidden()


def test_clearing_a_queue_that_has_become_empty_offers_no_undo(
    tab: Tab, seed: Callable[..., None], redis: Any, name: str
) -> None:
    seed("hello")
    tab.shows("hello")
    tab.by_id("clear").click()
    redis.delete("queue:" + name)
    tab.by_id("clearing-name").fill(name)
    tab.by_id("clearing-go").click()
    expect(tab.by_id("toasts")).to_contain_text("0 messages cleared")
    expect(tab.by_id("undo")).to_be_hidden()


def test_an_expired_undo_is_not_offered_again(tab: Tab, seed: Callable[..., None], redis: Any, name: str) -> None:
    seed("hello")
    tab.shows("hello")
    clear(tab)
    expect(tab.by_id("undo")).to_be_visible()
    redis.delete(*redis.keys("{queue:" + name + "}:cleared:*"))
    tab.by_id("undo-go").click()
    expect(tab.page.get_by_role("alert")).to_contain_text("undo has expired")
    expect(tab.by_id("undo")).to_be_hidden()


def test_move_some_messages_to_another_queue(tab: Tab, seed: Callable[..., None], redis: Any, name: str) -> None:
    seed("a", "b", "c")
    tab.shows("a", "b", "c")
    tab.by_id("move").click()
    tab.page.keyboard.type(name + ".later")
    expect(tab.by_id("moving-new")).to_have_text("This is a new queue.")
    tab.by_id("moving-max").fill("2")
    tab.press("Enter")
    tab.shows("c")
    expect(tab.by_id("toasts")).to_contain_text(f"2 messages moved to {name}.later")
    assert stored(redis, name + ".later") == [b"a", b"b"]
    tab.by_id("move").click()
    tab.by_id("moving-to").fill(name)
    expect(tab.by_id("moving-new")).to_have_text("")
    tab.press("Escape")
    tab.page.get_by_role("link", name=f"Open {name}.later").click()
    tab.shows("a", "b")


def test_a_move_to_the_queue_itself_or_to_a_name_that_no_url_can_hold_is_refused(
    tab: Tab, seed: Callable[..., None], redis: Any, name: str
) -> None:
    seed("hello")
    tab.shows("hello")
    for target, sentence in [
        (name, "cannot be moved to the queue"),
        (".", "A queue name has"),
        ("..", "A queue name has"),
    ]:
        move(tab, target)
        expect(tab.page.get_by_role("alert").last).to_contain_text(sentence)
    assert stored(redis, name) == [b"hello"]


def test_a_move_into_a_new_queue_can_be_undone_unless_that_has_changed(
    tab: Tab, seed: Callable[..., None], redis: Any, name: str
) -> None:
    seed("a", "b")
    back = tab.by_id("toasts").get_by_role("button", name="Move back")
    for target, offered in [(f"{name}x", True), (f"{name}y", True), (f"{name}z", False)]:
        redis.lpush(f"queue:{name}z", "older")
        expect(tab.by_id("count")).to_have_text("2")
        move(tab, target)
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


def test_dead_letters_are_shown_and_moved_back(tab: Tab, redis: Any, name: str) -> None:
    redis.lpush(f"{{queue:{name}}}:dead", "bad one", "bad two")
    expect(tab.by_id("dead")).to_have_text("2")
    tab.by_id("dead-link").click()
    expect(tab.page).to_have_url(f"{tab.url}/q/{name}.dead")
    tab.shows("bad one", "bad two")
    note = f"Messages from {name} that were buried, or delivered 5 times without an ack."
    expect(tab.page.locator(".waiting .note").first).to_contain_text(note)
    tab.by_id("move").click()
    expect(tab.by_id("moving-to")).to_have_value(name)  # where they came from
    tab.press("Escape")
    # Dead letters of dead letters are offered only if there are some.
    expect(tab.by_id("dead-link")).to_be_hidden()
    redis.lpush(f"{{queue:{name}}}:dead:dead", "twice dead")
    expect(tab.by_id("dead-link")).to_be_visible()
    tab.by_id("dead-back").click()
    expect(tab.by_id("count")).to_have_text("0")
    tab.page.get_by_role("link", name=f"Open {name}", exact=True).first.click()
    tab.shows("bad one", "bad two")
    assert stored(redis, name) == [b"bad one", b"bad two"]
