"""The curl command at the foot of the page: it shows the last action, and does the same in a terminal."""

import subprocess
from collections.abc import Callable
from typing import Any

from playwright.sync_api import expect

from tests.page.conftest import Tab, stored
from tests.servers import until


def run(command: str) -> None:
    with_errors = command.replace("curl ", "curl -sS --fail ", 1)
    subprocess.run(["sh", "-c", with_errors], check=True, timeout=20, capture_output=True)


def copied(tab: Tab, button: str) -> str:
    """Press a button to copy, and return the text in the clipboard."""
    tab.page.evaluate("navigator.clipboard.writeText('')")
    tab.by_id(button).click()
    expect(tab.by_id(button)).to_have_text("Copied")
    return str(until(lambda: tab.page.evaluate("navigator.clipboard.readText()")))


def test_the_curl_command_of_a_push_pushes_the_same(tab: Tab, redis: Any, name: str) -> None:
    messages = ["it's 50% & more", "@file", "two\nlines é", "a\x07b"]
    for number, message in enumerate(messages):
        tab.by_id("push-text").fill(message)
        tab.by_id("push-go").click()
        expect(tab.by_id("count")).to_have_text(str(2 * number + 1))
        run(copied(tab, "curl-copy"))
    assert stored(redis, name) == [message.encode() for message in messages for _ in range(2)]


def test_every_action_shows_its_curl_command(tab: Tab, seed: Callable[..., None], name: str) -> None:
    line, api = tab.by_id("curl-line"), f"{tab.url}/api/queue/{name}"
    expect(line).to_have_text(f"curl -N {api}/events")
    seed("a", "b", "c", "d")
    tab.shows("a", "b", "c", "d")
    tab.by_id("pop").click()
    expect(line).to_have_text(f"curl -X POST {api}/pop")
    tab.shows("b", "c", "d")
    tab.in_hand().get_by_role("button", name="Put back").click()
    expect(line).to_have_text(f"curl --data-urlencode message=a '{api}/push?front=1'")
    tab.shows("a", "b", "c", "d")
    tab.page.get_by_role("button", name="Remove message 2").click()
    expect(line).to_contain_text('{"position":1,"message":"b"}')
    tab.shows("a", "c", "d")
    tab.page.locator(".row .open").first.click()
    expect(line).to_have_text(f"curl '{api}/all?offset=0&limit=1&details=1'")
    expect(tab.by_id("message")).to_be_visible()
    tab.press("Escape")
    tab.by_id("clear").click()
    tab.page.keyboard.type(name)
    tab.press("Enter")
    expect(line).to_have_text(f"curl -X POST {api}/clear")
    tab.by_id("undo-go").click()
    expect(line).to_contain_text(f"{api}/restore")
    tab.shows("a", "c", "d")


def test_the_curl_command_of_an_empty_queue_pushes_a_message(tab: Tab) -> None:
    run(copied(tab, "empty-copy"))
    tab.shows("hello")


def test_a_command_of_many_lines_is_shown_on_one_and_copied_whole(tab: Tab) -> None:
    text = "\n".join(f"line {i}" for i in range(45))
    before = tab.page.locator(".curl-bar").bounding_box()
    tab.by_id("push-text").fill(text)
    tab.by_id("push-go").click()
    expect(tab.by_id("curl-line")).to_contain_text("line 0↵line 1↵")
    assert tab.page.locator(".curl-bar").bounding_box() == before
    assert text in copied(tab, "curl-copy")
