"""The actions on one message: move it back, push a copy, download it, put it back or bury it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import expect

from tests.page.conftest import Tab, stored


def test_one_of_fifty_dead_letters_is_found_with_its_reason_and_moved_back(tab: Tab, redis: Any, name: str) -> None:
    orders = [f'{{"order":{number},"after":{number - 11}}}' for number in range(1000, 1050)]
    tab.post("push", messages=orders)
    ids = [one["id"] for one in tab.post("reserve", max=50, lease=600)["messages"]]
    tab.post("release", ids=ids, dead=True, reason="no such customer")
    tab.by_id("dead-link").click()
    tab.by_id("filter").fill("1036")
    tab.press("Enter")
    expect(tab.page.locator(".hit .position")).to_have_text(["37", "48"])
    tab.page.locator(".hit .open").first.click()
    expect(tab.by_id("message-history")).to_contain_text("delivered 1 time · dead-lettered at ")
    expect(tab.by_id("message-history")).to_contain_text("no such customer")
    redis.rpop(f"{{queue:{name}}}:dead")  # another one is popped, so that it moves to another position
    tab.by_id("message-move").click()
    expect(tab.by_id("message")).to_be_hidden()
    expect(tab.page.locator(".hit .position")).to_have_text(["47"])  # it has moved up one position
    expect(tab.by_id("search-status")).to_have_text("1 found")
    expect(tab.page.locator(".hit .open")).to_be_focused()
    expect(tab.by_id("search").get_by_role("link", name=f"Open {name}", exact=True)).to_be_visible()
    assert stored(redis, name) == [orders[36].encode()]
    left = [order.encode() for order in orders if order not in (orders[0], orders[36])]
    assert redis.lrange(f"{{queue:{name}}}:dead", 0, -1)[::-1] == left


def test_a_copy_can_be_edited_and_pushed_to_another_queue_and_survives_a_failure(
    tab: Tab, seed: Callable[..., None], redis: Any, name: str
) -> None:
    seed("first\r\nline", b"\xff\x00")
    tab.rows().first.click()
    tab.by_id("message-edit").click()
    text, to = tab.by_id("copying-text"), tab.by_id("copying-to")
    expect(text).to_be_focused()
    expect(to).to_have_value(name)
    text.fill("second\nline")
    to.fill(name + "x")
    expect(tab.by_id("copying-new")).to_have_text("This is a new queue.")
    tab.page.route("**/push", lambda route: route.abort())
    tab.by_id("copying").get_by_role("button", name="Push").click()
    expect(tab.by_id("copying").get_by_role("alert")).to_contain_text("No response")
    expect(text).to_have_value("second\nline")
    tab.page.unroute("**/push")
    to.press("Enter")
    expect(tab.by_id("copying")).to_be_hidden()
    expect(tab.by_id("message").get_by_text(f"Copy pushed to {name}x")).to_be_visible()
    expect(tab.by_id("message-edit")).to_be_focused()
    assert stored(redis, name + "x") == [b"second\r\nline"]
    tab.press("Escape")
    tab.rows().nth(1).click()
    tab.by_id("message-edit").click()
    expect(text).to_be_hidden()
    expect(to).to_be_focused()
    tab.press("Enter")  # a message that cannot be edited is pushed byte for byte
    expect(tab.by_id("copying")).to_be_hidden()
    assert stored(redis, name) == [b"first\r\nline", b"\xff\x00", b"\xff\x00"]


def test_a_message_can_be_downloaded_byte_for_byte(tab: Tab, seed: Callable[..., None], name: str) -> None:
    seed(" text é\r\n", '{"a": 1.10}', b"\xff\x00\n")
    for place, (content, file) in enumerate(
        [(" text é\r\n".encode(), "message.txt"), (b'{"a": 1.10}', "message.json"), (b"\xff\x00\n", "message.bin")]
    ):
        tab.page.locator(".row .open").nth(place).click()
        with tab.page.expect_download() as download:
            tab.by_id("message-download").click()
        assert download.value.suggested_filename == f"{name}-{file}"
        assert Path(download.value.path()).read_bytes() == content
        tab.press("Escape")


def test_a_reserved_or_delayed_message_can_be_opened_put_back_buried_or_removed(
    tab: Tab, redis: Any, name: str
) -> None:
    tab.post("push", messages=["work", "other"])
    for _ in range(2):
        tab.post("reserve", lease=600)
    tab.post("push", messages=["never", "bad"], delay=600)
    history, cards = tab.by_id("message-history"), tab.in_flight()
    tab.by_id("reserved-open").click()
    cards.get_by_role("button", name="work").click()
    expect(tab.by_id("message-title")).to_have_text("Reserved")
    expect(tab.by_id("message-body")).to_have_text("work")
    expect(history).to_contain_text("back in the queue in 9 min")
    expect(history).to_contain_text("delivery 1 of 5")
    expect(tab.by_id("message-remove")).to_be_hidden()
    tab.by_id("message-back").click()
    expect(cards).to_have_count(1)
    assert stored(redis, name) == [b"work"]
    tab.press("Escape")
    tab.by_id("delayed-open").click()
    cards.get_by_role("button", name="bad").click()
    expect(history).to_contain_text("available in 9 min")
    tab.by_id("message-later").click()
    tab.by_id("releasing-reason").fill("a duplicate")
    tab.by_id("releasing").get_by_role("button", name="Bury").click()
    expect(tab.by_id("message")).to_be_hidden()
    expect(cards).to_have_count(1)
    cards.get_by_role("button", name="never").click()
    tab.by_id("message-remove").click()
    expect(cards).to_have_count(0)
    assert redis.lrange(f"{{queue:{name}}}:dead", 0, -1) == [b"bad"]
    tab.press("Escape")
    expect(tab.in_hand().locator(".preview")).to_have_text("never")
    tab.by_id("reserve").click()  # a message reserved on this page can be put back from its dialog, too
    tab.in_hand().get_by_role("button", name="work").click()
    expect(history).to_contain_text("delivery 2 of 5")
    tab.by_id("message-back").click()
    expect(tab.in_hand()).to_have_count(1)
    assert stored(redis, name) == [b"work"]
