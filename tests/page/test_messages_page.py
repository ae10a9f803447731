"""The list of waiting messages and an open message: many, long or hostile messages, the filter, and removing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.page.conftest import Tab, stored
from tests.servers import Store

HOSTILE = [
    "<img src=x onerror=\"document.title='owned'\">",
    "<script>document.title='owned'</script>",
    "</script><script>document.title='owned'</script>",
    "\"><svg onload=document.title='owned'>",
    "javascript:document.title='owned'",
    "{{7*7}} ${7*7} {count} %s \\u003cb\\u003e <b>bold</b>",
    '{"a": "<img src=x onerror=alert(1)>"}',
    "<style>*{display:none}</style>",
    "\x00\x1b[31m\u202egnp.exe\u2066",
]

NARROW = [("en-US", 360), ("pt-BR", 390), ("es", 360)]
OTHERS = ["/%3Cimg%20src=x%3E", "/q/"]


def test_a_hundred_thousand_messages_are_a_few_rows(tab: Tab, valkey: Store, name: str) -> None:
    client = valkey.client()
    for start in range(0, 100_000, 5000):
        client.lpush("queue:" + name, *(f"message {i}" for i in range(start, start + 5000)))
    expect(tab.by_id("count")).to_have_text("100,000")
    expect(tab.rows().first).to_have_text("message 0")
    assert tab.page.locator(".row").count() < 60
    tab.page.locator(".row .open").first.focus()
    tab.press("End")
    expect(tab.page.locator(".row:last-child .preview")).to_have_text("message 99999")
    expect(tab.page.locator(":focus .position")).to_have_text("100,000")
    tab.press("PageUp", "ArrowUp")
    expect(tab.page.locator(":focus .preview")).to_have_text(f"message {99_999 - tab_page(tab) - 1}")
    tab.by_id("viewport").evaluate("view => { view.scrollTop = view.scrollHeight / 2 }")
    expect(tab.page.locator(".row .preview", has_text="message 50000")).to_be_visible()
    assert tab.page.locator(".row").count() < 60
    # Rows far down the list stay correct while messages are popped.
    client.rpop("queue:" + name, 10)
    expect(tab.by_id("count")).to_have_text("99,990")
    row = tab.page.locator(".row", has=tab.page.get_by_text("50,001", exact=True))
    expect(row.locator(".preview")).to_have_text("message 50010")
    tab.page.locator(".row .open").nth(8).focus()
    tab.press("Home")
    expect(tab.page.locator(":focus .preview")).to_have_text("message 10")
    assert tab.page.locator(".row").count() < 60


def tab_page(tab: Tab) -> int:
    """Return the number of rows that PageUp moves by."""
    return int(tab.by_id("viewport").evaluate("view => Math.floor(view.clientHeight / 44) - 1"))


@pytest.mark.soak
def test_the_last_of_a_million_messages_can_be_reached(tab: Tab, valkey: Store, name: str) -> None:
    client = valkey.client()
    for _ in range(100):
        client.lpush("queue:" + name, *["x"] * 9999, "last of ten thousand")
    expect(tab.by_id("count")).to_have_text("1,000,000")
    tab.page.locator(".row .open").first.focus()
    tab.press("End", "ArrowUp", "ArrowDown")
    expect(tab.page.locator(":focus .position")).to_have_text("1,000,000")
    expect(tab.page.locator(":focus .preview")).to_have_text("last of ten thousand")
    client.delete("queue:" + name)
    expect(tab.by_id("empty")).to_be_visible()


@pytest.mark.soak
def test_ten_messages_of_a_megabyte_are_not_read_whole_until_opened(tab: Tab, seed: Callable[..., None]) -> None:
    for i in range(10):
        seed((f"{i} " + "word " * 209_715)[: 1 << 20])
    expect(tab.page.locator(".row .size")).to_have_text(["1 MiB"] * 10)
    asked: list[int] = []
    tab.page.on("response", lambda answer: asked.append(int(answer.headers.get("content-length", 0))))
    tab.page.locator(".row .open").nth(4).click()
    expect(tab.by_id("message-title")).to_have_text("Message 5")
    expect(tab.by_id("message-body")).to_contain_text("4 word word")
    tab.by_id("message-rest").click()
    expect(tab.by_id("message-rest")).to_be_hidden()
    assert len(tab.by_id("message-body").text_content() or "") == 1 << 20
    assert sum(size > 1_000_000 for size in asked) <= 1  # only the open message was read whole
    tab.press("Escape")
    tab.by_id("pop").click()
    expect(tab.in_hand().locator(".preview")).to_contain_text("0 word word")
    tab.in_hand().get_by_role("button", name="Put back").click()
    expect(tab.page.locator(".row .preview").first).to_contain_text("0 word")


def test_json_is_formatted_and_bytes_are_shown_as_hexadecimal(tab: Tab, seed: Callable[..., None]) -> None:
    seed('{"price":1.10,"tags":["a","b"]}', "  plain\n text", b"\xff\x00A")
    expect(tab.page.locator(".row .kind:visible")).to_have_text(["JSON", "bytes"])
    expect(tab.page.locator(".row.next .preview")).to_contain_text("price")
    expect(tab.page.locator(".row .badge:visible")).to_have_text(["next"])
    tab.page.locator(".row .open").first.click()
    body = tab.by_id("message-body")
    expect(body).to_contain_text("price")
    assert body.text_content() == '{\n  "price": 1.10,\n  "tags": [\n    "a",\n    "b"\n  ]\n}'
    tab.page.get_by_role("button", name="Text", exact=True).click()
    assert body.text_content() == '{"price":1.10,"tags":["a","b"]}'
    tab.page.get_by_role("button", name="Hex").click()
    assert (body.text_content() or "").startswith("00000000  7b 22 70 72 69 63 65 22  3a 31 2e 31")
    tab.press("Escape")
    tab.page.locator(".row .open").nth(1).click()
    expect(tab.by_id("message-title")).to_have_text("Message 2")
    expect(body).to_contain_text("plain")
    assert body.text_content() == "  plain\n text"
    expect(tab.page.get_by_role("button", name="Formatted")).to_be_hidden()
    tab.press("Escape")
    tab.page.locator(".row .open").nth(2).click()
    expect(body).to_contain_text("ff 00 41")
    expect(tab.page.get_by_role("button", name="Text", exact=True)).to_be_hidden()


def test_a_message_can_be_opened_copied_and_removed_by_keyboard(tab: Tab, seed: Callable[..., None]) -> None:
    seed("one", "two é\n")
    tab.page.locator(".row .open").first.focus()
    tab.press("ArrowDown", "Enter")
    expect(tab.by_id("message-body")).to_be_focused()
    tab.by_id("message-copy").focus()
    tab.press("Enter")
    expect(tab.by_id("message-copy")).to_have_text("Copied")
    assert tab.page.evaluate("navigator.clipboard.readText()") == "two é\n"
    tab.by_id("message-remove").focus()
    tab.press("Enter")
    tab.shows("one")
    expect(tab.by_id("message")).to_be_hidden()
    expect(tab.in_hand().locator(".how")).to_have_text("Removed")


def test_the_filter_shows_the_matches_with_their_positions(tab: Tab, seed: Callable[..., None]) -> None:
    seed(*(f"order {i}" for i in range(200)))
    tab.by_id("filter").fill("ORDER 19")
    tab.shows("order 19", *(f"order {i}" for i in range(190, 200)))
    expect(tab.by_id("found")).to_have_text("11 found in the first 200")
    expect(tab.page.locator(".row .position").nth(1)).to_have_text("191")
    seed("order 1900")
    expect(tab.rows()).to_have_count(12)
    tab.page.get_by_role("button", name="Remove message 192").click()
    expect(tab.in_hand().locator(".preview")).to_have_text("order 191")
    expect(tab.rows()).to_have_count(11)
    tab.by_id("filter").fill("")
    expect(tab.rows().first).to_have_text("order 0")
    for typed in ("order 1", "", "order 12", ""):  # faster than the server responds
        tab.by_id("filter").fill(typed)
    expect(tab.by_id("found")).to_be_hidden()
    expect(tab.rows().first).to_have_text("order 0")
    tab.by_id("filter").fill("nothing like this")
    expect(tab.rows()).to_have_count(0)
    expect(tab.by_id("found")).to_have_text("0 found in the first 200")


def test_hostile_text_is_text_everywhere(tab: Tab, seed: Callable[..., None], name: str) -> None:
    seed(*HOSTILE)
    expect(tab.rows()).to_have_count(len(HOSTILE))
    for place, message in enumerate(HOSTILE):
        tab.page.locator(".row .open").nth(place).click()
        expect(tab.by_id("message-title")).to_have_text(f"Message {place + 1}")
        shown = tab.by_id("message-body").text_content() or ""
        assert shown == message or json.loads(shown) == json.loads(message)
        tab.press("Escape")
        expect(tab.by_id("message")).to_be_hidden()
    for message in HOSTILE:
        tab.by_id("pop").click()
        expect(tab.in_hand().first.locator(".preview")).to_contain_text(message[:4].replace("\x00\x1b", "��"))
        tab.by_id("push-text").fill(message)
        tab.by_id("push-go").click()
        expect(tab.by_id("push-text")).to_have_value("")
    expect(tab.rows()).to_have_count(len(HOSTILE))
    made = "document.querySelectorAll('main img, main script, main style, main b, main svg[onload]').length"
    assert tab.page.evaluate(made) == 0
    expect(tab.page).to_have_title(f"({len(HOSTILE)}) {name}")


def test_hostile_text_in_errors_names_and_files_is_text(tab: Tab, tmp_path: Any) -> None:
    hostile = "<img src=x onerror=\"document.title='owned'\">"
    answer = json.dumps({"success": False, "error": hostile, "message": hostile})
    tab.page.route("**/pop", lambda route: route.fulfill(status=400, body=answer, content_type="application/json"))
    tab.by_id("pop").click()
    expect(tab.page.get_by_role("alert").locator(".text")).to_have_text(hostile)
    queue = {"name": hostile, "count": hostile, "reserved": 0, "delayed": 0, "dead": hostile, "waiters": 0}
    found = f"event: queues\ndata: {json.dumps({'queues': [queue], 'complete': True, 'unnamed': 0})}\n\n"
    tab.page.route("**/api/events?*", lambda route: route.fulfill(body=found, content_type="text/event-stream"))
    tab.by_id("switch").click()
    expect(tab.page.locator("#queues-list .queue-name")).to_have_text(hostile)
    expect(tab.page.locator("#queues-list a[href]")).to_have_count(0)  # no URL can hold this name
    tab.press("Escape")
    (tmp_path / "<img src=x onerror=alert(1)>.txt").write_text("a")
    tab.by_id("push-file").set_input_files(tmp_path / "<img src=x onerror=alert(1)>.txt")
    expect(tab.by_id("dropped-title")).to_contain_text("<img src=x onerror=alert(1)>.txt")
    assert tab.page.evaluate("document.querySelectorAll('img').length") == 0


@pytest.mark.parametrize(
    "path", ["/q/%3Cscript%3Ealert(1)%3C/script%3E", *(pytest.param(each, marks=pytest.mark.soak) for each in OTHERS)]
)
def test_a_hostile_url_gets_the_friendly_404_page(tab: Tab, path: str) -> None:
    tab.page.goto(tab.url + path)
    assert tab.page.evaluate("document.querySelectorAll('main script, main img').length") == 0
    tab.page.get_by_role("link", name="Go to the queue").click()
    expect(tab.by_id("live")).to_have_text("Live")


MAX_SHIFT = 0.05  # cumulative layout shift; below 0.1 is good, see https://web.dev/articles/cls


@pytest.mark.parametrize("width", [320, 768, 1280])
def test_nothing_jumps_and_nothing_is_cut_off(tabs: Callable[..., Tab], seed: Callable[..., None], width: int) -> None:
    seed("x" * 500, '{"a": 1}', *(f"m{i}" for i in range(50)))
    tab = tabs(width=width, height=844)
    tab.page.add_init_script(
        """window.jumps = 0;
        new PerformanceObserver((list) => { for (const one of list.getEntries()) window.jumps += one.value; })
          .observe({ type: "layout-shift", buffered: true });"""
    )
    tab.open()
    expect(tab.rows().first).to_contain_text("xxx")
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.page.evaluate("window.jumps") < MAX_SHIFT
    # Over a slow connection the page arrives piece by piece, but its style sheet is cached.
    slow = {"offline": False, "latency": 20, "downloadThroughput": 30_000, "uploadThroughput": 30_000}
    tab.page.context.new_cdp_session(tab.page).send("Network.emulateNetworkConditions", slow)
    tab.open()
    expect(tab.rows().first).to_contain_text("xxx")
    assert tab.page.evaluate("window.jumps") < MAX_SHIFT
    rights = "[...document.querySelectorAll('.row .remove, button')].map(one => one.getBoundingClientRect().right)"
    assert max(tab.page.evaluate(rights)) <= width


@pytest.mark.soak
@pytest.mark.parametrize("width", [390, 1280])
def test_long_names_stay_inside_notices_and_progress_bars(
    tabs: Callable[..., Tab], seed: Callable[..., None], name: str, width: int, tmp_path: Path
) -> None:
    seed("hello")
    tab = tabs(width=width).open()
    tab.by_id("move").click()
    tab.by_id("moving-to").fill(f"{name}-" + "x" * 100)
    tab.press("Enter")
    link = tab.by_id("toasts").get_by_role("link")
    expect(link).to_be_visible()
    toast = tab.page.locator(".toast").bounding_box()
    assert toast
    assert toast["height"] < 250
    assert toast["x"] + toast["width"] <= width
    tab.page.route("**/push?each=line", lambda route: None)
    (tmp_path / ("a" * 200)).write_text("line")
    tab.by_id("push-file").set_input_files(tmp_path / ("a" * 200))
    tab.page.get_by_role("button", name="One message per line").click()
    expect(tab.by_id("push-progress")).to_be_visible()
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_filter_shows_only_matches_while_messages_are_popped(
    tab: Tab, seed: Callable[..., None], valkey: Store, name: str
) -> None:
    seed(*(f"{'match' if i % 3 == 0 else 'other'}{i}" for i in range(30)))
    expect(tab.by_id("count")).to_have_text("30")
    tab.by_id("filter").fill("match")
    expect(tab.rows()).to_have_text([f"match{i}" for i in range(0, 30, 3)])
    tab.page.evaluate(
        """window.wrong = [];
        new MutationObserver(() => {
          const shown = [...document.querySelectorAll("#rows .row .preview")].map((one) => one.textContent);
          wrong.push(...shown.filter((text) => !text.startsWith("match")));
        }).observe(document.getElementById("rows"), { subtree: true, childList: true, characterData: true });"""
    )
    for left in range(29, 25, -1):
        valkey.client().rpop("queue:" + name)
        expect(tab.by_id("count")).to_have_text(str(left))
    expect(tab.rows()).to_have_text([f"match{i}" for i in range(6, 30, 3)])
    assert tab.page.evaluate("window.wrong") == []


def test_a_long_message_is_shown_in_parts_and_no_character_is_cut(tab: Tab, seed: Callable[..., None]) -> None:
    seed("x" + "😀" * 60_000)
    tab.page.locator(".row .open").click()
    expect(tab.by_id("message-rest")).to_have_text("Show the rest (39.1 KiB)")
    body = tab.by_id("message-body")
    assert body.evaluate("body => body.textContent.isWellFormed()")
    # The rest is added in parts, of which only the visible ones are laid out: a megabyte in one takes seconds.
    tab.by_id("message-rest").click()
    assert body.text_content() == "x" + "😀" * 60_000
    parts = body.locator(".part").evaluate_all(
        "parts => parts.map((one) => one.textContent.isWellFormed() && getComputedStyle(one).contentVisibility)"
    )
    assert parts == ["auto", "auto", "auto"]


# --- remove


def test_remove_a_message_from_the_middle_by_mouse(tab: Tab, seed: Callable[..., None], redis: Any, name: str) -> None:
    seed("a", "b", "c")
    tab.page.get_by_role("button", name="Remove message 2").click()
    tab.shows("a", "c")
    expect(tab.in_hand().locator(".how")).to_have_text("Removed")
    expect(tab.in_hand().locator(".preview")).to_have_text("b")
    assert stored(redis, name) == [b"a", b"c"]


def test_messages_of_bytes_can_be_removed_even_if_they_start_like_text(
    tab: Tab, seed: Callable[..., None], redis: Any, name: str
) -> None:
    seed("a", b"x" * 5000 + b"\xff", b"\xfe" * 5000)
    tab.page.get_by_role("button", name="Remove message 2").click()
    expect(tab.by_id("count")).to_have_text("2")
    tab.page.get_by_role("button", name="Remove message 2").click()
    tab.shows("a")
    assert stored(redis, name) == [b"a"]


def test_remove_a_message_by_keyboard(tab: Tab, seed: Callable[..., None]) -> None:
    seed("a", "b", "c")
    tab.shows("a", "b", "c")
    tab.page.locator(".row .open").first.focus()
    tab.press("ArrowDown", "Delete")
    tab.shows("a", "c")
    expect(tab.page.locator(".row .open").nth(1)).to_be_focused()


def test_a_message_that_has_moved_is_not_removed(tab: Tab, seed: Callable[..., None], redis: Any, name: str) -> None:
    seed("a", "b", "c")
    tab.shows("a", "b", "c")
    # Another consumer pops between the click and the request.
    tab.page.route("**/all?*", lambda route: (redis.rpop("queue:" + name), route.continue_()))
    tab.page.get_by_role("button", name="Remove message 2").click()
    expect(tab.page.get_by_role("alert")).to_contain_text("The queue has changed; nothing was removed.")
    tab.shows("b", "c")
    assert stored(redis, name) == [b"b", b"c"]


@pytest.mark.parametrize(
    ("locale", "width"),
    [
        pytest.param(locale, width, marks=() if (locale, width) in NARROW else pytest.mark.soak)
        for locale in ("en-US", "pt-BR", "es")
        for width in (360, 390, 520, 1280)
    ],
)
def test_a_large_count_does_not_overlap_the_others(
    tabs: Callable[..., Tab], redis: Any, name: str, width: int, locale: str
) -> None:
    many = (
        "local t = {} for i = 1, 1000 do t[i] = 'x' end for i = 1, 1000 do redis.call('LPUSH', KEYS[1], unpack(t)) end"
    )
    redis.eval(many, 1, f"queue:{name}")
    tab = tabs(width=width, locale=locale).open()
    expect(tab.by_id("count")).to_have_text({"en-US": "1,000,000", "pt-BR": "1.000.000", "es": "1.000.000"}[locale])
    right_of_text = """() => {
        const range = document.createRange();
        range.selectNodeContents(document.getElementById('count'));
        return range.getBoundingClientRect().right;
    }"""
    facts = tab.page.locator(".facts").bounding_box()
    assert facts
    count = tab.by_id("count").bounding_box()
    assert count
    assert tab.page.evaluate(right_of_text) <= facts["x"] or count["y"] + count["height"] <= facts["y"]
    assert facts["x"] + facts["width"] <= width
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
