"""The curl line at the foot of the page: it shows what the page just did, and does the same in a terminal."""

import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.page.conftest import Tab, stored


def run(line: str) -> None:
    subprocess.run(
        ["sh", "-c", line.replace("curl ", "curl -sS --fail ", 1)], check=True, timeout=20, capture_output=True
    )


@pytest.mark.parametrize("message", ["it's 50% & more", "@file", "two\nlines é", "a\x07b"])
def test_the_curl_line_of_a_push_does_the_same(tabs: Callable[..., Tab], redis: Any, name: str, message: str) -> None:
    tab = tabs(permissions=["clipboard-read", "clipboard-write"]).open()
    tab.by_id("push-text").fill(message)
    tab.by_id("push-go").click()
    expect(tab.by_id("count")).to_have_text("1")
    tab.by_id("curl-copy").click()
    expect(tab.by_id("curl-copy")).to_have_text("Copied")
    run(tab.page.evaluate("navigator.clipboard.readText()"))
    expect(tab.by_id("count")).to_have_text("2")
    first, second = stored(redis, name)
    assert first == second == message.encode()


def test_every_act_shows_its_curl_line(tab: Tab, seed: Callable[..., None], redis: Any, name: str) -> None:
    line, api = tab.by_id("curl-line"), f"{tab.url}/api/queue/{name}"
    expect(line).to_have_text(f"curl -N {api}/events")
    seed("a", "b", "c", "d")
    tab.shows("a", "b", "c", "d")
    tab.by_id("pop").click()
    expect(line).to_have_text(f"curl -X POST {api}/pop")
    tab.shows("b", "c", "d")
    tab.taken().get_by_role("button", name="Put back").click()
    expect(line).to_have_text(f"curl -d message=a '{api}/push?front=1'")
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


def test_the_curl_line_of_an_empty_queue_makes_the_page_move(tabs: Callable[..., Tab]) -> None:
    tab = tabs(permissions=["clipboard-read", "clipboard-write"]).open()
    tab.by_id("empty-copy").click()
    expect(tab.by_id("empty-copy")).to_have_text("Copied")
    run(tab.page.evaluate("navigator.clipboard.readText()"))
    tab.shows("hello")


def test_a_text_of_many_lines_is_one_line_of_the_bar_and_is_copied_whole(tabs: Callable[..., Tab]) -> None:
    tab = tabs(permissions=["clipboard-read", "clipboard-write"]).open()
    text = "\n".join(f"line {i}" for i in range(45))
    before = tab.page.locator(".curl-bar").bounding_box()
    tab.by_id("push-text").fill(text)
    tab.by_id("push-go").click()
    expect(tab.by_id("curl-line")).to_contain_text("line 0↵line 1↵")
    assert tab.page.locator(".curl-bar").bounding_box() == before
    tab.by_id("curl-copy").click()
    expect(tab.by_id("curl-copy")).to_have_text("Copied")
    assert text in tab.page.evaluate("navigator.clipboard.readText()")
    tab.by_id("pop").click()
    expect(tab.taken()).to_have_count(1)
